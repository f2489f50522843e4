# Functions of all launchers. A launcher defines usage, then sources this file with its own arguments.
# The file answers --help, moves --fast into $fast and changes to the top folder of the checkout.
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
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # fastest for small models, and repeatable to the last bit
device=("trainer=${ACCELERATOR:-auto}" "trainer.devices=${DEVICES:-1}")

# Prints a command and runs it.
run() {
    echo "$*"
    "$@"
}

# Trains several runs below a folder, "train_all FOLDER override..."; their output goes to its train.log.
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

# Splits arguments into models and overrides, which contain "=" or begin with "~".
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

# Lists the models with trained weights, without the closed-form ones.
trained_models() {
    grep -L -E 'networks\.(pairs\.averages|rankers\.[a-z_]+)\.' configs/model/*.yaml | sed 's|.*/||; s|\.yaml$||'
}

# Prints the experiment of a model or experiment; nothing if there is none.
experiment_of() {
    local name
    for name in "$1" "chronological/$1" "user_based/$1"; do
        if [[ -f configs/experiment/$name.yaml ]]; then
            echo "$name"
            return
        fi
    done
}

# Runs a verb for $models: with their experiments, or in place of pooling if they have none.
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
