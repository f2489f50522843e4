#!/usr/bin/env bash
# Suggests a learning rate for every model, by a range test.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: launchers/02_run_lr_finder.sh [--fast] [model...] [override...]

Trains every model, or the named ones, with a learning rate that increases at each step, and
suggests the rate at which the loss falls fastest. Curves (PNG, CSV) and suggestions (JSON) are in
the folders printed last. --fast takes mf_bias and pooling, unless models are named.
Overrides, such as seed=1, min_lr=1e-7 or optimizer=sgd, apply to every run. train=true also trains
each model with its suggestion.
ACCELERATOR=auto|cpu|gpu|npu (auto) and DEVICES=n (1) choose where.
The exit status is 1 if there is no suggestion for a model.
EOF
}
# shellcheck source=launchers/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

sort_arguments "$@"
if ! ((${#models[@]})); then
    if $fast; then models=(mf_bias pooling); else mapfile -t models < <(trained_models); fi
fi
for_models find-lr
