#!/usr/bin/env bash
# Takes a model to production: train or take a run, refit, export, answer in bulk, serve and ask once.
set -euo pipefail

usage() {
    cat <<'EOT'
usage: [RUN=run_folder] [EXPERIMENT=user_based/gru] [LOGS=folder]
       launchers/08_to_production.sh [--fast] [override...]

Takes one model through every step of docs/how-to/to-production.md:
  1  train EXPERIMENT with the overrides, unless RUN names a finished run
  2  refit it on all of its data
  3  export the refitted run; both programs are compared with it
  4  write the best items of all users to a file
  5  serve the artefact at a free port, ask it once, and stop it
Everything is written to LOGS (lightning_logs/to_production/TIME).
Needs the extras: pip install -e '.[export,serve]'.
--fast: a Markov chain on synthetic data, and 50 comparisons.
ACCELERATOR=auto|cpu|gpu|npu (auto) and DEVICES=n (1) choose where 1 and 2 run.
EOT
}
# shellcheck source=launchers/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

logs=${LOGS:-lightning_logs/to_production/$(date +%Y-%m-%d_%H-%M-%S)_$$}
mkdir -p "$logs"
chosen=("experiment=${EXPERIMENT:-user_based/gru}")
checks=1000
if $fast; then
    chosen=(experiment=counting/popularity model=markov dataset=markov dataset.num_users=50)
    checks=50
fi

parent=${RUN:-$logs/chosen}
if [[ -z ${RUN:-} ]]; then
    run matinee train "${chosen[@]}" "${device[@]}" "$@" "run_folder=$parent"
fi
run matinee refit "run=$parent" "run_folder=$logs/refit"
run matinee export "run=$logs/refit" "output=$logs/artefact" "checks=$checks"
run matinee recommend "run=$logs/refit" users=all "output=$logs/top.jsonl"

port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
echo "matinee serve artefact=$logs/artefact port=$port"
matinee serve "artefact=$logs/artefact" "port=$port" >"$logs/serve.log" 2>&1 &
server=$!
trap 'kill $server 2>/dev/null || true' EXIT
python - "$port" "$server" <<'EOP'
import json, os, sys, time, urllib.request

port, server = sys.argv[1:]
question = urllib.request.Request(
    f"http://127.0.0.1:{port}/recommend", b'{"top_k": 3}', {"content-type": "application/json"}
)
while True:
    os.kill(int(server), 0)  # fails if the service has ended
    try:
        with urllib.request.urlopen(question) as answer:
            items = json.load(answer)["items"]
        break
    except OSError:
        time.sleep(0.2)
assert len(items) == 3, items
print("a newcomer gets", ", ".join(item["title"] for item in items))
EOP
kill "$server"
wait "$server" || true
echo
echo "The artefact is in $logs/artefact"
