"""Warm start against a full retrain: MovieLens 100K in ten time folds, which arrive one after another.

    python benchmarks/warm_start.py [--logs lightning_logs/warm_start] [--models gru mf_bias]

Each fold trains on all rows before it and tests on its own rows, a twentieth of the data. `full` begins
with random weights in every fold. `warm` begins in fold 2 with the weights of fold 1, then always with
those of the warm run of the fold before, and has a fifth of the epochs. Both choose their epoch on the
newest twentieth of the rows before the fold. Finished runs are skipped.

Prints, and writes to warm_start.csv, a row for each fold: steps, test metric of both, and their ratio, such
that more is better for warm. Intervals are Student's over the nine folds.
"""

import argparse
import csv
import json
import statistics
import subprocess
from pathlib import Path
from typing import Any

FOLDS = 10
COMMON = [
    "split=global_timeline",
    "split.quantile=0.5",
    "split.validation_share=0.05",
    f"split.folds={FOLDS}",
]
OVERRIDES = {
    "gru": ["experiment=user_based/gru"],
    "mf_bias": ["experiment=chronological/mf_bias"],
}
EPOCHS = {"gru": {"full": 10, "warm": 2}, "mf_bias": {"full": 20, "warm": 4}}
WARM = {"gru": ["optimizer.lr=0.001"], "mf_bias": []}
STUDENT = 2.306  # 97.5 % quantile for nine folds


def result_of(folder: Path, overrides: list[str]) -> dict[str, Any]:
    """Train a run, unless it has finished, and return its result."""
    subprocess.run(
        ["matinee", "train", f"run_folder={folder}", "resume=true", "logger=none", *overrides],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


def rows_of(model: str, logs: Path) -> list[dict[str, Any]]:
    """Train a model both ways on all folds."""
    rows = []
    for fold in range(1, FOLDS + 1):
        shared = [*OVERRIDES[model], *COMMON, f"split.fold={fold}"]
        results = {}
        for way in ("full", "warm"):
            own = [f"trainer.max_epochs={EPOCHS[model][way]}"]
            if way == "warm":
                if fold == 1:
                    continue
                parent = logs / model / (f"warm{fold - 1}" if fold > 2 else "full1")
                own += [f"from={parent}", *WARM[model]]
            results[way] = result_of(logs / model / f"{way}{fold}", shared + own)
        if fold == 1:
            continue
        full, warm = results["full"], results["warm"]
        metric = full["headline"]["metric"]
        values = [result["metrics"][f"test/{metric}"] for result in (full, warm)]
        ratio = (
            values[1] / values[0] if full["headline"]["higher_is_better"] else values[0] / values[1]
        )
        rows.append(
            {
                "model": model, "fold": fold, "metric": metric,
                "full": f"{values[0]:.4f}", "warm": f"{values[1]:.4f}", "ratio": f"{ratio:.4f}",
                "full_steps": full["fit"]["steps"], "warm_steps": warm["fit"]["steps"],
            }
        )  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--logs", type=Path, default=Path("lightning_logs/warm_start"))
    parser.add_argument("--models", nargs="+", default=list(OVERRIDES), choices=list(OVERRIDES))
    arguments = parser.parse_args()
    rows = []
    for model in arguments.models:
        of_model = rows_of(model, arguments.logs.resolve())
        ratios = [float(row["ratio"]) for row in of_model]
        half = STUDENT * statistics.stdev(ratios) / len(ratios) ** 0.5
        print(f"{model}: warm has {statistics.mean(ratios):.4f} +- {half:.4f} of full")
        rows += of_model
    with (Path(__file__).parent / "warm_start.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
