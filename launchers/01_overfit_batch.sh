#!/usr/bin/env bash
# Lets every model learn one small batch by heart: whichever cannot is broken.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: launchers/01_overfit_batch.sh [--fast] [model...] [override...]

Trains every model that learns, or those named, on one small batch, which is also the validation
data, and says pass or fail for each; "matinee overfit --help" tells how. Models solved in closed form
have nothing to overfit and are left out. --fast takes mf_bias and gru, unless models are named.
Overrides are passed on, such as seed=1 or loss=bpr sampler=uniform steps=3000.
ACCELERATOR=auto|cpu|gpu|npu (auto) and DEVICES=n (1) choose where.
The exit status is 1 if a model fails.
EOF
}
# shellcheck source=launchers/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

sort_arguments "$@"
if ! ((${#models[@]})); then
    if $fast; then models=(mf_bias gru); else mapfile -t models < <(trained_models); fi
fi
for_models overfit
