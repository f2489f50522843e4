"""What TensorBoard is given, read back with TensorBoard's own reader."""

import csv
import json
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.plugins.projector import projector_plugin

from matinee.experiment import building
from matinee.experiment.run_folder import load_config, read_result
from matinee.training.callbacks.inspection import hyperparameters
from matinee.training.callbacks.projector import item_map, write_projector

AWKWARD = 'Tab\there, "quoted" | line\nbreak <b>é</b>'


@pytest.fixture
def titled(tmp_path: Path) -> list[str]:
    """Overrides for a table whose titles would break a page or a table."""
    rng = np.random.default_rng(0)
    path = tmp_path / "titled.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["who", "what", "stars", "moment", "title"])
        for moment in range(1200):
            item = int(rng.integers(30))
            row = [
                int(rng.integers(40)),
                item,
                int(rng.integers(1, 6)),
                moment,
                f"{item} {AWKWARD}",
            ]
            writer.writerow(row)
    return [f"dataset.path={path}", "dataset.title=title", "dataset.duplicates=last"]


def events(folder: Path) -> dict[str, EventAccumulator]:
    return {p.name: EventAccumulator(str(p)).Reload() for p in sorted(folder.glob("events.*"))}


def tags(folder: Path, kind: str) -> set[str]:
    return {tag for reader in events(folder).values() for tag in reader.Tags()[kind]}


def text(folder: Path, tag: str) -> str:
    for reader in events(folder).values():
        if f"{tag}/text_summary" in reader.Tags()["tensors"]:
            return reader.Tensors(f"{tag}/text_summary")[0].tensor_proto.string_val[0].decode()
    raise AssertionError(f"no text {tag}")


MODELS = {
    "rating": ["model=mf_bias"],
    "next item": ["experiment=user_based/gru", "model.embedding_dim=8"],
}


@pytest.mark.parametrize("kind", MODELS)
def test_an_evaluated_run_is_shown(kind: str, titled: list[str], run: Callable[..., Path]) -> None:
    folder = run(*MODELS[kind], "callbacks.inspection.samples=3", *titled)
    figures = {"by_history", "by_popularity"} | (
        {"error_by_rating"} if kind == "rating" else {"ranks"}
    )
    assert tags(folder, "images") == {f"with_best_epoch/{name}" for name in figures}
    config = textwrap.dedent(text(folder, "config"))
    assert OmegaConf.create(config) == load_config(folder)
    shown = text(folder, "recommendations")
    rows = [line for line in shown.splitlines() if line.startswith("| ")]
    assert (
        len({line.replace("\\|", "").count("|") for line in rows}) == 1
    )  # no title broke the table
    assert "line break" in shown
    assert "\t" not in shown

    projector = (folder / "projector_config.pbtxt").read_text()
    sides = ["items", "users"] if kind == "rating" else ["items"]
    epoch = read_result(folder)["fit"]["best_epoch"]
    loaded = building.load_run(folder)
    for name in sides:
        assert f"{epoch:05d}/{name}/tensors.tsv" in projector
        vectors = np.loadtxt(folder / f"{epoch:05d}" / name / "tensors.tsv", dtype=np.float32)
        header, *labels = (folder / f"{epoch:05d}" / name / "metadata.tsv").read_text().splitlines()
        assert len(labels) == len(vectors)
        assert {line.count("\t") for line in labels} == {header.count("\t")}
        table = loaded.task.network.tables()[name].detach().numpy()
        ids = [line.split("\t")[header.split("\t").index("id")] for line in labels]
        encode = f"encode_{name}"
        rows_of = getattr(loaded.datamodule.interactions, encode)(
            ids if name.startswith("user") and not ids[0].isdigit() else [int(i) for i in ids]
        )
        np.testing.assert_allclose(vectors, table[rows_of], rtol=1e-5)
    assert not list(folder.rglob("bookmarks.json")), "30 items need no map"


def clusters(count: int, size: int) -> np.ndarray:
    """Return vectors around ``count`` directions, one after another."""
    rng = np.random.default_rng(0)
    centers = 3 * rng.normal(size=(count, 8))
    return np.tile(centers, (size, 1)) + rng.normal(scale=0.3, size=(count * size, 8))


def test_the_map_shows_neighbors_and_leaves_random_states_alone() -> None:
    vectors = clusters(4, 40)
    states = str(np.random.get_state()), torch.get_rng_state()  # noqa: NPY002
    points, share = item_map(vectors)  # type: ignore[misc]
    assert states[0] == str(np.random.get_state())  # noqa: NPY002
    assert torch.equal(states[1], torch.get_rng_state())
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (distances.argmin(1) % 4 == np.arange(160) % 4).all()
    rows = vectors - vectors.mean(0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    variances = np.linalg.svd(rows, compute_uv=False) ** 2
    assert share == pytest.approx(variances[:3].sum() / variances.sum())
    np.testing.assert_array_equal(points, item_map(vectors)[0])  # type: ignore[index]


@pytest.mark.parametrize(
    "vectors",
    [
        np.full((300, 8), 0.1, np.float32),
        np.where(np.arange(300)[:, None] == 7, np.nan, clusters(3, 100)),
        clusters(3, 33),
        np.outer(np.arange(300), [1.0, 2.0]),
    ],
    ids=["constant", "not a number", "few", "one line"],
)
def test_without_enough_directions_there_is_no_map(vectors: np.ndarray) -> None:
    assert item_map(vectors) is None


@pytest.mark.parametrize("genres", [True, False])
def test_a_bookmark_colors_the_most_frequent_items(genres: bool, tmp_path: Path) -> None:
    count = 420
    items = pd.DataFrame({"raw_id": range(count), "genres": ""}, range(1, count + 1))
    own = ["popularity", "in train", "id"]
    items[own] = "own"
    if genres:  # all have "a", every 12th one of the others
        kinds = ["a", "=b", *"cdefghijkl"]
        items["genres"] = [f"a | {kinds[n % 12]}" for n in range(count - 1)] + ["z"]
        items["title"] = AWKWARD
    ids = np.repeat(np.arange(1, count + 1), np.arange(count, 0, -1))
    table = SimpleNamespace(
        items=items, item_ids=ids, users=items.iloc[:1], user_ids=np.ones_like(ids)
    )
    datamodule: Any = SimpleNamespace(
        interactions=table, split=SimpleNamespace(train=np.arange(len(ids)))
    )
    weights = {"items": torch.tensor(np.vstack([np.zeros(8), clusters(4, count // 4)]))}
    write_projector(tmp_path, 3, SimpleNamespace(tables=lambda: weights), datamodule)  # type: ignore[arg-type]

    (path,) = tmp_path.rglob("bookmarks.json")
    assert f'"{path.relative_to(tmp_path)}"' in (tmp_path / "projector_config.pbtxt").read_text()
    (state,) = json.loads(path.read_text())
    plugin = Path(projector_plugin.__file__).parent / "tf_projector_plugin"
    script = (plugin / "projector_binary.js").read_text()
    assert all(f".{name}" in script for name in state), "TensorBoard reads other names"
    assert state["filteredPoints"] == list(range(300))
    assert len(state["projections"]) == 300
    assert re.search(r"300 most frequent items.* PCA in 3D shows \d+% of", state["label"])
    header, *lines = (path.parent / "metadata.tsv").read_text().splitlines()
    labels = pd.DataFrame([line.split("\t") for line in lines], columns=header.split("\t"))
    assert state["selectedLabelOption"] == ("title" if genres else "raw_id")
    assert labels.columns.is_unique and (labels[own] == "own").all(axis=None)
    assert labels["raw_id"].tolist() == [str(item) for item in range(count)]
    assert labels["in train (computed)"].tolist() == [str(n) for n in range(count, 0, -1)]
    colors = labels[state["selectedColorOptionName"]]
    if genres:  # the rarest of an item's, of the 9 that most items have
        assert colors[:3].tolist() == ["a", "'=b", "c"] and colors[11] == "a"
        assert set(colors) == {"a", "'=b", *"cdefghi", "other"}
    else:
        assert colors[0] == "100.0" and colors[299] == "0.0" and (colors[300:] == "").all()


def test_samples_rank_as_the_evaluation_does(run: Callable[..., Path]) -> None:
    folder = run(
        *MODELS["next item"], "split=leave_last_out", "data.eval_length=100", "data.filter_seen=true",
        "logger=none", "callbacks.inspection=null",
    )  # fmt: skip
    with np.load(folder / "per_user.npz") as values:
        ranks = values["rank"]
    loaded = building.load_run(folder)
    shown = "\n\n".join(loaded.task.samples(loaded.datamodule, len(ranks))).split("**After** ")[1:]
    listed = 0
    for text_of_one, rank in zip(shown, ranks, strict=True):
        history, *table = text_of_one.splitlines()
        recommended = {line.split("|")[2].strip() for line in table if re.match(r"\| +\d", line)}
        assert not recommended & set(history.split(", ")), "seen items are no candidates"
        assert text_of_one.rstrip().endswith(f"at rank {rank:g}.")
        listed += len(recommended)
    assert 0 < listed <= 10 * len(ranks)


def test_the_table_of_hyperparameters_holds_the_final_metrics(run: Callable[..., Path]) -> None:
    folder = run("model.embedding_dim=7", "callbacks.inspection.samples=1")
    metrics = read_result(folder)["metrics"]
    found: dict[str, object] = {}
    for reader in events(folder).values():
        scalars = reader.Tags()["scalars"]
        for stage in ("val", "test"):
            tag = f"with_best_epoch/{stage}/rmse"
            if tag in scalars:
                found[tag] = reader.Scalars(tag)[0].value
        for tag, content in reader.summary_metadata.items():
            if tag == "_hparams_/session_start_info":
                data = HParamsPluginData.FromString(content.plugin_data.content)
                chosen = data.session_start_info.hparams
                found["dim"] = chosen["embedding_dim"].number_value
                found["network"] = chosen["network"].string_value
                found["trial"] = data.session_start_info.group_name
            if tag == "_hparams_/experiment":
                experiment = HParamsPluginData.FromString(content.plugin_data.content).experiment
                first = {info.name for info in experiment.hparam_infos if info.differs}
                found["columns"] = [info.name.tag for info in experiment.metric_infos]
    assert found["dim"] == 7
    assert found["network"] == "BiasedMatrixFactorization"
    assert first == {"model", "experiment", "lr", "embedding_dim", "seed"}
    assert found["columns"][:2] == ["with_best_epoch/val/rmse", "with_best_epoch/test/rmse"]
    model, _, code = str(found["trial"]).partition(" ")
    assert model == "test" and len(code) == 4
    assert "| test RMSE" in text(folder, "metrics")
    for stage in ("val", "test"):
        assert found[f"with_best_epoch/{stage}/rmse"] == pytest.approx(
            metrics[f"{stage}/rmse"], rel=1e-6
        )


def test_hyperparameters_are_plain_values(run: Callable[..., Path]) -> None:
    config = load_config(run("model.embedding_dim=7", "logger=none"))
    chosen = hyperparameters(OmegaConf.to_container(config))
    assert all(isinstance(value, bool | int | float | str) for value in chosen.values())
    assert chosen["dataset"] == "table"
    assert chosen["max_epochs"] == 2
    assert not any("log_dir" in name or "callback" in name for name in chosen)
    assert chosen["model"] == chosen["experiment"] == "test"
    config["name"] = "table/chronological/mf_bias"
    named = hyperparameters(OmegaConf.to_container(config))
    assert (named["experiment"], named["model"]) == ("chronological", "mf_bias")
    assert "None" not in chosen.values()


def test_histograms_are_behind_a_switch(run: Callable[..., Path]) -> None:
    assert not tags(run("callbacks.inspection.samples=0", folder="off"), "histograms")
    shown = tags(run("callbacks.inspection.histograms=true", folder="on"), "histograms")
    assert {"weights/network.item_factors.weight", "gradients/network.item_factors.weight"} <= shown


def test_without_a_logger_nothing_is_drawn(run: Callable[..., Path]) -> None:
    folder = run("logger=none", "callbacks.inspection.samples=1")
    assert not list(folder.glob("events.*"))
    assert not (folder / "projector_config.pbtxt").exists()


def test_inspection_changes_no_metric(run: Callable[..., Path]) -> None:
    plain = run("callbacks.inspection=null", folder="plain")
    shown = run("callbacks.inspection.histograms=true", folder="shown")
    assert read_result(plain)["metrics"] == read_result(shown)["metrics"]
    weights = [
        torch.load(f / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
        for f in (plain, shown)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
