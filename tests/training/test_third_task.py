"""A third kind of task, from a package of its own, goes through fit, verbs and report as it is."""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from matinee.config.composing import compose
from matinee.errors import MatineeError
from matinee.experiment import building, measuring, running
from matinee.experiment.run_folder import read_result
from matinee.experiment.trainer import make_trainer
from matinee.verbs.overfit import overfit
from matinee.verbs.predict import predict_ratings
from matinee.verbs.recommend import recommend
from matinee.verbs.report.comparison import compare
from matinee.verbs.report.significance import differences
from matinee.verbs.report.tables import differences_title, metrics_table

CODE = '''
"""Classification: does a user like an item, that is, rate it 4 or higher?"""

import torch

from matinee.contracts import Headline
from matinee.errors import MatineeError
from matinee.training.tasks.base import LightningTask


class LikesTask(LightningTask):
    headline = Headline("accuracy", higher_is_better=True)
    newcomer_inputs = ("history",)
    score_name = "liking"
    judged_by = "Brier score"

    @classmethod
    def from_data(cls, datamodule, model, loss, optimizer, scheduler=None):
        table = datamodule.interactions
        loss.fit(liked(datamodule.columns("train")).numpy())
        sizes = {"num_users": table.num_users, "num_items": table.num_items}
        network = model(**sizes, initial_score=loss.initial_score)
        return cls(network, loss, datamodule.warm, optimizer, scheduler)

    def training_columns(self, datamodule):
        return datamodule.columns("train")

    def step(self, batch):
        scores, likes = self(batch.user_ids, batch.item_ids), liked(batch)
        loss = self.loss(scores, likes)
        return {"loss": loss, "data_loss": loss.detach(), "right": right(scores.detach(), likes)}

    def forward(self, user_ids, item_ids):
        return self.network(user_ids * self.warm_users[user_ids], item_ids * self.warm_items[item_ids])

    def predict_step(self, batch, batch_idx=0):
        return right(self(batch.user_ids, batch.item_ids), liked(batch))

    def validation_step(self, batch, batch_idx):
        return {"right": self.predict_step(batch)}

    def running_sums(self, losses, columns):
        correct = torch.cat(columns["right"])
        return {"loss": float(losses.sum()), "steps": len(losses), "right": float(correct.sum()),
                "rows": len(correct)}

    def running_metrics(self, sums):
        return {"loss": sums["loss"] / sums["steps"], "accuracy": sums["right"] / sums["rows"]}

    def epoch_metrics(self, outputs):
        return {"accuracy": float(outputs["right"].mean())}

    def measure(self, predictions, datamodule, stage):
        correct = torch.cat(list(predictions)).double().numpy()
        users = datamodule.columns(stage).user_ids.numpy()
        return {"accuracy": float(correct.mean())}, {"user_id": users, "accuracy": correct}

    @property
    def protocol(self):
        return {"averaging": "over rows", "positive": "ratings of 4 and higher"}

    def figures(self, predictions, datamodule):
        return {}

    def samples(self, datamodule, count):
        return [f"{count} samples"]

    def score_items(self, datamodule, queries):
        items = torch.arange(len(self.warm_items))
        scores = [self(torch.full_like(items, user), items) for user in queries.user_ids]
        return torch.stack(scores).index_fill(1, torch.tensor([0]), float("-inf"))

    def rate(self, datamodule, user_ids, item_ids):
        raise MatineeError("this run's model predicts likes and no ratings.")

    @property
    def memorization_tolerance(self):
        return 0.01

    def memorization_error(self, outputs):
        return outputs["data_loss"].item()

    def memorization_fault(self, batch):
        return "" if bool(self.predict_step(batch).all()) else "a like is predicted wrong"


def liked(batch):
    return (batch.ratings >= 4).float()


def right(scores, likes):
    return ((scores > 0.5) == (likes > 0.5)).float()
'''


@pytest.fixture
def likes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Overrides that choose the task of a package in the current folder."""
    (tmp_path / "likeslab/configs/task").mkdir(parents=True)
    (tmp_path / "likeslab/__init__.py").write_text(CODE)
    choice = "_target_: likeslab.LikesTask.from_data\n_partial_: true\n"
    (tmp_path / "likeslab/configs/task/likes.yaml").write_text(choice)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MATINEE_PACKAGES", "likeslab")
    yield ["task=likes", "optimizer.lr=0.02", "split=random"]
    sys.modules.pop("likeslab", None)


def test_a_third_kind_of_task_needs_no_edit(
    likes: list[str], table_overrides: list[str], tmp_path: Path
) -> None:
    folders = {}
    for model in ("mf", "ncf"):
        overrides = [
            *table_overrides, *likes, f"model={model}", f"name=toy/{model}", "trainer.max_epochs=4",
            f"run_folder={tmp_path / 'logs' / model}",
        ]  # fmt: skip
        folders[model] = running.train(compose(*overrides), [])
    folder, result = folders["mf"], read_result(folders["mf"])
    assert result["headline"] == {"metric": "accuracy", "higher_is_better": True, "power": 1}
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["callbacks"]["early_stopping"]["monitor"] == "val/accuracy"
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    accuracies = [float(row["val/accuracy"]) for row in rows]
    assert result["fit"]["best_epoch"] == accuracies.index(max(accuracies))
    assert float(rows[-1]["train/accuracy"]) > float(rows[0]["train/accuracy"])

    loaded = building.load_run(folder)
    measured = measuring.evaluate(loaded, make_trainer(loaded.config, None))
    assert measured.metrics == result["metrics"]
    seen = loaded.datamodule.interactions.items["raw_id"].iloc[0]
    table = recommend(loaded, history=[seen], top_k=3)
    assert list(table.columns)[-1] == "liking" and seen not in set(table["item"])
    with pytest.raises(MatineeError, match=r"cannot use ratings=\.\.\.; give history=\.\.\."):
        recommend(loaded, ratings={seen: 5.0})
    with pytest.raises(MatineeError, match="no ratings"):
        predict_ratings(loaded, ["u1"], [seen])

    (comparison,), _ = compare([tmp_path / "logs"])
    best = comparison.groups[-1]
    values = [group.mean("val/accuracy") for group in comparison.groups]
    assert values == sorted(values) and best.mean("val/accuracy") == max(values)
    assert {"validation ACCURACY", "test ACCURACY"} < set(metrics_table(comparison).columns)
    assert "below 0 is worse" in differences_title(comparison)
    (found,), problems = differences(comparison)[0].values(), differences(comparison)[1]
    assert not problems
    other = comparison.groups[0]
    assert found.value == pytest.approx(other.mean("test/accuracy") - best.mean("test/accuracy"))


def test_a_third_kind_of_task_can_be_overfitted(
    likes: list[str], table_overrides: list[str]
) -> None:
    config = compose(*table_overrides, *likes, "name=test", "examples=8", verb="overfit")
    result = overfit(config)
    assert result.passed, result.faults
    assert result.judged_by == "Brier score"
    assert result.headline == "val/accuracy"
    assert result.metrics["val/accuracy"] == 1


def test_a_task_that_leaves_a_question_open_is_refused(
    likes: list[str], table_overrides: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "likeslab/__init__.py"
    path.write_text(path.read_text().replace("def rate(", "def rates("))
    with pytest.raises(MatineeError, match="abstract method rate"):
        building.build(compose(*table_overrides, *likes, "name=test"))
