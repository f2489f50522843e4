"""Learning-rate range test, and the learning rate that its curve suggests.

The learning rate grows exponentially from step to step (Smith, Cyclical Learning Rates for Training
Neural Networks, WACV 2017, section 3.3). Lightning runs the sweep. Learning rates and losses are read
from the optimizer and the loss, and the suggestion is computed here, because Lightning's curve is a
trailing average that starts at half the loss and lags by decades, and its slope is per unit of the
learning rate instead of per decade, so that noise at the smallest learning rates looks steepest.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from lightning.pytorch.tuner.tuning import Tuner
from omegaconf import DictConfig, OmegaConf
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from matinee.config.checking import check_config
from matinee.errors import MatineeError
from matinee.experiment.building import build
from matinee.experiment.run_folder import CONFIG, claim_folder, write_json, write_yaml
from matinee.experiment.trainer import make_trainer, probe, refuse_parent, refuse_several
from matinee.files import write_whole
from matinee.training.loaders import Loaders

OWN_KEYS = ("min_lr", "max_lr", "steps", "train")  # of configs/find-lr.yaml
LEAST_STEPS = 10  # fewer steps make no curve
WIDTH = 0.05  # of the smoothing window, as a share of the steps: 0.3 decades of six
NOISE = 1.5  # smallest fall that counts, in standard deviations of the losses from the curve


@dataclass(frozen=True)
class RangeTest:
    """The curve of a range test, as arrays of shape (steps,) up to the first non-finite loss.

    Attributes:
        rates: Learning rate of each step.
        losses: Training objective before each step.
        configured: Learning rate in the config.
    """

    rates: npt.NDArray[np.float64]
    losses: npt.NDArray[np.float64]
    configured: float

    @property
    def smoothed(self) -> npt.NDArray[np.float64]:
        """Losses smoothed by a centred Gaussian window, which does not lag.

        Values above the first losses are clipped to them, so that divergence does not affect the
        steps before it.
        """
        sigma = max(1.0, WIDTH * len(self.losses))
        level = self.losses[:LEAST_STEPS].max(initial=-np.inf)
        smoothed: npt.NDArray[np.float64] = gaussian_filter1d(
            np.minimum(self.losses, level), sigma, mode="reflect"
        )
        return smoothed

    @property
    def steepest(self) -> int | None:
        """Index of the steepest fall per decade before the minimum; None if the loss does not fall."""
        if len(self.losses) < LEAST_STEPS:
            return None
        smoothed = self.smoothed
        lowest = int(smoothed.argmin())
        noise = float(np.std((self.losses - smoothed)[: lowest + 1]))
        if lowest == 0 or smoothed[0] - smoothed[lowest] <= NOISE * noise:
            return None
        slopes = np.gradient(smoothed, np.log10(self.rates))
        return int(slopes[: lowest + 1].argmin())

    @property
    def suggestion(self) -> float | None:
        """Learning rate of the steepest fall, rounded to three digits; None if there is no fall."""
        return None if self.steepest is None else float(f"{self.rates[self.steepest]:.3g}")


def range_test(config: DictConfig) -> RangeTest:
    """Run a range test over some training steps and discard the weights.

    Args:
        config: A composed ``find-lr`` config.

    Raises:
        MatineeError: If the range is empty, the model is solved in closed form, or a part of the config
            cannot be built.
    """
    check_config(config, "find-lr")
    for key in ("min_lr", "max_lr", "steps"):
        if not config[key] > 0:
            raise MatineeError(f"{key} is {config[key]!r}; give a number greater than 0.")
    if config.min_lr >= config.max_lr:
        raise MatineeError(
            f"min_lr={config.min_lr:g} is not below max_lr={config.max_lr:g}; swap them."
        )
    if config.steps < LEAST_STEPS:
        raise MatineeError(f"steps is {config.steps}; give at least {LEAST_STEPS}.")
    if config.train:
        check_config(training_config(config, None), "train")
    refuse_several(config, "find-lr")
    refuse_parent(config, "find-lr")
    experiment = build(config)
    task = experiment.task
    if task.closed_form:
        raise MatineeError(
            f"{type(task.network).__name__} is solved in closed form and has no learning rate; "
            "choose a model that is trained."
        )
    rates, losses, step = [], [], []

    def keep_loss(loss: Tensor) -> None:
        step.append(float(loss.detach()))

    def keep_rate(optimizer: Any) -> None:
        rates.append(float(optimizer.param_groups[0]["lr"]))
        losses.append(sum(step))  # one entry per accumulated batch, already divided by their number
        step.clear()

    # Lightning removes callbacks during the sweep; hooks of the module stay
    task.on_before_backward = keep_loss  # type: ignore[method-assign]
    task.on_before_optimizer_step = keep_rate  # type: ignore[method-assign]
    sweep = f"{config.steps} steps at rates from {config.min_lr:g} to {config.max_lr:g}"
    print(f"{config.name}: {sweep}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as scratch:
        endless: dict[str, Any] = {"max_epochs": -1, "check_val_every_n_epoch": 2**31}
        trainer = make_trainer(config, None, default_root_dir=scratch, **endless)
        probe(
            Tuner(trainer).lr_find,
            task,
            datamodule=Loaders(experiment.datamodule),
            min_lr=config.min_lr,
            max_lr=config.max_lr,
            num_training=config.steps,
            update_attr=False,  # the suggestion goes into the config
        )
    finite = int(np.append(np.isfinite(losses), False).argmin())
    return RangeTest(
        np.array(rates[:finite]), np.array(losses[:finite]), float(config.optimizer.lr)
    )


def training_config(config: DictConfig, rate: float | None) -> DictConfig:
    """Return the ``train`` part of a ``find-lr`` config, with a new learning rate if given."""
    training = OmegaConf.masked_copy(
        config, [key for key in map(str, config) if key not in OWN_KEYS]
    )
    if rate is not None:
        training.optimizer.lr = rate
    return training


def record(config: DictConfig, result: RangeTest) -> Path:
    """Write the config, the curve and the suggestion into a new folder below ``log_dir/lr_finder``.

    Raises:
        MatineeError: If the folder is in use or cannot be written.
    """
    from matinee.display.plotting import learning_rate_curve, save_figure

    folder = claim_folder(None, Path(config.log_dir) / "lr_finder" / config.name)
    columns = zip(result.rates, result.losses, result.smoothed, strict=True)
    lines = [
        f"{step},{rate:.9g},{loss:.9g},{smooth:.9g}\n"
        for step, (rate, loss, smooth) in enumerate(columns, start=1)
    ]
    text = "".join(["step,lr,loss,smoothed_loss\n", *lines])
    write_whole(folder / "learning_rate.csv", lambda file: file.write(text.encode()))
    figure = learning_rate_curve(
        result.rates, result.losses, result.smoothed, result.steepest, result.configured
    )
    figure.axes[0].set_title(config.name)
    save_figure(figure, folder / "learning_rate.png")
    write_yaml(folder / CONFIG, config)
    write_json(
        folder / "learning_rate.json",
        {
            "name": config.name,
            "suggestion": result.suggestion,
            "configured": result.configured,
            "loss_at_suggestion": _smoothed_at(result),
            "steps": len(result.losses),
            "min_lr": config.min_lr,
            "max_lr": config.max_lr,
            "seed": config.seed,
        },
    )
    return folder


def row(config: DictConfig, result: RangeTest) -> dict[str, str]:
    """Return the result as a row of a table."""
    loss = _smoothed_at(result)
    return {
        "model": Path(config.name).name,
        "suggested lr": "none" if result.suggestion is None else f"{result.suggestion:g}",
        "lr in the config": f"{result.configured:g}",
        "first loss": f"{result.smoothed[0]:.4f}" if len(result.losses) else "",
        "loss at suggestion": "" if loss is None else f"{loss:.4f}",
        "steps": str(len(result.losses)),
    }


def _smoothed_at(result: RangeTest) -> float | None:
    return None if result.steepest is None else float(result.smoothed[result.steepest])
