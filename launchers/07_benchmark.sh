#!/usr/bin/env bash
# Compares all next-item models on each user's last item and after one point in time, and the two rankings.
set -euo pipefail

usage() {
    cat <<'EOT'
usage: [SEEDS=0,1,2] [MODELS=...] [LOGS=folder]
       launchers/07_benchmark.sh [--fast] [DATASET] [override...]

Trains every model of configs/experiment/leave_last_out (or MODELS, with commas between them) with
each seed; models without random draws are trained with the first seed alone. Then does the same for
configs/experiment/global_timeline, where nothing later than one point in time is learned from; this
is skipped if the data have no times. Prints a table for each protocol, with differences, intervals
and paired tests, seconds and memory, and Kendall's tau of both rankings of the models. Writes the
same as report.md, report.csv and report.html to LOGS (lightning_logs/benchmark/DATASET).
DATASET is ml-100k by default. Overrides apply to every run; those of data sets of your own are
  dataset=lines dataset.path=FILE
Finished run folders are skipped and stopped runs resumed, so after a kill give the same command
again. Name another LOGS for other overrides. --fast: three models, one epoch, two seeds.
ACCELERATOR=auto|cpu|gpu|npu (auto) and DEVICES=n (1) choose where.
EOT
}
# shellcheck source=launchers/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

sort_arguments "$@"
if ((${#models[@]} > 1)); then
    echo "name one data set, not: ${models[*]}" >&2
    exit 1
fi
dataset=${models[0]:-ml-100k}
((${#models[@]})) && overrides=("dataset=$dataset" "${overrides[@]}")
for override in "${overrides[@]}"; do
    [[ $override == dataset=* ]] && dataset=${override#dataset=}
done
seeds=${SEEDS:-0,1,2}
every=${MODELS:-$(cd configs/experiment/leave_last_out && printf '%s\n' *.yaml | sed 's|\.yaml$||' | paste -sd, -)}
if $fast; then
    every=${MODELS:-popularity,markov,pooling} seeds=${SEEDS:-0,1}
    LOGS=${LOGS:-lightning_logs/benchmark/fast_$(date +%Y-%m-%d_%H-%M-%S)_$$}
    overrides=(trainer.max_epochs=1 "${overrides[@]}")
fi
logs=${LOGS:-lightning_logs/benchmark/$dataset}
mkdir -p "$logs"
IFS=, read -ra models <<<"$every"
drawing=" $(trained_models | paste -sd' ' -) ials " # models that depend on the seed

# Trains all models under a protocol, in a process for each, so that peaks of memory are their own.
status=0
train_models() {
    local protocol=$1 model command code
    for model in "${models[@]}"; do
        command=(matinee train -m resume=true "experiment=$protocol/$model" "seed=${seeds%%,*}"
            "log_dir=$logs" "run_folder=\${log_dir}/$protocol/$model/seed\${seed}" "${device[@]}" "${overrides[@]}")
        [[ $drawing == *" $model "* ]] && command[5]=seed=$seeds
        printf '%q ' "${command[@]}" && echo
        "${command[@]}" >>"$logs/train.log" || {
            code=$?
            ((code > 128)) && exit "$code" # stopped by a signal
            status=1
        }
    done
}

train_models leave_last_out
agreement=()
mapfile -t of_data < <(printf '%s\n' "${overrides[@]}" | grep '^dataset')
if problem=$(matinee describe "${of_data[@]}" split=global_timeline 2>&1 >/dev/null); then
    train_models global_timeline
    ((${#models[@]} > 2)) && agreement=(--agreement)
elif [[ $problem == *"needs timestamps"* ]]; then
    echo "global_timeline is skipped: the data have no times."
else
    echo "$problem" >&2
    status=1
fi
echo
matinee report "$logs" "${agreement[@]}" --save "$logs" --html "$logs/report.html"
echo
echo "The runs are in $logs"
exit $status
