"""The command line: ``matinee VERB [overrides]``.

Only the standard library is imported before the verb is known, and PyTorch only once there is work.
"""

import difflib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matinee import __version__
from matinee.errors import MatineeError, Stopped

HELP = """\
matinee - rating prediction and next-item recommendation: train, compare, trust, repeat

Usage:
  matinee VERB [group=choice] [key=value] ...

Verbs:
  train      fit one model, choose its best epoch on validation, measure it once on test
  evaluate   measure a finished run again, by the code that measured it first
  recommend  the best new items for a user, known or new
  report     the table of several runs, beside the published figures

Start here:
  matinee train                                    a factorization of MovieLens 100K, ratings in time order
  matinee train experiment=user_based/gru          one of the experiments behind our figures
  matinee train -m experiment=chronological/mf seed=0,1,2
  matinee recommend run=lightning_logs/...         the folder that train printed last

  matinee VERB --help explains a verb and lists its choices.  matinee --version prints the version.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    The status is 0 when done, 1 for a mistake, 2 for a call of no verb, 130 and 143 when a signal
    ended a fit, 141 when the reader of the output is gone.
    """
    argv = list(sys.argv[1:] if arguments is None else arguments)
    verbs: dict[str, Callable[[list[str]], None]] = {
        "train": _train,
        "evaluate": _evaluate,
        "recommend": _recommend,
        "report": _report,
    }
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a title never breaks a terminal
    try:
        if not argv or argv[0] in ("-h", "--help", "help"):
            print(HELP, end="", flush=True)
            sys.exit(0 if argv else 2)
        if argv[0] == "--version":
            print(f"matinee {__version__}")
            sys.exit(0)
        verb, *rest = argv
        if verb not in verbs:
            near = difflib.get_close_matches(verb, verbs, n=1) or ["--help"]
            _fail(f"there is no verb {verb!r}; try 'matinee {near[0]}'.", status=2)
        verbs[verb](rest)
        sys.stdout.flush()
    except MatineeError as error:
        _fail(str(error))
    except Stopped as stopped:
        _fail(str(stopped), stopped.status)
    except KeyboardInterrupt:
        _fail("interrupted.", status=130)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _fail(sentence: str, status: int = 1) -> None:
    print(f"matinee: {' '.join(sentence.split())}", file=sys.stderr)
    sys.exit(status)


def _train(argv: list[str]) -> None:
    resumed = [entry.removeprefix("resume=") for entry in argv if entry.startswith("resume=")]
    if not resumed:
        _with_config("train", argv, _train_one)
        return
    if len(argv) > 1:
        raise MatineeError(
            "resume=FOLDER goes on with the run's own config; leave other overrides out."
        )
    from matinee import experiment
    from matinee.report import print_run
    from matinee.run_folder import RESULT

    folder = Path(resumed[0])
    if (folder / RESULT).exists():
        print(f"{folder} has finished already; nothing is left to do.", file=sys.stderr)
    print_run(experiment.resume(folder))


def _train_one(config: Any) -> None:
    from hydra.core.hydra_config import HydraConfig

    from matinee import experiment
    from matinee.configuration import run_name
    from matinee.report import print_run

    hydra = HydraConfig.get()
    choices, overrides = dict(hydra.runtime.choices), list(hydra.overrides.task)
    if config.name is None:
        config.name = run_name(choices, overrides)
    print_run(experiment.train(config, overrides))


def _evaluate(argv: list[str]) -> None:
    def run(config: Any) -> None:
        from matinee import experiment
        from matinee.fitting import make_trainer
        from matinee.report import print_evaluation
        from matinee.run_folder import read_result

        folder = Path(str(config.run))
        loaded = experiment.load_run(folder, config.checkpoint, config.segments)
        config.trainer.precision = loaded.config.trainer.get("precision", "32-true")
        loaded.config.trainer = config.trainer
        metrics, _ = experiment.evaluate(loaded, make_trainer(loaded.config, None))
        same = print_evaluation(metrics, read_result(folder)["metrics"])
        if config.checkpoint == "best" and not same:
            raise MatineeError(
                f"the figures of {folder} are not those recorded in its result.json."
            )

    _with_config("evaluate", argv, run)


def _recommend(argv: list[str]) -> None:
    def run(config: Any) -> None:
        from matinee.recommendation import answer
        from matinee.report import print_table

        table = answer(config)
        print_table(table.map(lambda cell: f"{cell:.3f}" if isinstance(cell, float) else cell))

    _with_config("recommend", argv, run)


def _report(argv: list[str]) -> None:
    if any(entry in ("-h", "--help") for entry in argv):
        print("matinee report [FOLDER...] - one table of all finished runs below the folders\n")
        print(
            "Without a folder, those below lightning_logs. Seeds of one experiment are aggregated"
        )
        print(
            "(mean and standard deviation); of two runs of one seed the later one counts. Figures"
        )
        print("that others have published for the same data and split stand beside ours.")
        return
    from matinee.report import report

    print(report([Path(entry) for entry in argv or ["lightning_logs"]]))


def _with_config(verb: str, argv: list[str], task: Callable[[Any], None]) -> None:
    """Compose ``configs/VERB.yaml`` with the overrides and hand it to ``task``."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from matinee.configuration import check_config, config_dir, explain

    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come here instead of being printed by Hydra
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
        try:
            check_config(config, verb)
            task(config)
        except (MatineeError, HydraException, OmegaConfBaseException) as error:
            failure = error if isinstance(error, MatineeError) else MatineeError(explain(error))
            failures.append(failure)  # the other runs of a multirun go on
            if multirun:
                words = " ".join(HydraConfig.get().overrides.task)
                print(f"matinee: {words}: {failure}", file=sys.stderr)
        except Stopped as stop:
            stopped.append(stop)  # Hydra would print its own words
            if multirun:
                raise

    try:
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=verb)(run)()
    except (HydraException, OmegaConfBaseException) as error:
        raise MatineeError(explain(error, _known_keys(verb))) from error
    except Exception as error:  # of many kinds, for configs that are no configs
        if composed:
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
    from hydra import compose, initialize_config_dir

    from matinee.configuration import config_dir, dotted_keys

    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return dotted_keys(compose(verb))
