"""Parts: the objects that the groups of a config describe, made and called."""

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from matinee.errors import MatineeError


def make_part(config: DictConfig, group: str) -> Any:
    """Instantiate a group of a config; an empty one is None.

    Raises:
        MatineeError: If its target refuses a value.
    """
    node = config.get(group)
    return call_part(group, instantiate, node) if node else None


def call_part(group: str, function: Any, *args: Any, **kwargs: Any) -> Any:
    """Call, and tell a refused value as the user's mistake in ``group``."""
    try:
        return function(*args, **kwargs)
    except InstantiationException as error:
        cause = error.__cause__ or error
        raise cause if isinstance(cause, MatineeError) else _refused(group, cause) from error
    except (
        ValueError,
        TypeError,
        ArithmeticError,
        RuntimeError,
        OSError,
        MisconfigurationException,
    ) as error:
        raise _refused(group, error) from error


def _refused(group: str, error: BaseException) -> MatineeError:
    return MatineeError(f"{group} cannot be built: {error or type(error).__name__}")
