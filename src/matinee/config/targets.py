"""Targets: the classes and functions that a config may name as ``_target_``.

Allowed are the targets in matinee's own configs, the listed targets of libraries, and everything that a
package defines which the user allows (:mod:`matinee.config.packages`). Targets of matinee and of libraries
are compared as strings before anything is imported, so a config cannot reach methods, modules or
objects that a module merely imports.
"""

import inspect
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Any

import yaml

from matinee.config.folders import config_dir
from matinee.config.packages import GROUP, VARIABLE, allowed_packages, package_of
from matinee.config.suggesting import suggest
from matinee.config.trees import Loader
from matinee.errors import MatineeError

LIBRARIES = {  # by group; without parts that write outside a run folder or call an argument
    "optimizer": {
        "torch.optim": "ASGD Adadelta Adafactor Adagrad Adam AdamW Adamax LBFGS NAdam RAdam RMSprop Rprop "
        "SGD SparseAdam",
    },
    "scheduler": {
        "torch.optim.lr_scheduler": "ConstantLR CosineAnnealingLR CosineAnnealingWarmRestarts CyclicLR "
        "ExponentialLR LinearLR MultiStepLR OneCycleLR PolynomialLR StepLR",
    },
    "callbacks": {
        "lightning.pytorch.callbacks": "DeviceStatsMonitor EMAWeightAveraging EarlyStopping "
        "GradientAccumulationScheduler LearningRateMonitor ModelSummary RichModelSummary RichProgressBar "
        "StochasticWeightAveraging TQDMProgressBar Timer",
    },
    "logger": {
        "lightning.pytorch.loggers": "CSVLogger MLFlowLogger TensorBoardLogger WandbLogger",
    },
    "profiler": {
        "lightning.pytorch.profilers": "AdvancedProfiler PassThroughProfiler PyTorchProfiler "
        "SimpleProfiler",
    },
    "strategy": {
        "lightning.pytorch.strategies": "DDPStrategy SingleDeviceStrategy",
    },
    "trainer": {"lightning.pytorch": "Trainer"},
}
APART = {  # groups whose parts read or write files; they are no arguments of other parts
    "callbacks", "dataset", "logger", "profiler", "source", "space", "strategy", "trainer",
}  # fmt: skip
TOOLS = {  # dependencies of matinee that hold no parts
    "filelock", "hydra", "jinja2", "matplotlib", "numpy", "omegaconf", "optuna", "pandas", "pyarrow",
    "scipy", "tensorboard", "torchmetrics", "tqdm", "yaml",
}  # fmt: skip


def group_of(path: str) -> str:
    """Return the group of a config path: its last key, or the key before in callbacks and loggers.

    >>> group_of("model.encoder"), group_of("callbacks.early_stopping")
    ('encoder', 'callbacks')
    """
    keys = [key for key in path.split(".") if not key.isdigit()]
    return keys[-2] if keys[-2:-1] in (["callbacks"], ["logger"]) else keys[-1]


def find_target(target: Any, path: str) -> Any:
    """Import the class or function that a ``_target_`` names, if it is allowed there.

    Args:
        target: A dotted name.
        path: The config path of the node that holds it, such as ``model.encoder``.

    Raises:
        MatineeError: If the target is not allowed, or does not exist.
    """
    full_key = f"{path}._target_"
    if not isinstance(target, str):
        raise MatineeError(
            f"{full_key} is {target!r}; give the dotted name of a class or function."
        )
    package = package_of(target, allowed_packages())
    if package is not None:
        found = _locate(target, full_key)
        home = getattr(found, "__module__", None) or ""
        if not callable(found) or inspect.ismodule(found) or package_of(home, [package]) is None:
            raise MatineeError(
                f"{full_key}={target} is not a class or function that the package {package} defines; "
                "name one that it does."
            )
        return found
    choices = _choices(path)
    if target in choices:
        return _locate(target, full_key)
    top = target.split(".")[0]
    if top in {"matinee", "torch", "lightning"}:
        known = {name.rsplit(".", 1)[-1]: name for name in choices}
        near = suggest(target, choices) or suggest(target.rsplit(".", 1)[-1], known)
        hint = near or f"choose one of {', '.join(sorted(choices))}."
        raise MatineeError(f"{full_key}={target} is not allowed there; {hint}")
    if top in sys.stdlib_module_names | TOOLS:
        raise MatineeError(
            f"{full_key}={target} is not allowed to be called from a config; name a part of matinee or "
            "of your own package."
        )
    raise MatineeError(
        f"{full_key}={target} is not allowed, because you have not allowed the package {top}; if you trust "
        f"all of its code, set {VARIABLE}={top} in the environment, or install it with the entry point "
        f"group {GROUP}."
    )


def targets_of(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the config path and the target of every node that has one."""
    if isinstance(tree, Mapping):
        if "_target_" in tree:
            yield path, tree["_target_"]
        for key, value in tree.items():
            yield from targets_of(value, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from targets_of(value, f"{path}.{number}")


def used_packages(tree: Any) -> dict[str, str | None]:
    """Return the packages of the user that the targets of a config are in, with their versions."""
    allowed = allowed_packages()
    used = {package_of(str(target), allowed) for _, target in targets_of(tree)}
    return {name: found for name, found in allowed.items() if name in used}


def _choices(path: str) -> set[str]:
    """Return the targets allowed at a path: those of its group; for an argument, all but :data:`APART`."""
    shipped = _shipped()
    group = group_of(path)
    if group in shipped:
        return shipped[group]
    return set().union(*(shipped[other] for other in shipped.keys() - APART))


@cache
def _shipped() -> dict[str, set[str]]:
    """Return the targets in matinee's own configs and those of libraries, by group."""
    found = {
        group: {f"{module}.{name}" for module, names in modules.items() for name in names.split()}
        for group, modules in LIBRARIES.items()
    }
    for file in sorted(config_dir().glob("*/*.yaml")):
        group = file.parent.name
        for path, target in targets_of(yaml.load(file.read_text(), Loader=Loader), group):
            found.setdefault(group_of(path), set()).add(target)
    found["source"] = found["dataset"]  # of a subset
    return found


def _locate(target: str, full_key: str) -> Any:
    """Import the longest prefix of a dotted name that is a module, and get the rest as attributes."""
    names = target.split(".")
    for length in range(len(names) - 1, 0, -1):
        module_name = ".".join(names[:length])
        try:
            found: Any = import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
                continue
            raise MatineeError(f"{full_key}={target} needs {error.name}; install it.") from error
        try:
            for name in names[length:]:
                found = getattr(found, name)
            return found
        except AttributeError:
            break
    raise MatineeError(f"{full_key}={target} cannot be found; correct its name.")
