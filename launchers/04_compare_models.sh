#!/usr/bin/env bash
# Trains every experiment with several seeds and prints one table a protocol, mean and deviation.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: [SEEDS=0,1,2] [LOGS=folder] launchers/04_compare_models.sh [override...]

Runs every experiment below configs/experiment with each seed and prints the tables. Finished runs
in LOGS (lightning_logs/comparison) count too. Overrides are passed on to each training, such as
trainer.max_epochs=5. ACCELERATOR=auto|cpu|gpu chooses the device (auto).
EOF
}
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    usage
    exit 0
fi

cd "$(dirname "${BASH_SOURCE[0]}")/.."
[[ -d .venv ]] && PATH="$PWD/.venv/bin:$PATH"

logs=${LOGS:-lightning_logs/comparison}
experiments=$(cd configs/experiment && find . -name '*.yaml' | sed 's|^\./||; s|\.yaml$||' | sort | paste -sd, -)

echo "matinee train -m experiment=$experiments seed=${SEEDS:-0,1,2} log_dir=$logs $*"
mkdir -p "$logs"
matinee train -m "experiment=$experiments" "seed=${SEEDS:-0,1,2}" "log_dir=$logs" \
    "trainer.accelerator=${ACCELERATOR:-auto}" "$@" >"$logs/train.log"
echo
matinee report "$logs"
