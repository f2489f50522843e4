"""Search path: where Hydra looks for configs, and what may stand in configs that are not matinee's own.

Hydra looks in matinee's own folder first, then in the folders ``configs`` of allowed packages, then in
what ``--config-dir`` and ``hydra.searchpath`` name. A file that is found there is read within bounds and
may describe an experiment or a part of it, but neither configure Hydra, which would run what it
names before any check, nor say where a run is written.
"""

import re
from itertools import combinations
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin

from matinee.config.folders import config_dir, config_folders
from matinee.config.trees import check_interpolations, read_yaml
from matinee.errors import MatineeError

PLACES = {"log_dir", "run_folder"}  # keys that say where a run is written


class OwnConfigs(SearchPathPlugin):
    """Puts the folders of allowed packages behind matinee's own."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folders.

        Raises:
            MatineeError: If two of them have a file of the same name.
        """
        folders = config_folders()
        for first, second in combinations(folders, 2):
            _refuse_equal_names(second, first, f"{first}")
        for folder in folders:
            search_path.append("matinee.parts", f"file://{folder}")


class CheckedFiles(FileConfigSource):
    """Reads configs from a folder; those that are not matinee's own are checked before they are loaded.

    Raises:
        MatineeError: If a file has the name of one of matinee's, which Hydra would take instead of it.
    """

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        self.ours = Path(self.path).resolve() == config_dir().resolve()
        if not self.ours:
            _refuse_equal_names(Path(self.path), config_dir(), "matinee")

    def load_config(self, config_path: str) -> ConfigResult:
        """Load one file.

        Raises:
            MatineeError: If it is too large, sets what only the command line may, or holds an
                interpolation of a forbidden form.
        """
        if self.ours:
            return super().load_config(config_path)
        file = Path(self.path) / self._normalize_file_name(config_path)
        tree = read_yaml(file)
        try:
            check_interpolations(tree)
        except MatineeError as error:
            raise MatineeError(f"in {file}, {error}") from error
        found = super().load_config(config_path)
        places = [config_path, found.header["package"] or "", *_default_groups(tree)]
        if "hydra" in tree or any("hydra" in re.split(r"\W", place) for place in places):
            raise MatineeError(
                f"{file} configures Hydra, which only the command line may do; leave hydra out of it."
            )
        if named := PLACES & ({*tree} | {*places}):
            raise MatineeError(
                f"{file} sets {min(named)}, and only the command line says where a run is written; "
                "leave it out."
            )
        return found


def check_own_configs() -> None:
    """Make Hydra look into the folders of allowed packages and check the files that are not ours."""
    plugins = Plugins.instance()
    plugins.register(OwnConfigs)
    SourcesRegistry.instance().types["file"] = CheckedFiles


def _default_groups(tree: Any) -> list[str]:
    """Return what a file's defaults list names: groups with their packages, and files."""
    defaults = tree.get("defaults") if isinstance(tree, dict) else None
    entries = defaults if isinstance(defaults, list) else []
    return [
        str(word) for entry in entries for word in (entry if isinstance(entry, dict) else [entry])
    ]


def _refuse_equal_names(folder: Path, other: Path, owner: str) -> None:
    for path in other.rglob("*.yaml"):
        name = path.relative_to(other)
        if (folder / name).is_file():
            raise MatineeError(
                f"{folder / name} has the name of a config of {owner}, which is found first; rename it."
            )
