from pathlib import Path

import pandas as pd
import pytest

from matinee.errors import MatineeError
from matinee.report import as_markdown, report
from matinee.run_folder import read_result


def test_seeds_are_aggregated_and_models_stand_apart(run, tmp_path: Path) -> None:
    results = [
        read_result(run(f"seed={seed}", "model=mf", "name=mf", folder=f"mf/{seed}"))["metrics"][
            "test/rmse"
        ]
        for seed in (0, 1)
    ]
    run("model=bias", "name=bias", folder="bias/0")
    text = report([tmp_path])
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    mean = sum(results) / 2
    deviation = abs(results[0] - results[1]) / 2**0.5
    assert f"{mean:.4f} ± {deviation:.4f}" in rows["mf"]
    assert "±" not in rows["bias"]


def test_other_protocols_get_tables_of_their_own(run, tmp_path: Path) -> None:
    run("split=random", folder="a/0")
    run("split=chronological", folder="b/0")
    text = report([tmp_path])
    assert "random split" in text and "chronological split" in text
    assert text.count("| model") == 2


def test_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(MatineeError, match="no finished run"):
        report([tmp_path])


def test_markdown_survives_bars_and_aligns() -> None:
    table = as_markdown(pd.DataFrame({"title": ["a|b", "c"], "rmse": ["1.25", "10.5"]}))
    lines = table.splitlines()
    assert lines[2] == "| a\\|b  |  1.25 |" or "a\\|b" in lines[2]
    assert len({len(line) for line in lines}) == 1
