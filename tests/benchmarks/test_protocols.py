"""The benchmark of protocols: its rules by hand, and its results in the docs."""

import csv
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from matinee.config.composing import compose
from matinee.data.interactions import Interactions
from matinee.experiment.building import build

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def protocols() -> Any:
    specification = importlib.util.spec_from_file_location(
        "protocols", ROOT / "benchmarks/protocols.py"
    )
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["protocols"] = module
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def scored(protocols: Any) -> Any:
    """Two targets among items 1..5: the first is tied with two candidates and with one seen item."""
    scores = torch.tensor([[9.0, 3, 2, 2, 2, 2], [9.0, 1, 5, 4, 3, 2]])
    is_candidate = torch.tensor([[0, 1, 1, 1, 1, 0], [0, 1, 1, 1, 1, 1]], dtype=torch.bool)
    return protocols.Scored(scores, torch.tensor([2, 1]), is_candidate)


def test_ties_are_broken_for_and_against_the_target(protocols: Any, scored: Any) -> None:
    assert protocols.ranked(scored).tolist() == [3, 5]
    assert protocols.target_first(scored).tolist() == [2, 5]
    assert protocols.target_last(scored).tolist() == [4, 5]


def test_drawn_candidates_are_candidates_and_never_the_target(
    protocols: Any, scored: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocols, "SAMPLED", 2)
    weights = torch.tensor([1.0, 1, 1, 1, 0, 1])
    for seed in range(20):
        drawn = protocols.sampled(scored, weights, torch.Generator().manual_seed(seed))
        assert drawn.is_candidate[0].nonzero().ravel().tolist() == [1, 2, 3]
        second = drawn.is_candidate[1].nonzero().ravel().tolist()
        assert second[0] == 1 and len(second) == 3 and 4 not in second


def test_only_rows_of_equal_times_change_places(protocols: Any) -> None:
    columns = {"user": [1, 1, 1, 1], "item": [4, 3, 2, 1], "timestamp": [5, 7, 7, 9]}
    log = Interactions.from_table(columns)
    assert protocols.reordered(log, log.item_ids).item_ids.tolist() == [4, 2, 3, 1]
    assert protocols.reordered(log, -log.item_ids).item_ids.tolist() == [4, 3, 2, 1]


def test_the_basis_is_what_matinee_measures(protocols: Any, table_overrides: list[str]) -> None:
    experiment = build(compose(*table_overrides, "experiment=leave_last_out/popularity"))
    experiment.task.network.fit(*experiment.task.training_columns(experiment.datamodule))
    ours = torch.cat([protocols.ranked(batch) for batch in protocols.scored(experiment)])
    theirs = [
        experiment.task.rank(batch, best=0)["ranks"]
        for batch in experiment.datamodule.evaluation_dataloader("test")
    ]
    assert np.array_equal(ours.numpy(), torch.cat(theirs).numpy()) and len(ours) > 20


def test_the_table_of_the_docs_is_what_was_measured() -> None:
    measured: dict[tuple[str, str], dict[str, str]] = {}
    with (ROOT / "benchmarks/protocols.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            values = measured.setdefault((row["variation"], row["choice"]), {})
            values[row["model"]] = row["ndcg@10"]
    page = (ROOT / "docs/numbers.md").read_text()
    (head,) = re.findall(r"^\| variation .*\n\|.*\n((?:\|.*\n)+)", page, re.MULTILINE)
    stated = {}
    for line in head.splitlines():
        variation, choice, markov, gru = (cell.strip() for cell in line.strip("|").split("|"))
        values = {"markov": markov, "gru": gru}
        stated[variation, choice] = {model: value for model, value in values.items() if value}
    assert stated == measured and len(stated) > 10
