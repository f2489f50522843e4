#!/usr/bin/env bash
# Trains a model with several embedding sizes and compares metrics, size and time.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: [SIZES=4,8,16,32,64,128] [LOGS=folder] launchers/03_find_embedding_size.sh [--fast] [model] [override...]

Trains a model (mf_bias), or an experiment such as random/mf, once with each size. Prints validation
and test metrics, parameters and seconds by size, and writes them to by_embedding_dim.csv, .md and
.png in LOGS (lightning_logs/embedding_dim/EXPERIMENT/DATE_TIME). --fast: two sizes, one epoch.
Overrides apply to every run, such as seed=0,1,2 for means and standard deviations.
ACCELERATOR=auto|cpu|gpu|npu (auto) and DEVICES=n (1) choose where.
EOF
}
# shellcheck source=launchers/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

sort_arguments "$@"
model=${models[0]:-mf_bias}
experiment=$(experiment_of "$model")
if [[ -z $experiment || ${#models[@]} -gt 1 ]]; then
    echo "name one model with an experiment in configs/experiment, not: ${models[*]}" >&2
    exit 1
fi
if $fast; then
    SIZES=${SIZES:-2,4}
    overrides=(trainer.max_epochs=1 "${overrides[@]}")
fi

logs=${LOGS:-lightning_logs/embedding_dim/$experiment/$(date +%Y-%m-%d_%H-%M-%S)_$$}
if compgen -G "$logs/*" >/dev/null; then
    echo "matinee: LOGS=$logs is not empty; name a new folder" >&2
    exit 1
fi
train_all "$logs" "experiment=$experiment" "model.embedding_dim=${SIZES:-4,8,16,32,64,128}" \
    "${overrides[@]}"
echo
matinee report --by model.embedding_dim "$logs"
echo
echo "The runs, the table and the figure are in $logs"
