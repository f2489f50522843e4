"""A plain fit takes the same steps as Lightning's own loop, and no other fit counts as plain."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback, LambdaCallback
from lightning.pytorch.profilers import PassThroughProfiler

from matinee.experiment import building
from matinee.experiment.trainer import fit, make_trainer
from matinee.files import checkpoint_path
from matinee.training.steps import IN_ORDER, StepLoop

SEQUENCES = ["split=user_based", "data=sequence", "model=gru", "loss=softmax", "task=next_item"]


class Recorder(Callback):
    """Notes each hook of a step with what the hook is given, and logs a metric from within a step."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if outputs:
            pl_module.log("last_loss", outputs["loss"])
        values = {name: value.tolist() for name, value in outputs.items()}
        self.calls.append(("on_train_batch_end", values, batch_idx))


def noting(name: str, calls: list[Any]) -> Callable[..., None]:
    """Return a hook that notes its name, the step, whether there are gradients, and a loss it is given."""

    def hook(trainer: pl.Trainer, task: pl.LightningModule, *given: Any) -> None:
        gradients = [parameter.grad is not None for parameter in task.parameters()]
        losses = [one.item() for one in given if isinstance(one, torch.Tensor)]
        calls.append((name, trainer.global_step, any(gradients), losses, task._current_fx_name))

    return hook


def fitted(
    config: Any, folder: Path, **instead: Any
) -> tuple[pl.Trainer, list[Any], dict[str, Any]]:
    """Fit a config and return the trainer, the hooks that were called, and the last checkpoint."""
    folder.mkdir()
    built, recorder = building.build(config), Recorder()
    trainer = make_trainer(config, folder, **instead)
    notes = {
        name: noting(name, recorder.calls) for name in IN_ORDER if name != "on_train_batch_end"
    }
    trainer.callbacks += [recorder, LambdaCallback(**notes)]
    fit(trainer, built.task, built.datamodule, folder, checkpoint=None)
    checkpoint = torch.load(checkpoint_path(folder, "last"), weights_only=True)
    for state in checkpoint["callbacks"].values():
        state.pop("seconds", None)
    return trainer, recorder.calls, checkpoint


def is_plain(trainer: pl.Trainer) -> bool:
    loop = trainer.fit_loop.epoch_loop
    assert isinstance(loop, StepLoop)
    return loop._plain


def leaves(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Walk through nested values."""
    if isinstance(node, dict | list | tuple):
        pairs = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in pairs:
            yield from leaves(value, f"{name}/{key}")
    else:
        yield name, node


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=mf_bias", "optimizer=adam", "task.l2=0.02"],
        ["model=mf_bias", "trainer.precision=bf16-mixed"],
        ["model=mf", "model.sparse=true", "optimizer=row_adam"],
        [*SEQUENCES, "scheduler=cosine"],
    ],
    ids=" ".join,
)
def test_steps_are_those_of_lightning(
    compose_train: Callable[..., Any], tmp_path: Path, overrides: list[str]
) -> None:
    config = compose_train(
        *overrides, "trainer.max_epochs=2", "callbacks.inspection=null", "logger=none"
    )
    ours, theirs = (
        fitted(config.copy(), tmp_path / name, **instead)
        for name, instead in (("ours", {}), ("theirs", {"profiler": PassThroughProfiler()}))
    )
    assert is_plain(ours[0]) and not is_plain(theirs[0])
    assert ours[1] == theirs[1]
    assert {call[0] for call in ours[1]} == set(IN_ORDER)
    found, expected = dict(leaves(ours[2])), dict(leaves(theirs[2]))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(found[name], value), name
        else:
            assert found[name] == value, name
    assert ours[0].callback_metrics["last_loss"] == theirs[0].callback_metrics["last_loss"]


@pytest.mark.parametrize(
    "override",
    [
        "+trainer.accumulate_grad_batches=2",
        "+trainer.gradient_clip_val=1.0",
        "trainer.profiler=null",
        "model=bias",
    ],
)
def test_other_fits_use_the_loop_of_lightning(
    compose_train: Callable[..., Any], tmp_path: Path, override: str
) -> None:
    config = compose_train(
        override, "trainer.max_epochs=1", "callbacks.inspection=null", "logger=none"
    )
    assert not is_plain(fitted(config, tmp_path / "run")[0])


@pytest.mark.parametrize(
    "name", ["on_after_backward", "configure_gradient_clipping", "optimizer_step"]
)
def test_hooks_of_a_task_are_called(
    compose_train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config = compose_train("trainer.max_epochs=1", "callbacks.inspection=null", "logger=none")
    built, calls = building.build(config), []
    hook = getattr(built.task, name)

    def spied(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return hook(*args, **kwargs)

    monkeypatch.setattr(type(built.task), name, spied)
    trainer = make_trainer(config, tmp_path)
    fit(trainer, built.task, built.datamodule, tmp_path, checkpoint=None)
    assert len(calls) == trainer.global_step > 0
