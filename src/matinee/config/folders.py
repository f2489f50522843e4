"""Folders of configs: that of matinee, and those of the packages that the user allows."""

import importlib.util
from pathlib import Path

from matinee.config.packages import GROUP, VARIABLE, allowed_packages
from matinee.errors import MatineeError


def config_dir() -> Path:
    """Return matinee's folder of configs: in the installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parents[1] / "configs"


def config_folders() -> list[Path]:
    """Return the folders ``configs`` of the allowed packages.

    Raises:
        MatineeError: If an allowed package cannot be found.
    """
    folders = []
    for name in allowed_packages():
        try:
            spec = importlib.util.find_spec(name)
        except ImportError:
            spec = None
        if spec is None:
            raise MatineeError(
                f"the package {name} is allowed ({VARIABLE} or the entry points {GROUP}) but is neither "
                "installed nor in the current folder; install it or correct the name."
            )
        places = [Path(place) / "configs" for place in spec.submodule_search_locations or ()]
        folders += [place for place in places if place.is_dir()][:1]
    return folders
