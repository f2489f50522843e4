# What the launchers share. Each defines usage, then sources this file with its own arguments.
# It answers --help, takes --fast away into $fast, and works from the top of the checkout.
# shellcheck shell=bash disable=SC2034  # variables are used by the launchers

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    usage
    exit 0
fi
fast=false
if [[ ${1:-} == --fast ]]; then
    fast=true
    shift
fi

caller=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
if [[ ${LOGS:-} && $LOGS != /* && $caller != "$PWD" ]]; then LOGS=$caller/$LOGS; fi
if [[ ${LOGS:-} == *[\,={}\[\]\(\)\'\"\$\\]* ]]; then
    echo "LOGS is $LOGS; name a folder without commas, equals signs, brackets, quotes, \$ and \\" >&2
    exit 1
fi
[[ -d .venv ]] && PATH="$PWD/.venv/bin:$PATH"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # small models are fastest so, and figures agree to the last bit
device=("trainer=${ACCELERATOR:-auto}" "trainer.devices=${DEVICES:-1}")

# Prints a command and runs it.
run() {
    echo "$*"
    "$@"
}

# Trains several runs below a folder, "train_all FOLDER override..."; they print into its train.log.
train_all() {
    local logs=$1
    shift
    echo "matinee train -m $* log_dir=$logs ${device[*]}"
    mkdir -p "$logs"
    matinee train -m "$@" "log_dir=$logs" "${device[@]}" >"$logs/train.log"
}

# Joins words with commas.
commas() {
    local IFS=,
    echo "$*"
}

# Sorts arguments into models, by name, and overrides, which hold a "=" or begin with "~".
models=()
overrides=()
sort_arguments() {
    local argument
    for argument in "$@"; do
        if [[ $argument == *=* || $argument == "~"* ]]; then
            overrides+=("$argument")
        else
            models+=("$argument")
        fi
    done
}

# Lists the models that are trained, which those in closed form are not.
trained_models() {
    grep -L -E 'networks\.(pairs\.averages|popularity)\.' configs/model/*.yaml | sed 's|.*/||; s|\.yaml$||'
}

# Finds the experiment of a model, which may be one already; prints nothing if there is none.
experiment_of() {
    local name
    for name in "$1" "chronological/$1" "user_based/$1"; do
        if [[ -f configs/experiment/$name.yaml ]]; then
            echo "$name"
            return
        fi
    done
}

# Runs a verb over $models: by their experiments, or, without one, in the place of pooling.
for_models() {
    local verb=$1 model found status=0 known=() others=()
    for model in "${models[@]}"; do
        found=$(experiment_of "$model")
        if [[ $found ]]; then known+=("$found"); else others+=("$model"); fi
    done
    if ((${#known[@]})); then
        run matinee "$verb" -m "experiment=$(commas "${known[@]}")" "${device[@]}" "${overrides[@]}" ||
            status=1
    fi
    if ((${#others[@]})); then
        run matinee "$verb" -m experiment=user_based/pooling "model=$(commas "${others[@]}")" \
            "${device[@]}" "${overrides[@]}" || status=1
    fi
    return $status
}
