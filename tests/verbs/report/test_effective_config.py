"""Which configs give the same results, whatever version composed them."""

from typing import Any

import pytest
from omegaconf import OmegaConf, open_dict

from matinee.config.composing import compose
from matinee.verbs.report.effective_config import effective_config


def asked(*overrides: str, lacking: tuple[str, ...] = ()) -> dict[str, Any]:
    config = compose("experiment=user_based/gru", *overrides)
    OmegaConf.resolve(config)
    for key in lacking:
        parent, _, name = key.rpartition(".")
        with open_dict(config):
            OmegaConf.select(config, parent).pop(name)
    plain: Any = OmegaConf.to_container(config)
    return effective_config(plain)


def test_a_missing_key_gets_the_default_of_its_file_and_no_other_value() -> None:
    lacking = ("data.drop_oldest", "trainer.num_nodes", "model.encoder.num_layers")
    today = asked()
    assert asked(lacking=lacking) == today
    for change in ("data.drop_oldest=0.5", "trainer.num_nodes=2", "model.encoder.num_layers=2"):
        changed = asked(change)
        assert changed != today
        assert {key for key in changed if changed[key] != today[key]} == {change.partition("=")[0]}


def test_a_missing_key_on_which_files_disagree_is_a_difference() -> None:
    """Of four trainers two have 32 bits and two have 16."""
    lacking = asked(lacking=("trainer.precision",))
    assert "trainer.precision" not in lacking and lacking != asked()


def test_a_key_that_follows_another_counts_where_it_does_not() -> None:
    assert "scheduler.T_max" not in asked("trainer.max_epochs=7")
    assert asked("scheduler.T_max=3")["scheduler.T_max"] == 3
    assert asked(lacking=("scheduler.T_max",)) == asked()


@pytest.mark.parametrize(
    "override",
    [
        "callbacks.inspection=null", "callbacks.progress_bar=null", "callbacks.epoch_table=null",
        "logger=none", "log_dir=other", "run_folder=other", "name=other", "trainer=cpu",
        "trainer.deterministic=true", "trainer.log_every_n_steps=1", "data.segments=[popularity]",
        "data.eval_batch_size=7", "dataset.data_dir=elsewhere",
    ],
)  # fmt: skip
def test_keys_that_cannot_change_a_result_are_left_out(override: str) -> None:
    assert asked(override) == asked()


@pytest.mark.parametrize(
    "override",
    [
        "callbacks.early_stopping=null", "callbacks.early_stopping.patience=1",
        "callbacks.checkpoints.monitor=null", "trainer.precision=bf16-mixed", "trainer.devices=2",
        "trainer.max_epochs=3", "trainer=gpu", "data.batch_size=7", "seed=1", "optimizer.lr=1.0",
        "loss=bpr", "optimizer=adamw", "scheduler=none",
    ],
)  # fmt: skip
def test_keys_that_can_change_a_result_count(override: str) -> None:
    assert asked(override) != asked()
