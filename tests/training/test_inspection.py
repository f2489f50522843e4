"""What TensorBoard is given, read back with TensorBoard's own reader."""

import csv
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from matinee.experiment import building
from matinee.experiment.run_folder import load_config, read_result
from matinee.training.callbacks.inspection import hyperparameters

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
        np.testing.assert_allclose(vectors, table[rows_of], atol=6e-5)


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
