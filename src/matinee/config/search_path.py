"""Search path: where Hydra looks for configs, and checks of the files that are not matinee's own.

Hydra looks in matinee's own folder first, then in the folders ``configs`` of allowed packages, then in the
folders of ``--config-dir`` and ``hydra.searchpath``. A file of the latter two kinds has a limited size. It
must not configure Hydra, which would run code before any check, and must not set where a run or its data
are written.
"""

import math
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any

from hydra._internal.core_plugins import file_config_source
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin

from matinee.config.folders import config_dir, config_folders
from matinee.config.trees import check_interpolations, leaves, read_yaml
from matinee.errors import MatineeError

PLACES = {"log_dir", "run_folder"}  # keys for the command line only
MAX_INCLUDED = 1000  # configs that a file includes, directly or through others


class OwnConfigs(SearchPathPlugin):
    """Appends the folders of allowed packages to the search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folders.

        Raises:
            MatineeError: If two of them have a config of the same name.
        """
        folders = config_folders()
        for first, second in combinations(folders, 2):
            _refuse_equal_names(second, first, f"{first}")
        for folder in folders:
            search_path.append("matinee.parts", f"file://{folder}")


class FileConfigSource(file_config_source.FileConfigSource):
    """Loads configs from a folder, and checks those that are not matinee's own before.

    Raises:
        MatineeError: If a file has the name of a config of matinee, which Hydra would use instead.
    """

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        self.ours = Path(self.path).resolve() == config_dir().resolve()
        if not self.ours:
            _refuse_equal_names(Path(self.path), config_dir(), "matinee")
        self._sizes: dict[str, float] = {}

    def load_config(self, config_path: str) -> ConfigResult:
        """Load one file.

        Raises:
            MatineeError: If it is too large, sets what only the command line may set, or holds an
                interpolation that is not allowed.
        """
        if self.ours:
            return super().load_config(config_path)
        file = Path(self.path) / self._normalize_file_name(config_path)
        tree = read_yaml(file)
        try:
            check_interpolations(tree)
        except MatineeError as error:
            raise MatineeError(f"in {file}, {error}") from error
        if self._num_included(config_path) > MAX_INCLUDED:
            raise MatineeError(
                f"{file} includes more than {MAX_INCLUDED:,} configs, or itself; correct its defaults."
            )
        found = super().load_config(config_path)
        places = [config_path, found.header["package"] or "", *_default_groups(tree)]
        if "hydra" in tree or any("hydra" in re.split(r"\W", place) for place in places):
            raise MatineeError(
                f"{file} configures Hydra, which only the command line may do; remove hydra from it."
            )
        named = PLACES & ({*tree} | {*places})
        named |= {path for path, value in leaves(tree) if _is_data_dir(path) and value is not None}
        if named:
            raise MatineeError(
                f"{file} sets {min(named)}, which only the command line may do; remove it."
            )
        return found

    def _num_included(self, name: str) -> float:
        """Count the configs of this folder that one includes through any others, with repeats."""
        file = Path(self.path) / self._normalize_file_name(name)
        if name in self._sizes or not file.is_file():
            return self._sizes.get(name, 0)
        self._sizes[name] = math.inf  # if it includes itself
        inner = list(_included(read_yaml(file), PurePosixPath(name).parent))
        self._sizes[name] = len(inner) + sum(map(self._num_included, inner))
        return self._sizes[name]


def check_own_configs() -> None:
    """Make Hydra search the folders of allowed packages, and check files that are not matinee's own."""
    plugins = Plugins.instance()
    plugins.register(OwnConfigs)
    # where a launcher starts workers, Hydra registers its own class again; one of the same name stays
    SourcesRegistry.instance().types["file"] = FileConfigSource


def _is_data_dir(path: str) -> bool:
    return path.rsplit(".", 1)[-1] == "data_dir"


def _default_groups(tree: Any) -> list[str]:
    """Return the groups, packages and files in the defaults list of a config."""
    defaults = tree.get("defaults") if isinstance(tree, dict) else None
    entries = defaults if isinstance(defaults, list) else []
    return [
        str(word) for entry in entries for word in (entry if isinstance(entry, dict) else [entry])
    ]


def _included(tree: Any, group: PurePosixPath) -> Iterator[str]:
    """Yield the names of the configs in the defaults list of a config of a group."""
    defaults = tree.get("defaults") if isinstance(tree, dict) else None
    for entry in defaults if isinstance(defaults, list) else []:
        for key, chosen in entry.items() if isinstance(entry, dict) else [("", entry)]:
            place = re.sub(r"^(optional |override )*|@.*$", "", str(key))
            for name in chosen if isinstance(chosen, list) else [chosen]:
                whole = "/".join(filter(None, [place, re.sub("@.*$", "", str(name))]))
                yield whole[1:] if whole.startswith("/") else str(group / whole)


def _refuse_equal_names(folder: Path, other: Path, owner: str) -> None:
    for path in other.rglob("*.yaml"):
        name = path.relative_to(other)
        if (folder / name).is_file():
            raise MatineeError(
                f"{folder / name} has the name of a config of {owner}, which Hydra finds first; rename it."
            )
