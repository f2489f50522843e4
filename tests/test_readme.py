"""The tables of the README and the docs show what the committed runs measured."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from matinee.verbs.report.comparison import compare
from matinee.verbs.report.output import report
from matinee.verbs.report.runs import find_runs

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / "lightning_logs"


def rows_below(page: Path, heading: str) -> list[str]:
    """Return the rows of the first table below a heading of a page, without its head."""
    lines = page.read_text().split(heading, 1)[1].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    table = lines[start : lines.index("", start)]
    return table[2:]


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_tables_come_from_the_reference_runs() -> None:
    readme = (ROOT / "README.md").read_text().splitlines()
    reported = report([LOGS / "reference"]).splitlines()
    shown = [line for line in readme if line in reported and line.startswith("| ")]
    rows = {line for line in reported if line.startswith("| ")}
    for model in ("mf_bias", "ncf", "gru", "attention", "popularity"):
        assert any(line.startswith(f"| {model} ") for line in shown), model
    stated = [line for line in readme if "±" in line and line.startswith("|")]
    assert stated
    assert all(line in rows for line in stated)
    counting = rows_below(ROOT / "docs/next_item.md", "## Can the encoders count?")
    assert len(counting) == 7 and set(counting) <= rows


def test_the_table_of_losses_and_encoders_comes_from_the_grid() -> None:
    page = ROOT / "docs/next_item.md"
    heading = "## What matters more, the loss or the encoder?"
    losses = ["pointwise", "bpr", "adaptive_hinge", "softmax"]
    assert f"| encoder | {' | '.join(losses)} |" in page.read_text()
    (comparison,), _ = compare([LOGS / "grid"])
    measured = {}
    for group in comparison.groups:
        encoder, *overrides = group.label.split()
        (loss,) = (entry.removeprefix("loss=") for entry in overrides if "loss=" in entry)
        values = (group.mean("val/mrr"), group.mean("test/mrr"))
        measured[encoder, loss] = " / ".join(f"{value:.4f}" for value in values)
    stated = {
        (encoder, loss): cell
        for encoder, *row in map(cells, rows_below(page, heading))
        for loss, cell in zip(losses, row, strict=True)
    }
    assert stated == measured and len(stated) == 20


def test_the_best_combinations_come_from_the_searches() -> None:
    rows = map(cells, rows_below(ROOT / "docs/search.md", "The best on validation:"))
    stated = {row[0].strip("`"): row[1:] for row in rows}
    found = {}
    for path in (LOGS / "search/ml-100k").glob("*-cpu.jsonl"):
        _, *trials = map(json.loads, path.read_text().splitlines())
        assert len(trials) == 20
        done = [trial for trial in trials if not trial["failure"]]
        best = max(done, key=lambda trial: trial["validation_mrr"])
        drawn = best["hyperparameters"]
        found[path.stem.removesuffix("-cpu")] = [
            f"{best['validation_mrr']:.4f}",
            f"{best['test_mrr']:.4f}",
            f"{drawn['loss']}, {drawn['embedding_dim']} dimensions, {drawn['n_iter']} epochs, "
            f"rate {drawn['learning_rate']}",
            str(len(trials) - len(done)),
        ]
    assert stated == found and len(found) == 6


def test_the_table_of_five_folds_comes_from_its_runs() -> None:
    runs, remarks = find_runs([LOGS / "folds"])
    assert remarks == []
    measured: dict[str, dict[str, dict[str, float]]] = {}
    for run in runs:
        fold, model = str(run.config["name"]).split("/")
        measured.setdefault(f"`{model}`", {})[fold] = run.result["metrics"]
    folds = ["u1", "u2", "u3", "u4", "u5"]
    expected = {}
    for model, metrics in measured.items():
        assert sorted(metrics) == folds, model
        validation, test = (
            [metrics[fold][key] for fold in folds] for key in ("val/rmse", "test/rmse")
        )
        expected[model] = [
            *(f"{np.mean(x):.4f} ± {np.std(x, ddof=1):.4f}" for x in (validation, test)),
            *(f"{x:.4f}" for x in test),
        ]
    rows = map(cells, rows_below(ROOT / "docs/benchmark.md", "## Ratings on five folds"))
    assert {row[0]: row[1:] for row in rows} == expected and "`bayesian_mf`" in expected


def test_the_search_for_mf_bias_found_what_the_docs_say() -> None:
    page, folder = ROOT / "docs/search.md", LOGS / "search/ml-100k"
    path = folder / "chronological-mf_bias-70433403-cpu.tpe.jsonl"
    _, *trials = map(json.loads, path.read_text().splitlines())
    done = sorted(
        (trial for trial in trials if not trial["failure"]), key=lambda one: one["validation_rmse"]
    )
    assert len(trials) == 61 and len(done) == 11
    rows = [*map(cells, rows_below(page, "Of the ten others"))]
    found = [
        [str(one["trial"] or "the default"), f"{one['validation_rmse']:.4f}"]
        + [f"{value:.4g}" for value in one["hyperparameters"].values()]
        for one in done[:5]
    ]
    assert [[*row[:2], *sorted(row[2:])] for row in rows] == [
        [*row[:2], *sorted(row[2:])] for row in found
    ]
    (comparison,), _ = compare([folder])
    seeds = [*map(cells, rows_below(page, "with three seeds:"))]
    for row, group in zip(seeds, reversed(comparison.groups), strict=True):
        values = group.values("val/rmse")
        assert row[1] == ", ".join(f"{value:.4f}" for value in values)
        assert row[2] == f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"


def test_the_table_of_amazon_beauty_comes_from_its_runs() -> None:
    metrics = ["val/ndcg@10", "test/ndcg@10", "test/recall@10", "test/mrr"]
    (comparison,), _ = compare([LOGS / "benchmark/beauty"])
    measured = {}
    for group in comparison.groups:
        values = [group.values(metric) for metric in metrics]
        measured[f"`{group.label}`"] = [
            *(
                f"{np.mean(x):.4f}" + (f" ± {np.std(x, ddof=1):.4f}" if len(x) > 1 else "")
                for x in values
            ),
            str(len(values[0])),
        ]
    stated = [cells(row) for row in rows_below(ROOT / "docs/benchmark.md", "## Amazon Beauty")]
    assert {row[0]: row[1:] for row in stated} == measured and len(stated) == 10


def test_the_two_protocols_rank_13_models_as_the_docs_say() -> None:
    comparisons, _ = compare([LOGS / "benchmark/ml-100k"])
    measured = {
        comparison.protocol["split"]["name"]: {
            f"`{group.label}`": f"{group.mean('test/mrr'):.4f}" for group in comparison.groups
        }
        for comparison in comparisons
    }
    stated = [cells(row) for row in rows_below(ROOT / "docs/benchmark.md", "On MovieLens 100K, 13")]
    for column, split in enumerate(("leave_last_out", "global_timeline"), start=1):
        assert {row[0]: row[column] for row in stated} == measured[split] and len(stated) == 13


def test_the_results_of_live_models_come_from_their_runs() -> None:
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for run in pd.read_parquet(LOGS / "live/runs.parquet").to_dict("records"):
        config, metrics = yaml.safe_load(run["config.yaml"]), json.loads(run["result.json"])
        key = Path(config["name"]).name, config["data"]["order"]
        values = metrics["metrics"]
        found.setdefault(key, []).append((values["val/rmse"], values["test/rmse"]))
    measured = {
        (f"`{model}`", f"`{order}`"): [
            *(
                f"{np.mean(x):.4f}" + (f" ± {np.std(x, ddof=1):.4f}" if len(x) > 1 else "")
                for x in zip(*values, strict=True)
            ),
            str(len(values)),
        ]
        for (model, order), values in found.items()
        if model != "joint"
    }
    stated = [cells(row) for row in rows_below(ROOT / "docs/live.md", "## Results")]
    assert {tuple(row[:2]): row[2:] for row in stated} == measured
    readme = (ROOT / "README.md").read_text()
    assert f"`gru` has a test RMSE of {measured['`gru`', '`time`'][1]} (3 seeds)" in " ".join(
        readme.split()
    )


def test_warm_starts_keep_the_share_that_the_docs_say() -> None:
    with (ROOT / "benchmarks/warm_start.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(4 * int(row["warm_steps"]) <= int(row["full_steps"]) for row in rows)
    page = ROOT / "docs/how-to/new-data.md"
    for model, *shares, mean in map(cells, rows_below(page, "### How good a warm start is")):
        ratios = [float(row["ratio"]) for row in rows if f"`{row['model']}`" == model]
        assert shares == [f"{ratio:.3f}" for ratio in ratios] and len(shares) == 9
        half = 2.306 * np.std(ratios, ddof=1) / 3
        assert mean == f"{np.mean(ratios):.3f} ± {half:.3f}"
