"""Changed histories: against slow loops, in the path that measures, and from the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from matinee import cli
from matinee.batches.perturbation import Perturbation
from matinee.batches.windows import Windows
from matinee.errors import MatineeError
from matinee.experiment import building, measuring
from matinee.experiment.run_folder import read_result
from matinee.experiment.trainer import make_trainer

Run = Callable[..., Path]
ITEMS = torch.arange(10, 60)
WINDOWS = Windows(  # histories of 7, 0, 1, 2, 3 and 19 items
    torch.tensor([0, 8, 9, 11, 14, 18]),
    torch.tensor([8, 1, 2, 3, 4, 20], dtype=torch.int32),
    torch.tensor([1, 1, 2, 2, 3, 4], dtype=torch.int32),
)
SEQUENCE = [
    "data=sequence", "task=next_item", "loss=softmax", "model=gru",
    "split=leave_last_out", "data.eval_length=20", "data.eval_stride=1",
]  # fmt: skip


def pairs(name: str, windows: Windows = WINDOWS, first: int = 0) -> list[tuple[list[int], int]]:
    """Each window as (history, target)."""
    batch = Perturbation(name, seed=3)(ITEMS, windows, first, longest=20)
    read = []
    for history, targets, length in zip(
        batch.histories.tolist(), batch.target_ids.tolist(), batch.lengths.tolist(), strict=True
    ):
        assert history[0] == 0 and not any(history[length:])
        assert history[1:length] == targets[: length - 1], "what a causal network expects"
        read.append((history[1:length], targets[length - 1]))
    return read


def originals() -> list[tuple[list[int], int]]:
    windows = zip(WINDOWS.starts.tolist(), WINDOWS.lengths.tolist(), strict=True)
    whole = [ITEMS[start : start + length].tolist() for start, length in windows]
    return [(items[:-1], items[-1]) for items in whole]


@pytest.mark.parametrize("kept", [1, 2, 5, 100])
def test_only_the_last_items_are_kept(kept: int) -> None:
    assert pairs(f"last_{kept}") == [(history[-kept:], item) for history, item in originals()]


@pytest.mark.parametrize(("name", "in_place"), [("shuffled", 0), ("last_in_place", 1)])
def test_shuffled_histories_hold_the_same_items(name: str, in_place: int) -> None:
    changed = 0
    for (history, target), (before, item) in zip(pairs(name), originals(), strict=True):
        assert target == item
        assert sorted(history) == sorted(before)
        if in_place and before:
            assert history[-1] == before[-1]
        changed += history != before
    assert changed >= 2


def test_every_order_is_equally_likely() -> None:
    many = Windows(*(column[4:5].repeat(6000) for column in WINDOWS))  # three items: six orders
    orders = [tuple(history) for history, _ in pairs("shuffled", many)]
    counts = np.unique(np.array(orders), axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000)


def test_the_order_does_not_depend_on_the_batch() -> None:
    whole = pairs("shuffled")
    halves = pairs("shuffled", WINDOWS.take(slice(0, 2))) + pairs(
        "shuffled", WINDOWS.take(slice(2, 6)), first=2
    )
    assert whole == halves


@pytest.mark.parametrize("name", ["last_0", "last_", "last_-1", "shufled", "whole", ""])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(MatineeError, match="choose shuffled, last_in_place or last_N"):
        Perturbation(name, seed=0)


def test_only_what_is_read_changes(run: Run) -> None:
    folder = run(*SEQUENCE, "data.segments=[history]", "data.filter_seen=true")
    loaded = building.load_run(folder)
    before = next(iter(loaded.datamodule.evaluation_dataloader("test")))
    loaded.datamodule.perturb("last_2")
    after = next(iter(loaded.datamodule.evaluation_dataloader("test")))
    assert torch.equal(after.target_ids.sum(1), before.target_ids.sum(1))
    assert torch.equal(after.user_ids, before.user_ids)
    assert all(map(torch.equal, after[-3:], before[-3:])), "what is excluded"
    for row in range(len(before.lengths)):
        history = before.histories[row, 1 : before.lengths[row]]
        assert torch.equal(after.histories[row, 1 : after.lengths[row]], history[-2:])
        assert after.histories[row, after.lengths[row] :].sum() == 0


def test_long_enough_histories_leave_the_figures(run: Run) -> None:
    folder = run(*SEQUENCE)
    loaded = building.load_run(folder, histories="last_19")
    metrics = measuring.evaluate(loaded, make_trainer(loaded.config, None), ["val", "test"]).metrics
    recorded = read_result(folder)["metrics"]
    assert metrics == {name: recorded[name] for name in metrics}


def test_pooling_does_not_notice_the_order_and_a_gru_does(run: Run) -> None:
    for model, notices in (("pooling", False), ("gru", True)):
        folder = run(*SEQUENCE, f"model={model}", "optimizer.lr=0.1", folder=model)
        recorded = read_result(folder)["metrics"]["test/mrr"]
        loaded = building.load_run(folder, histories="shuffled")
        metrics = measuring.evaluate(loaded, make_trainer(loaded.config, None), ["test"]).metrics
        assert (abs(metrics["test/mrr"] - recorded) > 1e-6) is notices


def test_an_evaluation_can_be_kept(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = run(*SEQUENCE, "data.segments=[popularity]"), tmp_path / "kept" / "order"
    cli.main(["evaluate", f"run={folder}", "histories=shuffled", f"output={output}"])
    content = json.loads((output / "evaluation.json").read_text())
    assert content["histories"] == "shuffled"
    assert f"{content['metrics']['test/mrr']:.6f}" in capsys.readouterr().out
    with np.load(output / "per_user.npz") as kept, np.load(folder / "per_user.npz") as first:
        assert kept["user"].tolist() == first["user"].tolist()
        assert content["metrics"]["test/mrr"] == pytest.approx((1 / kept["rank"]).mean())
        low = kept["popularity=low"]
        assert content["metrics"]["test/mrr/popularity=low"] == pytest.approx(
            (1 / kept["rank"][low]).mean()
        )


def test_rating_models_have_no_histories(run: Run) -> None:
    with pytest.raises(MatineeError, match="histories=shuffled changes what a model reads"):
        building.load_run(run(), histories="shuffled")
