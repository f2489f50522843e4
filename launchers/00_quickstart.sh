#!/usr/bin/env bash
# Trains baselines and models on MovieLens 100K and prints their metrics beside published ones.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: launchers/00_quickstart.sh [--fast] [override...]

Downloads MovieLens 100K once. Trains every rating model on the chronological split, the biased
factorization on the random split and a GRU on held-out users, and prints their metrics beside
published ones, with the training time. --fast trains three models for one epoch.
Overrides, such as seed=1 or trainer.max_epochs=5, apply to every run.
ACCELERATOR=auto|cpu|gpu|npu (auto) and DEVICES=n (1) choose where.
EOF
}
# shellcheck source=launchers/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

logs="lightning_logs/quickstart/$(date +%Y-%m-%d_%H-%M-%S)_$$"
# the slowest model is second, so that the time left is not told too short
experiments=chronological/global_mean,user_based/gru,chronological/item_mean,chronological/bias
experiments+=,chronological/mf,chronological/mf_bias,chronological/ncf
experiments+=,random/bias,random/mf_bias
experiments+=,user_based/popularity
if $fast; then
    experiments=chronological/bias,chronological/mf_bias,user_based/popularity
    set -- trainer.max_epochs=1 "$@"
fi

train_all "$logs" "experiment=$experiments" "$@"
echo
matinee report "$logs"
echo
echo "The runs are in $logs, one folder for each model and seed."
echo "See their curves, figures and embeddings in TensorBoard: make tensorboard"
echo "Use the command line from here on: source .venv/bin/activate"
echo "See these tables as a page with figures: matinee report $logs --html report.html"
echo "Train a model of your choice and ask it for recommendations: docs/guide/start.md"
