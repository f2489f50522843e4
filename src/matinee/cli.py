"""The command line: ``matinee VERB [overrides]``.

Only the standard library is imported before the verb is known, and PyTorch only once there is work.
"""

import argparse
import difflib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from matinee import __version__
from matinee.errors import MatineeError, Stopped

IN_PROCESS = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"  # other launchers pickle

HELP = """\
matinee - rating prediction and next-item recommendation: train, compare, trust, repeat

Usage:
  matinee VERB [group=choice] [key=value] ...

Verbs:
  train      fit one model, choose its best epoch on validation, measure it once on test
  overfit    show that a model can learn one small batch by heart
  find-lr    suggest a learning rate, by a range test
  evaluate   measure a finished run again, by the code that measured it first
  recommend  the best new items for a user, known or new
  report     the tables of several runs, what differs for sure, and a page with figures
  search     many runs over a space of hyperparameters; goes on where it was stopped

Start here:
  matinee train                                    a factorization of MovieLens 100K, ratings in time order
  matinee train experiment=user_based/gru          one of the experiments behind our figures
  matinee train -m experiment=chronological/mf seed=0,1,2
  matinee recommend run=lightning_logs/...         the folder that train printed last

  matinee VERB --help explains a verb and lists its choices.  matinee --version prints the version.
"""

REPORT = """\
The tables of all finished runs below the folders: one for each protocol, for figures with other
data, splits or rules do not belong in one column.

Seeds of one experiment are aggregated (mean and standard deviation); of two runs of one seed the
later one counts. Figures that others have published for the same data and split stand beside
ours. A second table compares each model with the best on validation: the difference on test, an
interval from resampled users, and a signed-rank test.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    The status is 0 when done, 1 for a mistake, 2 for a call of no verb, 130 and 143 when a signal
    ended a fit, 141 when the reader of the output is gone.
    """
    os.environ.setdefault(
        "TORCH_DEVICE_BACKEND_AUTOLOAD", "0"
    )  # accelerators.py loads it, and says why not
    argv = list(sys.argv[1:] if arguments is None else arguments)
    verbs: dict[str, Callable[[list[str]], None]] = {
        "train": _train,
        "overfit": _overfit,
        "find-lr": _find_lr,
        "evaluate": _evaluate,
        "recommend": _recommend,
        "report": _report,
        "search": _search,
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
    if resumed == ["true"]:
        argv = [entry for entry in argv if entry != "resume=true"]
        _with_config("train", argv, _train_or_resume_one)
        return
    if not resumed:
        _with_config("train", argv, _train_one)
        return
    if len(argv) > 1:
        raise MatineeError(
            "resume=FOLDER goes on with the run's own config; leave other overrides out."
        )
    from matinee import experiment
    from matinee.report.printing import print_run
    from matinee.run_folder import RESULT

    folder = Path(resumed[0])
    if (folder / RESULT).exists():
        print(f"{folder} has finished already; nothing is left to do.", file=sys.stderr)
    print_run(experiment.resume(folder))


def _train_one(config: Any) -> None:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from matinee import experiment
    from matinee.fitting import several_processes
    from matinee.report.printing import print_run

    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN and several_processes(config):
        _train_apart(list(hydra.overrides.task))
        return
    print_run(experiment.train(config, _name_run(config)))


def _train_or_resume_one(config: Any) -> None:
    from matinee import experiment

    folder = experiment.train_or_resume(config, _name_run(config))
    if folder is None:
        print(f"{config.run_folder} is left to the process that works on it.", file=sys.stderr)
    else:
        print(folder)


def _name_run(config: Any) -> list[str]:
    """Give a run its name, if it has none, and return the overrides that composed it."""
    from hydra.core.hydra_config import HydraConfig

    from matinee.configuration import run_name

    hydra = HydraConfig.get()
    choices, overrides = dict(hydra.runtime.choices), list(hydra.overrides.task)
    if config.name is None:
        config.name = run_name(choices, overrides)
    return overrides


def _overfit(argv: list[str]) -> None:
    def run(config: Any, rows: list[dict[str, str]], folders: list[Path]) -> None:
        from hydra.core.hydra_config import HydraConfig

        from matinee.overfit import overfit, record, row

        _name_run(config)
        result = overfit(config, HydraConfig.get().runtime.choices.get("loss"))
        folders.append(record(config, result))
        rows.append(row(config, result))
        if not result.passed:
            raise MatineeError(f"{config.name} did not learn its batch by heart; see the table.")

    _with_table("overfit", argv, run)


def _find_lr(argv: list[str]) -> None:
    def run(config: Any, rows: list[dict[str, str]], folders: list[Path]) -> None:
        from matinee import experiment
        from matinee.learning_rate import OWN_KEYS, range_test, record, row, training_config

        overrides = [entry for entry in _name_run(config) if entry.split("=")[0] not in OWN_KEYS]
        result = range_test(config)
        folders.append(record(config, result))
        rows.append(row(config, result))
        if result.suggestion is None:
            raise MatineeError(
                f"no learning rate from {config.min_lr:g} to {config.max_lr:g} lowers the loss of "
                f"{config.name} clearly (see {folders[-1]}); widen the range, take more steps or "
                "larger batches."
            )
        if config.train:
            overrides.append(f"optimizer.lr={result.suggestion:g}")
            print(f"{config.name}: {overrides[-1]} is suggested, training", file=sys.stderr)
            folders.append(experiment.train(training_config(config, result.suggestion), overrides))

    _with_table("find-lr", argv, run)


def _with_table(
    verb: str, argv: list[str], task: Callable[[Any, list[dict[str, str]], list[Path]], None]
) -> None:
    """Run ``task`` for every config, then print one table of all the rows, and the folders."""
    rows: list[dict[str, str]] = []
    folders: list[Path] = []
    try:
        _with_config(verb, argv, lambda config: task(config, rows, folders))
    finally:
        if rows:
            import pandas as pd

            from matinee.markdown import print_table
            from matinee.report.printing import print_run
            from matinee.run_folder import RESULT

            print_table(pd.DataFrame(rows))
            for folder in folders:
                print_run(folder) if (folder / RESULT).is_file() else print(folder)


def _train_apart(overrides: list[str]) -> None:
    """Train one run of a multirun by a command of its own, which its other processes can repeat."""
    process = subprocess.Popen([sys.executable, "-m", "matinee", "train", *overrides])
    forward: dict[int, Any] = {
        signal.SIGINT: signal.SIG_IGN,  # a terminal sends it to both
        signal.SIGTERM: lambda number, frame: process.send_signal(number),
    }
    before = {number: signal.signal(number, handler) for number, handler in forward.items()}
    status = process.wait()
    for number, handler in before.items():
        signal.signal(number, handler)
    if status in (130, 143):
        sys.exit(status)
    if status:
        raise MatineeError(f"the run of {' '.join(overrides)} failed, see above.")


def _evaluate(argv: list[str]) -> None:
    def run(config: Any) -> None:
        from matinee.evaluation import evaluate_again

        evaluate_again(config)

    _with_config("evaluate", argv, run)


def _recommend(argv: list[str]) -> None:
    def run(config: Any) -> None:
        from matinee.markdown import print_table
        from matinee.recommendation import answer

        table = answer(config)
        print_table(table.map(lambda cell: f"{cell:.3f}" if isinstance(cell, float) else cell))

    _with_config("recommend", argv, run)


def _report(argv: list[str]) -> None:
    parser = _Parser(
        prog="matinee report",
        usage="matinee report [FOLDER...] [--save FOLDER] [--html FILE] or --by KEY FOLDER...",
        description=REPORT, allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "folders", nargs="*", type=Path, default=[Path("lightning_logs")], metavar="FOLDER",
        help="where the runs are, at any depth (lightning_logs)",
    )  # fmt: skip
    parser.add_argument(
        "--save", type=Path, metavar="FOLDER",
        help="write the tables to report.md and every figure to report.csv, one a row",
    )  # fmt: skip
    parser.add_argument(
        "--html", type=Path, metavar="FILE",
        help="write one page with tables, figures and curves; it needs no network",
    )  # fmt: skip
    parser.add_argument(
        "--by", metavar="KEY",
        help="only the runs of one model by a key that was swept, such as model.embedding_dim;\n"
        "table and figure are also written into the first folder, as by_KEY.csv, .md and .png",
    )  # fmt: skip
    asked = parser.parse_intermixed_args(argv)
    if asked.by is not None:
        from matinee.report.sweep import sweep

        if asked.save or asked.html:
            raise MatineeError("--by writes its files by itself; leave --save and --html out.")
        print(sweep(asked.folders, asked.by))
        return
    from matinee.report.reporting import report

    print(report(asked.folders, asked.save, asked.html))
    tables = [asked.save / "report.md", asked.save / "report.csv"] if asked.save else []
    for path in [*tables, *([asked.html] if asked.html else [])]:
        print(f"written: {path}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        _, _, option = message.partition("unrecognized arguments: ")
        if option:
            near = difflib.get_close_matches(option.split()[0], ("--save", "--html", "--by"), n=1)
            hint = f"; did you mean {near[0]}?" if near else "; see 'matinee report --help'."
            raise MatineeError(f"unknown option {option}{hint}")
        raise MatineeError(f"{message}; see 'matinee report --help'.")


def _search(argv: list[str]) -> None:
    from matinee.configuration import top_level

    of_train = {key for keys in top_level("train") for key in keys}
    of_train.difference_update(*top_level("search"))
    every_run = [entry for entry in argv if re.split(r"[.=@]", entry.lstrip("+~"))[0] in of_train]

    def run(config: Any) -> None:
        from matinee.search.searching import search

        search(config, every_run)

    _with_config("search", [entry for entry in argv if entry not in every_run], run)


def _with_config(verb: str, argv: list[str], task: Callable[[Any], None]) -> None:
    """Compose ``configs/VERB.yaml`` with the overrides and hand it to ``task``."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from matinee.configuration import check_config, config_dir, explain

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
    except (MatineeError, Stopped):  # of a run in another process, when all have ended
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
    from hydra import compose, initialize_config_dir

    from matinee.configuration import config_dir, dotted_keys

    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return dotted_keys(compose(verb))
