#!/usr/bin/env bash
# Checks that every model can overfit one small batch; a model that cannot is broken.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: launchers/01_overfit_batch.sh [--fast] [model...] [override...]

Trains every model, or the named ones, on one small batch that is also the validation data, and
prints pass or fail for each; see "matinee overfit --help". Models with a closed-form solution are
left out. --fast takes mf_bias and gru, unless models are named.
Overrides, such as seed=1 or loss=bpr sampler=uniform steps=3000, apply to every run.
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
