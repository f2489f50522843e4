"""Packages that the user allows, whose objects and configs a run may use.

The permission comes from the environment, never from a config: either an installed package declares
the entry point group ``matinee.parts``, or the variable ``MATINEE_PACKAGES`` names the package. Packages
in the variable are also found in the current folder.
"""

import os
import re
import sys
from collections.abc import Iterable
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import Any

from matinee.errors import MatineeError

GROUP = "matinee.parts"
VARIABLE = "MATINEE_PACKAGES"


class _CurrentFolder:
    """Finds the packages of ``MATINEE_PACKAGES`` in the current folder, and no other module there."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Find a top-level package or module if the variable names it."""
        if path is None and name in {allowed.split(".")[0] for allowed in _from_environment()}:
            return PathFinder.find_spec(name, [os.getcwd()])
        return None


def allowed_packages() -> dict[str, str | None]:
    """Return the packages that the user allows, in the order in which their configs are searched.

    Returns:
        The version by the name of the package or module; None if the package has no version.

    Raises:
        MatineeError: If ``MATINEE_PACKAGES`` holds something other than names.
    """
    found: dict[str, str | None] = {}
    for name in _from_environment():
        found[name] = _version(name.split(".")[0])
    found |= _from_entry_points(tuple(sys.path))
    if _CurrentFolder not in sys.meta_path:
        sys.meta_path.append(_CurrentFolder)
    return found


def package_of(target: str, packages: Iterable[str]) -> str | None:
    """Return the package of a dotted name; None if it is in none of the packages.

    >>> package_of("mylab.nets.Net", ["mylab"]), package_of("mylabour.Net", ["mylab"])
    ('mylab', None)
    """
    return next((name for name in packages if f"{target}.".startswith(f"{name}.")), None)


def _from_environment() -> list[str]:
    names = [name.strip() for name in os.environ.get(VARIABLE, "").split(",")]
    names = [name for name in names if name]
    for name in names:
        if not re.fullmatch(r"\w+(\.\w+)*", name):
            raise MatineeError(
                f"{VARIABLE} holds {name!r}; give the names of packages, separated by commas."
            )
    return names


@lru_cache(maxsize=1)
def _from_entry_points(path: tuple[str, ...]) -> dict[str, str | None]:
    """Return the packages that declare the entry point; ``path`` is ``sys.path``, the key of the cache."""
    points = entry_points(group=GROUP)
    return {point.module: point.dist.version if point.dist else None for point in points}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return getattr(sys.modules.get(package), "__version__", None)
