"""How much does the protocol change the result of one and the same model?

Trains `markov` and `gru` on MovieLens 100K by the experiments `leave_last_out/MODEL`, with seed 0 and `gru`
for 8 epochs only. Measures NDCG@10 and Recall@10 on test under variations in which published results
differ, one at a time: seen items, the order of rows of equal times, ties of scores, sampled candidates, the
epoch that counts, the loss, the split. Sampled candidates, optimistic ties and epochs chosen on test exist
in this script alone. Prints the rows and writes them to `benchmarks/protocols.csv`, from which the table of
docs/numbers.md is made.

    python benchmarks/protocols.py
"""

import argparse
import csv
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from matinee.batches.windows import spans
from matinee.config.composing import compose
from matinee.data.interactions import Interactions
from matinee.data.sources.movielens import load
from matinee.experiment.building import Experiment, build, load_weights
from matinee.experiment.trainer import fit, make_trainer
from matinee.files import checkpoint_path
from matinee.metrics import ranking_metrics

TABLE = Path(__file__).with_suffix(".csv")
COLUMNS = ("variation", "choice", "model", "ndcg@10", "recall@10", "windows")
SAMPLED = 99  # candidates beside the target
DRAWS = 10  # of sampled candidates; the table has their mean


class Scored(NamedTuple):
    """What a model says of some targets, and which items are candidates."""

    scores: Tensor  # (n, num_items + 1)
    target_ids: Tensor  # (n,)
    is_candidate: Tensor  # bool, like the scores; the target always is one


class Trained(NamedTuple):
    """A model with the weights of its best epoch on validation."""

    experiment: Experiment
    test_of_epochs: list[Mapping[str, float]]


def reordered(interactions: Interactions, keys: npt.NDArray[Any]) -> Interactions:
    """Order rows of equal times by keys, (rows,); the order of other rows stays as it is."""
    times = interactions.timestamps
    assert times is not None
    rows = np.lexsort((keys, times))
    columns = {"user": interactions.user_ids, "item": interactions.item_ids, "timestamp": times}
    frame = {name: values[rows] for name, values in columns.items()}
    return Interactions.from_frame(
        frame, timestamp="timestamp", time_unit=interactions.time_unit, id_type="integer"
    )


def scored(experiment: Experiment) -> Iterator[Scored]:
    """Score the test targets of a model, batch by batch."""
    task = experiment.task
    with torch.no_grad():
        for batch in experiment.datamodule.evaluation_dataloader("test"):
            scores = task(batch.histories, batch.lengths, batch.user_ids, batch.times)
            target_ids = batch.target_ids.sum(1)
            is_candidate = torch.ones_like(scores, dtype=torch.bool)
            is_candidate[:, 0] = False
            rows, places = spans(batch.seen_from, batch.seen_to - batch.seen_from)
            is_candidate[rows, batch.seen_items[places]] = False
            is_candidate[torch.arange(len(scores)), target_ids] = True
            yield Scored(scores, target_ids, is_candidate)


def ranked(batch: Scored, tied_ahead: float = 0.5) -> Tensor:
    """Rank the targets; of the candidates with the same score, this share comes before the target."""
    target_scores = batch.scores.gather(1, batch.target_ids.unsqueeze(1))
    higher = (batch.scores > target_scores) & batch.is_candidate
    equal = (batch.scores == target_scores) & batch.is_candidate
    return 1 + higher.sum(1) + tied_ahead * (equal.sum(1) - 1)


def target_first(batch: Scored) -> Tensor:
    return ranked(batch, tied_ahead=0)


def target_last(batch: Scored) -> Tensor:
    return ranked(batch, tied_ahead=1)


def sampled(batch: Scored, weights: Tensor, generator: torch.Generator) -> Scored:
    """Keep as candidates the targets and others, drawn without replacement by weights, (num_items + 1,)."""
    targets = batch.target_ids.unsqueeze(1)
    others = (batch.is_candidate * weights).scatter(1, targets, 0.0)
    drawn = torch.multinomial(others, SAMPLED, generator=generator)
    chosen = torch.zeros_like(batch.is_candidate).scatter(1, torch.cat([targets, drawn], 1), True)
    return batch._replace(is_candidate=chosen)


def measured(batches: list[Scored], rank: Callable[[Scored], Tensor] = ranked) -> dict[str, float]:
    """Compute the metrics of all batches by a rule for ranks."""
    target_ranks = torch.cat([rank(batch) for batch in batches]).numpy()
    metrics = ranking_metrics(target_ranks, [10])
    return {name: metrics[name] for name in ("ndcg@10", "recall@10")} | {
        "windows": len(target_ranks)
    }


def averaged(several: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in several])) for name in several[0]}


class TestEachEpoch(pl.Callback):
    """Measures test after each epoch, which no honest training does."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.measured: list[Mapping[str, float]] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.measured.append(measured(list(scored(self.experiment))))


def trained(data: Interactions, *overrides: str) -> Trained:
    """Train a model and take the weights of its best epoch on validation."""
    with tempfile.TemporaryDirectory() as folder:
        quiet = ("logger=none", "callbacks.inspection=null", "trainer=cpu", f"run_folder={folder}")
        config = compose(*overrides, *quiet)
        experiment = build(config, data)
        trainer = make_trainer(config, Path(folder), alone=experiment.task.closed_form)
        spy = TestEachEpoch(experiment)
        trainer.callbacks.append(spy)  # type: ignore[attr-defined]
        fit(trainer, experiment.task, experiment.datamodule, Path(folder), None)
        load_weights(experiment.task, checkpoint_path(Path(folder), "best"))
    return Trained(experiment, spy.measured)


def variations(
    model: str, data: Interactions, epochs: int
) -> Iterator[tuple[str, str, Mapping[str, float]]]:
    """Yield each variation of the protocol, the choice, and the metrics of a model under it."""

    def train(*changes: str, rows: Interactions = data) -> Trained:
        print(f"{model} {' '.join(changes)}", flush=True)
        experiment = (f"experiment=leave_last_out/{model}", f"trainer.max_epochs={epochs}")
        return trained(rows, *experiment, *changes)

    def test(*changes: str, rows: Interactions = data) -> dict[str, float]:
        return measured(list(scored(train(*changes, rows=rows).experiment)))

    basis = train()
    batches = list(scored(basis.experiment))
    counts = torch.bincount(
        torch.from_numpy(data.item_ids[basis.experiment.datamodule.split.train]).long(),
        minlength=data.num_items + 1,
    )

    def among_sampled(weights: Tensor) -> dict[str, float]:
        generator = torch.Generator().manual_seed(0)
        draws = [[sampled(batch, weights, generator) for batch in batches] for _ in range(DRAWS)]
        return averaged([measured(draw) for draw in draws])

    item_ids, draws = data.item_ids, np.random.default_rng(0).random(len(data.item_ids))
    coarse = [batch._replace(scores=batch.scores.bfloat16()) for batch in batches]
    yield "as `leave_last_out/MODEL`", "", measured(batches)
    yield "equal scores", "target first", measured(batches, target_first)
    yield "equal scores", "target last", measured(batches, target_last)
    rounded = "scores rounded to bfloat16"
    yield "equal scores", f"target first, {rounded}", measured(coarse, target_first)
    yield "equal scores", f"target last, {rounded}", measured(coarse, target_last)
    yield "candidates", f"{SAMPLED} drawn uniformly", among_sampled(torch.ones(len(counts)))
    yield "candidates", f"{SAMPLED} drawn by popularity", among_sampled(counts.double())
    trains = len(basis.test_of_epochs) > 1
    if trains:
        best = max(basis.test_of_epochs, key=lambda metrics: metrics["ndcg@10"])
        yield "epoch", "best on test", best
        one = ("loss=pointwise", "sampler.num_negatives=1", "sampler.shared=false")
        yield "loss", "binary cross-entropy, one negative", test(*one)
        whole = ("loss=softmax", "sampler=none", "~sampler.num_negatives", "~sampler.shared")
        yield "loss", "cross-entropy over all items", test(*whole)
    descending = reordered(data, -item_ids)
    yield "rows of equal times", "by item id, descending", test(rows=descending)
    yield "seen items", "ranked too", test("data.filter_seen=false")
    last, timeline = "data.eval_targets=last", "split=global_timeline"
    yield "split", "one point in time, last items", test(timeline, last)
    if trains:  # each of the others would be a training of minutes
        return
    yield "rows of equal times", "by item id", test(rows=reordered(data, item_ids))
    yield "rows of equal times", "at random", test(rows=reordered(data, draws))
    yield "split", "last item of held-out users", test("split=user_based", last)
    successive = "data.eval_targets=successive"
    yield "split", "one point in time, all items", test(timeline, successive)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["markov", "gru"])
    parser.add_argument("--epochs", type=int, default=8, help="of each training of gru")
    parser.add_argument("--output", type=Path, default=TABLE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load("ml-100k")
    with options.output.open("w", newline="", buffering=1) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for model in options.models:
            for *choice, metrics in variations(model, data, options.epochs):
                values = (f"{metrics[name]:.4f}" for name in COLUMNS[3:5])
                row = (*choice, model, *values, int(metrics["windows"]))
                table.writerow(row)
                print(*row, sep=" | ", flush=True)


if __name__ == "__main__":
    main()
