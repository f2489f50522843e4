#!/usr/bin/env bash
# Searches the hyperparameters of one sequence model on MovieLens and prints a table of the trials.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: launchers/05_movielens_sequence.sh [--fast] MODEL [TRIALS] [--sampler random|tpe] [--hash ID] [override...]

Draws, trains and measures TRIALS (100) combinations for MODEL (attention, cnn, dnc, gru, lstm or
pooling). Prints hyperparameters, MRR and hash of each, the best on validation first. The same command
resumes a search that was stopped or killed. --sampler tpe lets Optuna guide the search. --hash runs a
recorded or published combination again and compares; published metrics are shown on MovieLens 1M
only. --fast: three tiny runs on synthetic data.
Overrides are those of matinee search and of every run, such as seed=1 or dataset=ml-100k. Without a
dataset it takes MovieLens 1M if available, else MovieLens 100K, and prints which.
ACCELERATOR=auto|cpu|gpu|npu chooses the device (auto). DEVICES=n shares the work among n processes.
EOF
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
[[ -d .venv ]] && PATH="$PWD/.venv/bin:$PATH"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # repeatable to the last bit; use DEVICES for parallel work

model='' trials='' fast='' options=("accelerator=${ACCELERATOR:-auto}")
while (($#)); do
    case $1 in
        -h | --help) usage && exit 0 ;;
        --fast) fast=yes ;;
        --sampler) options+=("method=${2:?--sampler takes random or tpe}") && shift ;;
        --hash) options+=("hash=${2:?--hash takes the ID of a combination}") && shift ;;
        *=*) options+=("$1") ;;
        *) if [[ -z $model && $1 != -* ]]; then model=$1; elif [[ $1 != *[!0-9]* ]]; then trials=$1; else usage >&2 && exit 2; fi ;;
    esac
    shift
done
if [[ $fast ]]; then
    model=${model:-pooling} trials=${trials:-3}
    options=("log_dir=lightning_logs/search/fast/$(date +%Y-%m-%d_%H-%M-%S)_$$" dataset=markov dataset.num_users=200 dataset.num_items=20
        dataset.num_interactions=6000 "space.choices.n_iter=[1]" "space.choices.embedding_dim=[8,16]" "${options[@]}")
fi
if [[ -z $model ]]; then
    usage >&2
    exit 2
fi

command=(matinee search "space=$model" "trials=${trials:-100}" "${options[@]}")
echo "${command[*]}"
others=''
trap 'kill $others 2>/dev/null || true' EXIT
for ((device = 1; device < ${DEVICES:-1}; device++)); do # the first process, below, prints the table
    own=("devices=1")
    [[ ${ACCELERATOR:-auto} == [gn]pu ]] && own=("devices=[$device]")
    "${command[@]}" "${own[@]}" >/dev/null &
    others+=" $!"
done
"${command[@]}" &
others+=" $!"
for process in $others; do wait "$process"; done
