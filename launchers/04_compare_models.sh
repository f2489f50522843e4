#!/usr/bin/env bash
# Trains every experiment with several seeds and prints means and deviations, one table per protocol.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: [SEEDS=0,1,2] [LOGS=folder] launchers/04_compare_models.sh [--fast] [override...]

Runs every experiment on the chronological, random and user-based splits, the live ones and those on the counting data
with each seed. Prints the tables and writes report.md, report.csv and report.html to LOGS
(lightning_logs/comparison). Earlier runs in LOGS are included. --fast runs two experiments for one
epoch, with two seeds.
Overrides, such as trainer.max_epochs=5, apply to every run.
ACCELERATOR=auto|cpu|gpu|npu (auto) and DEVICES=n (1) choose where.
EOF
}
# shellcheck source=launchers/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

logs=${LOGS:-lightning_logs/comparison}
experiments=$(cd configs/experiment && printf '%s\n' {chronological,live,random,user_based,counting}/*.yaml | sed 's|\.yaml$||' | paste -sd, -)
if $fast; then
    experiments=chronological/mf_bias,counting/pooling
    SEEDS=${SEEDS:-0,1}
    set -- trainer.max_epochs=1 "$@"
fi

train_all "$logs" "experiment=$experiments" "seed=${SEEDS:-0,1,2}" "$@"
echo
matinee report "$logs" --save "$logs" --html "$logs/report.html"
echo
echo "The runs are in $logs"
