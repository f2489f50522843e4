#!/usr/bin/env bash
# Trains every experiment with several seeds and prints one table a protocol, mean and deviation.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: [SEEDS=0,1,2] [LOGS=folder] launchers/04_compare_models.sh [--fast] [override...]

Runs every experiment below configs/experiment with each seed and prints the tables. Finished runs
in LOGS (lightning_logs/comparison) count too. --fast runs two of them for one epoch, with two seeds.
Overrides are passed on to each training, such as trainer.max_epochs=5.
ACCELERATOR=auto|cpu|gpu|npu (auto) and DEVICES=n (1) choose where.
EOF
}
# shellcheck source=launchers/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

logs=${LOGS:-lightning_logs/comparison}
experiments=$(cd configs/experiment && find . -mindepth 2 -name '*.yaml' | sed 's|^\./||; s|\.yaml$||' | sort | paste -sd, -)
if $fast; then
    experiments=chronological/mf_bias,counting/pooling
    SEEDS=${SEEDS:-0,1}
    set -- trainer.max_epochs=1 "$@"
fi

train_all "$logs" "experiment=$experiments" "seed=${SEEDS:-0,1,2}" "$@"
echo
matinee report "$logs"
echo
echo "The runs are in $logs"
