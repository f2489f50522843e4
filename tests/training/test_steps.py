"""A plain fit takes the same steps as Lightning's own loop, and no other fit counts as plain."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback, LambdaCallback
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy

from matinee.errors import MatineeError, Stopped
from matinee.experiment import building
from matinee.experiment.trainer import fit, make_trainer
from matinee.files import checkpoint_path
from matinee.training.steps import IN_ORDER, StepLoop

SEQUENCES = ["split=user_based", "data=sequence", "model=gru", "loss=softmax", "task=next_item"]
MF = ["model=mf_bias", "data.batch_size=512"]
BARE = ["callbacks.inspection=null", "logger=none"]


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


class BareSGD(torch.optim.Optimizer):
    """An optimizer of a user, which leaves more to its closure than those of PyTorch."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 1.0})

    @torch.no_grad()
    def step(self, *, closure: Callable[[], Any]) -> Any:
        loss = closure()
        for parameter in self.param_groups[0]["params"]:
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=self.param_groups[0]["lr"])
        return loss


class IdleSGD(BareSGD):
    def step(self, closure: Any = None) -> None:
        """Forget to call the closure."""


def set_optimizer(task: Any, optimizer: Any) -> None:
    task.make_optimizer = optimizer


def override(task: Any, name: str, method: Callable[..., Any]) -> None:
    """Make a task one of a subclass that overrides a method."""
    task.__class__ = type("OwnTask", (type(task),), {name: method})


def every_second(self: Any, batch: Any) -> Any:
    return (
        None if self.trainer.fit_loop.total_batch_idx % 2 else super(type(self), self).step(batch)
    )


def fitted(
    config: Any, folder: Path, change: Callable[[Any], None] = lambda task: None, **instead: Any
) -> tuple[pl.Trainer, list[Any], dict[str, Any]]:
    """Fit a config and return the trainer, the hooks that were called, and the last checkpoint."""
    folder.mkdir()
    built, recorder = building.build(config), Recorder()
    change(built.task)
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
        ["model=mf_bias", "+trainer.gradient_clip_val=0.001"],
        [*SEQUENCES, "scheduler=cosine"],
    ],
    ids=" ".join,
)
def test_steps_are_those_of_lightning(
    compose_train: Callable[..., Any], tmp_path: Path, overrides: list[str]
) -> None:
    config = compose_train(*overrides, "trainer.max_epochs=2", *BARE)
    check_same_steps(config, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda task: override(task, "step", every_second),
        lambda task: set_optimizer(task, BareSGD),
        lambda task: set_optimizer(task, lambda weights: torch.optim.LBFGS(weights, max_iter=3)),
    ],
    ids=["skipped batches", "bare optimizer", "repeated closure"],
)
def test_parts_of_a_user_mean_the_same(
    compose_train: Callable[..., Any], tmp_path: Path, change: Callable[[Any], None]
) -> None:
    config = compose_train(*MF, "trainer.max_epochs=2", *BARE)
    check_same_steps(config, tmp_path, change)


def check_same_steps(
    config: Any, folder: Path, change: Callable[[Any], None] = lambda task: None
) -> None:
    ours, theirs = (
        fitted(config.copy(), folder / name, change, **instead)
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
    ("change", "message"),
    [
        (
            lambda task: override(task, "step", lambda task, batch: {}),
            "OwnTask.step returned no loss",
        ),
        (lambda task: set_optimizer(task, IdleSGD), "IdleSGD.step did not call its closure"),
    ],
    ids=["no loss", "no closure"],
)
def test_steps_that_learn_nothing_are_errors(
    compose_train: Callable[..., Any], tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    with pytest.raises(MatineeError, match=message):
        fitted(compose_train(*MF, "trainer.max_epochs=1", *BARE), tmp_path / "run", change)


@pytest.mark.parametrize(
    "override",
    [
        "+trainer.accumulate_grad_batches=2",
        "trainer.profiler=null",
        "model=bias",
    ],
)
def test_other_fits_use_the_loop_of_lightning(
    compose_train: Callable[..., Any], tmp_path: Path, override: str
) -> None:
    config = compose_train(override, "trainer.max_epochs=1", *BARE)
    assert not is_plain(fitted(config, tmp_path / "run")[0])


def test_own_training_steps_and_strategies_use_the_loop_of_lightning(
    compose_train: Callable[..., Any], tmp_path: Path
) -> None:
    class Own(SingleDeviceStrategy):
        pass

    config = compose_train(*MF, "trainer.max_epochs=1", *BARE)
    strategy = Own(torch.device("cpu"))
    assert not is_plain(fitted(config.copy(), tmp_path / "strategy", strategy=strategy)[0])

    def own_step(self: Any, batch: Any) -> Any:
        return self.step(batch)

    def change(task: Any) -> None:
        override(task, "training_step", own_step)

    assert not is_plain(fitted(config, tmp_path / "step", change)[0])


def test_a_signal_waits_for_the_step_of_accumulated_gradients(
    compose_train: Callable[..., Any], tmp_path: Path
) -> None:
    def interrupt(self: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            signal.raise_signal(signal.SIGTERM)

    config = compose_train(
        "model=mf", "data.batch_size=128", "+trainer.accumulate_grad_batches=3", *BARE
    )
    with pytest.raises(Stopped):
        fitted(
            config, tmp_path / "run", lambda task: override(task, "on_train_batch_end", interrupt)
        )
    checkpoint = torch.load(checkpoint_path(tmp_path / "run", "last"), weights_only=True)
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    assert (checkpoint["global_step"], progress["current"]["completed"]) == (1, 3)


@pytest.mark.parametrize(
    "name", ["on_after_backward", "configure_gradient_clipping", "optimizer_step"]
)
def test_hooks_of_a_task_are_called(
    compose_train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config = compose_train("trainer.max_epochs=1", *BARE)
    built, calls = building.build(config), []
    hook = getattr(built.task, name)

    def spied(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return hook(*args, **kwargs)

    monkeypatch.setattr(type(built.task), name, spied)
    trainer = make_trainer(config, tmp_path)
    fit(trainer, built.task, built.datamodule, tmp_path, checkpoint=None)
    assert len(calls) == trainer.global_step > 0
