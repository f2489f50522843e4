"""Composing: a verb is run over every config that its arguments compose, by Hydra."""

import os
import sys
from collections.abc import Callable
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from matinee.config.checking import check_config, config_dir, dotted_keys, explain
from matinee.errors import MatineeError, Stopped

IN_PROCESS = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"  # other launchers pickle


def with_config(verb: str, argv: list[str], task: Callable[[Any], None]) -> None:
    """Compose ``configs/VERB.yaml`` with the overrides and hand every config to ``task``.

    Args:
        verb: The verb, whose name stands in what Hydra prints.
        argv: The overrides, and options of Hydra.
        task: What is done with a config; of a multirun it is called for every run, and the others go on
            when one fails.

    Raises:
        MatineeError: If a config cannot be composed or a task has failed.
        Stopped: If a signal ended a task; no other one is begun.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come here instead of being printed by Hydra
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # tables of several runs share lines
    multirun = [entry for entry in argv if entry in ("-m", "--multirun")]
    argv = [*multirun[:1], *(entry for entry in argv if entry not in multirun)]
    called_as, sys.argv = sys.argv, [f"matinee {verb}", *argv]
    failures: list[MatineeError] = []
    stopped: list[Stopped] = []
    composed = False

    def run(config: Any) -> None:
        nonlocal composed
        composed = True
        sys.argv = called_as  # processes of a distributed run are started by it
        elsewhere = HydraConfig.get().launcher._target_ != IN_PROCESS
        try:
            if elsewhere and verb != "train":
                raise MatineeError(f"{verb} takes no hydra/launcher=...; only train does.")
            check_config(config, verb)
            task(config)
        except (MatineeError, HydraException, OmegaConfBaseException) as error:
            failure = error if isinstance(error, MatineeError) else MatineeError(explain(error))
            failures.append(failure)  # the other runs of a multirun go on
            if multirun:
                words = " ".join(HydraConfig.get().overrides.task)
                print(f"matinee: {words}: {failure}", file=sys.stderr, flush=True)
                if elsewhere:  # the list is a copy; Hydra brings what is raised
                    raise MatineeError(f"{words}: {failure}") from error
        except Stopped as stop:
            stopped.append(stop)  # Hydra would print its own words
            if multirun:
                raise SystemExit from stop  # after an Exception Hydra goes on with the other runs

    try:
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=verb)(run)()
    except (
        MatineeError,
        Stopped,
        BrokenPipeError,
    ):  # of a run in another process, or of our reader
        raise
    except SystemExit:
        if not stopped:
            raise
    except (HydraException, OmegaConfBaseException) as error:
        raise MatineeError(explain(error, _known_keys(verb))) from error
    except Exception as error:  # of many kinds, for configs that are no configs
        launched = any(entry.startswith("hydra/launcher=") for entry in argv)
        if launched and isinstance(error, ConnectionError):
            raise MatineeError(f"the launcher finds no cluster: {error}") from error
        if composed or launched:
            raise
        raise MatineeError(f"the config cannot be composed: {error}") from error
    finally:
        sys.argv = called_as
    if stopped:
        raise stopped[0]
    if multirun and failures:
        raise MatineeError(f"{len(failures)} of the runs failed, see above.")
    if failures:
        raise failures[0]


def _known_keys(verb: str) -> list[str]:
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        return dotted_keys(hydra.compose(verb))
