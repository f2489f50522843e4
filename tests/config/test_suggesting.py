"""A misspelt key, wherever it stands, gets the nearest key of the config that it would have belonged to."""

import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from matinee.config.composing import compose
from matinee.config.suggesting import suggest_key
from matinee.config.trees import dotted_keys
from matinee.errors import MatineeError

EXPERIMENTS = [
    "chronological/mf_bias_stars",
    "user_based/gru",
    "leave_last_out/attention",
    "counting/cnn",
]


def misspelt(key: str) -> list[str]:
    """Leave a letter out, exchange two, and write one twice."""
    parent, dot, name = key.rpartition(".")
    middle = len(name) // 2
    swapped = name[: middle - 1] + name[middle] + name[middle - 1] + name[middle + 1 :]
    wrong = [name[:middle] + name[middle + 1 :], swapped, name[:middle] + name[middle - 1 :]]
    return [parent + dot + word for word in wrong if word != name]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_key_is_found_from_three_misspellings(experiment: str) -> None:
    plain: Any = OmegaConf.to_container(compose(f"experiment={experiment}"))
    known = dotted_keys(plain)
    tried = 0
    for key in known:
        if len(key.rpartition(".")[2]) < 4:  # "lr" and "t" have nothing to leave out
            continue
        for wrong in set(misspelt(key)) - set(known):
            assert suggest_key(wrong, known) == f"did you mean {key!r}?", wrong
            tried += 1
    assert tried > 150


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("model.encoder.num_layrs=2", "model.encoder.num_layers"),
        ("model.encodr.num_layers=2", "model.encoder.num_layers"),
        ("modle.encoder.num_layers=2", "model.encoder.num_layers"),
        ("data.eval_strde=2", "data.eval_stride"),
        ("data.evalstride=2", "data.eval_stride"),
        ("data.filter_sen=true", "data.filter_seen"),
        ("callbacks.early_stoping.patience=2", "callbacks.early_stopping.patience"),
        ("optimiser.lr=1", "optimizer.lr"),
        ("lr=1", "optimizer.lr"),
        ("max_epochs=1", "trainer.max_epochs"),
        ("num_layers=2", "model.encoder.num_layers"),
        ("trainer.max_epoch=1", "trainer.max_epochs"),
        ("trainer.gradient_clip_vl=1", "+trainer.gradient_clip_val"),
        ("scheduler.Tmax=1", "scheduler.T_max"),
        ("sede=1", "seed"),
        ("run_foldr=x", "run_folder"),
        ("task.topk=[1]", "task.top_k"),
        ("dataset.data_dr=x", "dataset.data_dir"),
    ],
)
def test_an_override_is_compared_with_the_config_of_its_experiment(given: str, meant: str) -> None:
    with pytest.raises(MatineeError) as caught:
        compose("experiment=user_based/gru", given)
    assert str(caught.value) == f"unknown key '{given.split('=')[0]}'; did you mean '{meant}'?"


def test_what_is_near_nothing_is_told_what_there_is() -> None:
    with pytest.raises(MatineeError, match=r"optimizer has lr, weight_decay, fused\."):
        compose("optimizer.xyz=1")
    with pytest.raises(
        MatineeError, match=r"there is no model\.xyz either: model has embedding_dim"
    ):
        compose("model.xyz.abc=1")
    with pytest.raises(MatineeError, match=r"add it with \+trainer\.gradient_clip_val=\.\.\."):
        compose("trainer.gradient_clip_val=1")


@pytest.mark.parametrize(
    ("lines", "wrong", "meant"),
    [
        ("model: {encoder: {num_layrs: 2}}", "model.encoder.num_layrs", "model.encoder.num_layers"),
        ("model: {encodr: {num_layers: 2}}", "model.encodr", "model.encoder"),
        ("data: {eval_strde: 2}", "data.eval_strde", "data.eval_stride"),
        ("callbacks: {early_stoping: {patience: 2}}", "callbacks.early_stoping", "callbacks.early_stopping"),
        ("logger: {tensorbord: {}}", "logger.tensorbord", "logger.tensorboard"),
        ("optimiser: {lr: 1.0}", "optimiser", "optimizer"),
        ("optimizer: {amsgrat: true}", "optimizer.amsgrat", "optimizer.amsgrad"),
        ("trainer: {gradient_clip_vl: 1}", "trainer.gradient_clip_vl", "trainer.gradient_clip_val"),
        ("seeed: 3", "seeed", "seed"),
        ("lr: 0.1", "lr", "optimizer.lr"),
    ],
)  # fmt: skip
def test_a_file_of_ones_own_is_compared_with_the_parameters_of_its_parts(
    tmp_path: Path, lines: str, wrong: str, meant: str
) -> None:
    path = tmp_path / "experiment" / "mine.yaml"
    path.parent.mkdir()
    path.write_text(
        "# @package _global_\ndefaults:\n  - /experiment/user_based/gru\n  - _self_\n" + lines
    )
    with pytest.raises(MatineeError) as caught:
        compose("experiment=mine", f"hydra.searchpath=[{tmp_path}]")
    assert str(caught.value) == f"unknown key '{wrong}'; did you mean '{meant}'?"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("model=gruu", "there is no model=gruu; did you mean 'gru'?"),
        ("experiment=user_based/gruu", "no experiment=user_based/gruu; did you mean 'user_based/gru'?"),
        ("dataset=ml_100k", "there is no dataset=ml_100k; did you mean 'ml-100k'?"),
        ("encoder@model.encoder=lstmm", "there is no encoder=lstmm; did you mean 'lstm'?"),
        ("model=3", "there is no model=3; choose one of attention, bayesian_mf"),
        ("model=true", "there is no model=true; choose one of"),
        ("model=xyz", "there is no model=xyz; choose one of attention, bayesian_mf"),
    ],
)  # fmt: skip
def test_a_wrong_choice_gets_the_nearest_or_all(given: str, sentence: str) -> None:
    with pytest.raises(MatineeError, match=re.escape(sentence)):
        compose("experiment=user_based/gru", given)
