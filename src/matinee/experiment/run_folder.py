"""The run folder, which records a run completely: where its files are, how to write and read them."""

import datetime
import json
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from matinee.config.checking import check_config
from matinee.config.targets import used_packages
from matinee.config.trees import check_plain, differences, flatten, parse_json, read_yaml
from matinee.contracts import Headline
from matinee.errors import AtWork, MatineeError, Refitted
from matinee.experiment.reading import read_text
from matinee.experiment.result_form import misfit
from matinee.files import plain_file, write_whole

CONFIG, OVERRIDES, PROTOCOL = "config.yaml", "overrides.yaml", "protocol.json"
RESULT, PER_USER, EVALUATION = "result.json", "per_user.npz", "evaluation.json"
METRICS = "metrics.csv"
OF_THE_PLACE = ("run_folder", "log_dir", "name", "trainer.accelerator", "trainer.devices")


def claim_folder(wanted: str | None, parent: Path) -> Path:
    """Create a folder for one run.

    Args:
        wanted: The requested folder, which must be empty or missing; None names it by the time.
        parent: The parent of a folder that is named by the time.

    Raises:
        MatineeError: If the folder is taken or cannot be created.
    """
    if wanted is not None:
        folder = Path(wanted)
        if folder.is_dir() and any(folder.iterdir()):
            begun, claimed = has_begun(folder), (folder / CONFIG).is_file()
            hint = f", or go on with it: matinee train resume={folder}" * begun
            hint = hint or ", or add resume=true if its run was killed" * claimed
            raise MatineeError(f"run_folder={folder} is not empty; name another{hint}.")
        candidates = [folder]
    else:
        stem = parent / datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        candidates = [stem, *(stem.with_name(f"{stem.name}_{n}") for n in range(1, 1000))]
    for folder in candidates:
        try:
            folder.mkdir(parents=True, exist_ok=wanted is not None)
        except FileExistsError:
            continue
        except OSError as error:
            raise MatineeError(
                f"the run folder {folder} cannot be made ({error}); set run_folder=..."
            ) from error
        try:
            (folder / CONFIG).open("x").close()  # only one of two runs at once succeeds
        except OSError as error:
            raise MatineeError(
                f"the run folder {folder} is taken or not writable ({error}); set run_folder=..."
            ) from error
        return folder
    raise MatineeError(f"{candidates[0]} is taken and no folder; set run_folder=...")


def has_begun(folder: Path) -> bool:
    """Return whether a folder holds a run that has begun: its config is written after the other files."""
    path = plain_file(folder, CONFIG)
    return path.is_file() and path.stat().st_size > 0


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Lock a run folder for this process; the lock ends with the process.

    Raises:
        AtWork: If another process works on the folder.
        MatineeError: If the parent folder cannot be written.
    """
    path = folder.resolve()
    lock = FileLock(_lock_path(folder), blocking=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise AtWork(f"another process is at work on {folder}; wait for it.") from error
    except OSError as error:
        raise MatineeError(
            f"{path.parent} cannot be written ({error}); set run_folder=..."
        ) from error
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(
            missing_ok=True
        )  # filelock notices if another process has opened it
        lock.release()


def remove_lock(folder: Path) -> None:
    """Remove the lock that a killed process has left; it locks nothing."""
    if _lock_path(folder).exists():
        with suppress(MatineeError), sole_writer(folder):
            pass


def _lock_path(folder: Path) -> Path:
    path = folder.resolve()
    return path.with_name(f".{path.name}.lock")


def check_same(folder: Path, config: DictConfig) -> None:
    """Reject a run folder whose run has another config; place, name and device may differ.

    Raises:
        MatineeError: For the first key that differs.
    """
    here: Any = OmegaConf.to_container(config)
    there: Any = OmegaConf.to_container(load_config(folder))
    known = flatten(there)
    empty = tuple(f"{key}." for key, value in known.items() if value in (None, {}))
    options = {k: v for k, v in flatten(here).items() if k in known or k.startswith(empty)}
    for key, recorded, wanted in differences(known, options):
        if key not in OF_THE_PLACE:
            raise MatineeError(
                f"{folder} holds a run with {key}={recorded}, not {wanted}; name another folder."
            )


def check_protocol(folder: Path, now: Mapping[str, Any]) -> None:
    """Reject data, a split or rules of evaluation that have changed since a run began.

    Args:
        folder: The run folder.
        now: The protocol of the current data.

    Raises:
        MatineeError: For the first change, or if ``protocol.json`` is missing or broken.
    """
    path = folder / PROTOCOL
    try:
        began: dict[str, Any] = parse_json(read_text(folder, PROTOCOL) or "")
        recorded = str(began["dataset"]["sha256"]), str(began["split"]["fingerprint"])
    except (ValueError, KeyError, TypeError) as error:
        raise MatineeError(f"{path} is missing or broken; restore it or train again.") from error
    found = now["dataset"]["sha256"], now["split"]["fingerprint"]
    for what, then, here in zip(("data", "split"), recorded, found, strict=True):
        if then != here:
            raise MatineeError(
                f"the {what} of {folder} have changed since it began (SHA-256 {then[:12]}... then, "
                f"{here[:12]}... now); restore them or train again."
            )
    for key, here in json.loads(json.dumps(now)).items():
        if began.get(key) != here:
            raise MatineeError(
                f"the {key} of {folder} have changed since it began ({began.get(key)} then, {here} "
                "now); restore its config.yaml or train again."
            )


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically."""
    write_whole(path, lambda file: file.write((json.dumps(content, indent=2) + "\n").encode()))


def write_yaml(path: Path, content: Any) -> None:
    """Write a config or a list as YAML, atomically."""
    text = OmegaConf.to_yaml(content).encode()
    write_whole(path, lambda file: file.write(text))


def asked_folder(run: Any) -> Path:
    """Return the folder that ``run=...`` names.

    Raises:
        MatineeError: If it is no name, or the folder holds no run.
    """
    if not isinstance(run, str | int) or isinstance(run, bool) or not str(run).strip():
        raise MatineeError(f"run is {run!r}; name a run folder that train printed.")
    folder = Path(str(run))
    read_config(folder)
    return folder


def load_config(folder: Path) -> DictConfig:
    """Read and check the config of a run folder, which may have been moved, to build its parts.

    Raises:
        MatineeError: If the folder holds no run, or its config is broken or not allowed.
    """
    config = read_config(folder)
    config.run_folder = str(folder)
    try:
        return check_config(config, "train")
    except MatineeError as error:
        raise MatineeError(f"{folder / CONFIG} cannot be used: {error}") from error


def read_config(folder: Path, text: str | None = None) -> DictConfig:
    """Read the config of a run folder without checking it; build nothing from it.

    Args:
        folder: The run folder.
        text: The content of ``config.yaml``, if it is already known.

    Raises:
        MatineeError: If the folder holds no run or its config is broken or holds an interpolation.
    """
    path = folder / CONFIG
    if text is None:
        text = read_text(folder, CONFIG)
    if text is None:
        raise MatineeError(
            f"{folder} is no run folder: {path} is missing; name one that train printed."
        )
    if not text:
        raise MatineeError(
            f"{path} is empty, because the run was killed before it began; repeat its command with "
            f"run_folder={folder} resume=true."
        )
    tree = read_yaml(path, text)
    if not isinstance(tree, dict) or not tree:
        raise MatineeError(f"{path} is no config; restore it or train again.")
    try:
        check_plain(tree)
    except MatineeError as error:
        raise MatineeError(f"{path} cannot be used: {error}") from error
    return OmegaConf.create(tree)


def read_record(folder: Path, text: str | None = None) -> dict[str, Any]:
    """Read the ``result.json`` of a run folder, which holds no metrics if the run was refitted.

    Args:
        folder: The run folder.
        text: The content of the file, if it is already known.

    Raises:
        MatineeError: If the run has not finished, or the file is broken or holds metrics that are
            not finite numbers.
    """
    path = folder / RESULT
    if text is None:
        text = read_text(folder, RESULT)
    if text is None:
        raise MatineeError(
            f"{folder} holds no {RESULT}: finish it with 'matinee train resume={folder}'."
        )
    try:
        result: dict[str, Any] = parse_json(text)
    except ValueError as error:
        raise MatineeError(f"{path} is no JSON ({error}); restore it or train again.") from error
    if found := misfit(result):
        raise MatineeError(f"{path} is no result of a run ({found}); restore it or train again.")
    return result


def read_result(folder: Path, text: str | None = None) -> dict[str, Any]:
    """Read the ``result.json`` of a run folder, see :func:`read_record`, with metrics.

    Raises:
        Refitted: If the run was trained on all of its data and has no metrics of its own.
    """
    result = read_record(folder, text)
    if not result["metrics"]:
        raise Refitted(
            f"{folder} was refitted on all of its data, so it has no metrics of its own; report those of "
            f"{result['parent']['run']}."
        )
    return result


def headline_of(result: Mapping[str, Any]) -> Headline:
    """Return the headline metric that a result records."""
    recorded = result["headline"]
    return Headline(recorded["metric"], recorded["higher_is_better"], recorded.get("power") or 1)


def environment(config: DictConfig) -> dict[str, Any]:
    """Return the environment that a result was made in.

    Args:
        config: The config of the run, whose own packages are named, too.

    Returns:
        Versions, platform, threads and, in a checkout, the commit of the code.
    """
    packages = ("matinee", "torch", "lightning", "hydra-core", "numpy", "pandas")
    return {
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
            **used_packages(OmegaConf.to_container(config)),
        },
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "commit": _commit(),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str | None:
    source = Path(__file__).resolve().parents[3]
    if not (source / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty"],
            cwd=source, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
