"""Parts: the objects that a config describes.

Networks, losses and readers do not know about configs; their errors name their own parameters. Each part
made here knows the config path of its node, so ``ValueError("dropout is 2; give a share in [0, 1).")``
raised by an encoder is reported as ``model.encoder.dropout is 2; ...``.
"""

import inspect
import re
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from omegaconf import DictConfig, OmegaConf

from matinee.config.targets import find_target
from matinee.config.trees import check_plain
from matinee.errors import MatineeError

REFUSALS = (ValueError, TypeError, ArithmeticError, RuntimeError, OSError, ImportError)
ABOUT_A_PARAMETER = re.compile(r"(\w+)[\w.\[\]]*(?= is | are | must | holds |=)")


class Part(partial[Any]):
    """A class or function with some of its arguments, and the config path of its node.

    Calling it raises :class:`matinee.errors.MatineeError` if the class or function rejects a value.
    """

    path: str

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call with the remaining arguments."""
        with blame(self.path, _parameters(self.func)):
            return super().__call__(*args, **kwargs)


def make_part(config: DictConfig, group: str) -> Any:
    """Make the object that a group of a config describes.

    Args:
        config: A checked config.
        group: One of its top-level keys.

    Returns:
        The object, a :class:`Part` that makes it from further arguments (``_partial_: true``), a dictionary
        of objects (callbacks, loggers), or None if the group is empty.

    Raises:
        MatineeError: If a target is not allowed or rejects a value.
    """
    node = OmegaConf.to_container(config).get(group)  # type: ignore[union-attr]
    check_plain({group: node})
    return make(node, group) if node else None


def make(node: Any, path: str) -> Any:
    """Make the object that a node describes, inner nodes first; ``path`` is the config path of the node."""
    if isinstance(node, list):
        return [make(item, f"{path}.{number}") for number, item in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    arguments = {
        str(key): make(value, f"{path}.{key}")
        for key, value in node.items()
        if key not in ("_target_", "_partial_")
    }
    if "_target_" not in node:
        return arguments
    part = Part(find_target(node["_target_"], path), **arguments)
    part.path = path
    return part if node.get("_partial_") else part()


@contextmanager
def blame(path: str, parameters: Container[str] = ()) -> Iterator[None]:
    """Report a rejected value as a user error, with its config path.

    Args:
        path: The config path of the part.
        parameters: The parameters of the part. A message that begins with one of them is prefixed with
            the path.

    Raises:
        MatineeError: In place of an error about a value.
    """
    try:
        yield
    except (*REFUSALS, MatineeError) as error:
        kind = type(error) if isinstance(error, MatineeError) else MatineeError
        if isinstance(error, MatineeError) and error.located:
            raise
        message = str(error) or type(error).__name__
        named = ABOUT_A_PARAMETER.match(message)
        if named and named[1] in parameters:
            located = kind(f"{path}.{message}")
            located.located = True
            raise located from error
        if isinstance(error, MatineeError):
            raise
        raise MatineeError(f"{path} cannot be built: {message}") from error


def _parameters(function: Callable[..., Any]) -> Container[str]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # a function written in C may have no signature
        return ()
