#!/usr/bin/env bash
# Runs the study of long- and short-term dependencies and writes its tables and figures.
set -euo pipefail

usage() {
    cat <<'EOT'
usage: [SEEDS=0,1,2] [MODELS=...] [LOGS=folder] [DATASET=name] [JOBS=1]
       launchers/06_long_short_term.sh [--fast] [all|1..5] [override...]

Runs all experiments of docs/long_short_term.md, or one of them:
  1  ten consecutive tenths of the data, items with at least 20 and at least 2 rows
  2  the oldest 0 to 90 % of each user's training data dropped
  3  embedding sizes
  4  windows of 5, 10, 20 and 50 items
  5  the models of 4 on shuffled and shortened histories
each with and without user information: gru and user_gru, and in 4 and 5 the MODELS (gru, attention,
dnc and their user_ forms). Then it writes tables and figures of everything in LOGS
(lightning_logs/long_short_term/DATASET): run folders, and ranks.parquet for runs without a folder.
Finished run folders are skipped and stopped runs resumed, so after a kill give the same command
again. JOBS processes share the runs.
DATASET is lastfm-1k if its files are in the data folder, else ml-100k. Overrides apply to every run
and need LOGS. --fast: a few tiny runs on synthetic data.
ACCELERATOR=auto|cpu|gpu|npu (auto) and DEVICES=n (1) choose where.
EOT
}
# shellcheck source=launchers/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

sort_arguments "$@"
only=${models[0]:-all}
if [[ ${#models[@]} -gt 1 || ! $only =~ ^([1-5]|all)$ ]]; then
    echo "name one experiment, 1 to 5, or all, not: ${models[*]}" >&2
    exit 1
fi

cache=${MATINEE_DATA:-${XDG_CACHE_HOME:-$HOME/.cache}/matinee}
if [[ -z ${DATASET:-} ]]; then
    DATASET=ml-100k
    [[ -e $cache/lastfm-dataset-1K || -e $cache/lastfm-dataset-1K.tar.gz ]] && DATASET=lastfm-1k
fi
seeds=${SEEDS:-0,1,2}
jobs=${JOBS:-1}
if [[ ! $jobs =~ ^[1-9][0-9]*$ ]]; then
    echo "JOBS is $jobs; give a number of processes of at least 1" >&2
    exit 1
fi
if [[ ! $seeds =~ ^[0-9]+(,[0-9]+)*$ ]]; then
    echo "SEEDS is $seeds; give whole numbers with commas between them" >&2
    exit 1
fi
plain_and_user=gru,user_gru
every=${MODELS:-gru,user_gru,attention,user_attention,dnc,user_dnc}
IFS=, read -ra named <<<"$every"
for choice in "dataset/$DATASET" "${named[@]/#/model/}"; do
    if [[ ! -f configs/$choice.yaml ]]; then
        echo "there is no ${choice/\// }; choose one of $(commas "configs/${choice%%/*}"/*.yaml | sed 's|configs/[a-z]*/||g; s|\.yaml||g')" >&2
        exit 1
    fi
done
folds=0,1,2,3,4,5,6,7,8,9
dropped=0.0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9
sizes=8,16,32,64,128
lengths=(5 10 20 50)
of_whole=() of_source=()
[[ $DATASET == lastfm-1k ]] && of_source=(dataset.source.min_item_count=1) # each tenth drops its own rare items
if $fast; then
    DATASET=markov seeds=0 every=gru,user_attention folds=0,9 dropped=0.0,0.9 sizes=8,64 lengths=(5 20)
    of_whole=(dataset.num_users=50) of_source=(dataset.source.num_users=50)
    LOGS=${LOGS:-lightning_logs/long_short_term/fast_$(date +%Y-%m-%d_%H-%M-%S)_$$}
    overrides=(trainer.max_epochs=1 "${overrides[@]}")
elif ((${#overrides[@]})) && [[ -z ${LOGS:-} ]]; then
    echo "runs with overrides must not be mixed with those in lightning_logs/long_short_term; set LOGS=folder" >&2
    exit 1
fi
logs=${LOGS:-lightning_logs/long_short_term/$DATASET}
mkdir -p "$logs"

shopt -s nullglob
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
# Starts a command in the background; finish waits for all of them and fails if one did.
started=()
start() {
    "$@" >>"$logs/train.log" &
    started+=($!)
}
finish() {
    local process status=0
    for process in "${started[@]}"; do wait "$process" || status=1; done
    started=()
    return $status
}

# Trains models, "train MODEL,... override...", each in a folder named by the varied settings. Each of JOBS
# processes gets all of the runs and skips those that another process works on.
train() {
    local command job
    command=(matinee train -m resume=true experiment=long_short_term "model=$1" "seed=$seeds"
        "name=long_short_term/\${hydra:runtime.choices.model}" "log_dir=$logs" "${device[@]}"
        "${@:2}" "${overrides[@]}")
    printf '%q ' "${command[@]}" && echo
    for ((job = 0; job < jobs; job++)); do start "${command[@]}"; done
    finish
}
# shellcheck disable=SC2016  # Hydra fills in these names
{
    varied='dim${model.embedding_dim}_length${data.length}_drop${data.drop_oldest}_seed${seed}'
    whole=("dataset=$DATASET" "${of_whole[@]}" 'run_folder=${log_dir}/runs/${hydra:runtime.choices.model}/'"$varied")
    part='min${dataset.min_item_count}_fold${dataset.fold}_seed${seed}'
    fold=(dataset=subset "dataset@dataset.source=$DATASET" "${of_source[@]}"
        'run_folder=${log_dir}/folds/${hydra:runtime.choices.model}/'"$part")
}

time_folds() {
    train "$plain_and_user" "${fold[@]}" dataset.folds=10 "dataset.fold=$folds" dataset.min_item_count=20,2
}
shrinking_history() {
    train "$plain_and_user" "${whole[@]}" "data.drop_oldest=$dropped"
}
embedding_size() {
    train "$plain_and_user" "${whole[@]}" "model.embedding_dim=$sizes"
}
sequence_length() {
    local length
    for length in "${lengths[@]}"; do # each item twice per epoch, and equally many items per step
        train "$every" "${whole[@]}" "data.length=$length" "data.stride=$((length / 2))" \
            "data.batch_size=$((1280 / length))"
    done
}
changed=(shuffled last_in_place last_5 last_2 last_1) # histories
order() {
    local run histories part number=0 parts=()
    train "$every" "${whole[@]}" data.length=20 data.stride=10
    for run in "$logs"/runs/*/dim64_length20_drop0.0_seed*/result.json; do
        run=${run%/result.json}
        for histories in "${changed[@]}"; do
            [[ -f $run/order/$histories/evaluation.json ]] && continue
            part=$((number++ % jobs))
            parts[part]+=${parts[part]:+,}$run
            break
        done
    done
    for part in "${parts[@]}"; do
        # shellcheck disable=SC2016
        start matinee evaluate -m "run=$part" 'output=${run}/order/${histories}' \
            "histories=$(commas "${changed[@]}")" "${device[@]}"
    done
    finish
}

experiments=(time_folds shrinking_history embedding_size sequence_length order)
if [[ $only == all ]]; then
    for experiment in "${experiments[@]}"; do "$experiment"; done
else
    "${experiments[only - 1]}"
fi
echo
python docs/long_short_term/experiments.py "$logs" "$only"
echo
echo "The runs are in $logs"
