from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

from matinee.configuration import config_dir
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


def test_a_seed_counts_once(run, tmp_path: Path) -> None:
    for folder in ("a/1", "a/2"):
        run("model=bias", "name=bias", folder=folder)
    (row,) = [line for line in report([tmp_path, tmp_path]).splitlines() if "bias" in line]
    assert "±" not in row


def test_what_was_changed_is_told(run, tmp_path: Path) -> None:
    run("model=mf", "name=mf", folder="a")
    run("model=mf", "name=mf", "loss=huber", folder="b")
    assert "| mf loss=huber" in report([tmp_path])


def test_published_figures_stand_beside_the_same_data_and_split_only() -> None:
    from matinee.report import _published

    every = OmegaConf.load(config_dir() / "published.yaml")["ml-100k"]
    protocol = {
        "dataset": {"sha256": every.sha256},
        "split": {"name": "chronological", "options": {"quantile": 0.8}},
    }
    assert _published("ml-100k", protocol)["mf"] == {"val/rmse": 1.8}
    protocol["split"]["options"] = {"quantile": 0.5}
    assert _published("ml-100k", protocol) == {}
    protocol["split"]["options"] = {"quantile": 0.8}
    protocol["dataset"]["sha256"] = "other"
    assert _published("ml-100k", protocol) == {}


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
