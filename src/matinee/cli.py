"""The command line: ``matinee VERB [overrides]``.

Until the verb is known, only the standard library is imported; PyTorch only when a verb needs it.
"""

import difflib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matinee import __version__
from matinee.errors import MatineeError, Stopped
from matinee.texts import visible

MOST_SHOWN = 2000  # characters of an error
HELP = """\
matinee - train and compare models for rating prediction and next-item recommendation

Usage:
  matinee VERB [group=choice] [key=value] ...

Verbs:
  train      train a model, select its best epoch on validation, evaluate it once on test
  overfit    check that a model can memorize one small batch
  find-lr    suggest a learning rate with a range test
  evaluate   evaluate a finished run again and compare with the recorded metrics
  refit      train the model of a finished run on all of its data
  recommend  recommend items to a user of the data, to a new user, or to many at once
  predict    predict the ratings of a file of users and items
  similar    list the items that are most like an item
  embeddings write the embeddings of items or users to a file
  report     compare runs: tables, significant differences, and an HTML page with figures
  search     search for better values of any keys; the same command continues a stopped search
  describe   describe a dataset before training, and report what looks wrong
  export     write a run as programs that answer without matinee
  serve      answer requests over HTTP, with a page to try the model

Start here:
  matinee train                                    matrix factorization of MovieLens 100K, split in time order
  matinee train experiment=user_based/gru          one of the experiments in the README
  matinee train -m experiment=chronological/mf seed=0,1,2
  matinee recommend run=lightning_logs/...         with the run folder that train printed last

  matinee VERB --help explains a verb and lists its choices.  matinee --version prints the version.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    The exit status is 0 for success, 1 for an error, 2 for an unknown verb, 130 or 143 after a signal, and
    141 if the reader of the output has closed it.
    """
    # training/devices.py loads NPU support itself, so that it can report why that fails
    os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    argv = list(sys.argv[1:] if arguments is None else arguments)
    verbs: dict[str, Callable[[list[str]], None]] = {
        "train": _train,
        "overfit": _overfit,
        "find-lr": _find_lr,
        "evaluate": _evaluate,
        "refit": _refit,
        "recommend": _recommend,
        "predict": _predict,
        "similar": _similar,
        "embeddings": _embeddings,
        "report": _report,
        "search": _search,
        "describe": _describe,
        "export": _export,
        "serve": _serve,
    }
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(
                errors="backslashreplace"
            )  # for titles that the terminal cannot encode
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
        for note in getattr(error, "__notes__", ()):
            print("\n".join(map(visible, note.splitlines())), file=sys.stderr)
        _fail(str(error))
    except Stopped as stopped:
        _fail(str(stopped), stopped.status)
    except KeyboardInterrupt:
        _fail("interrupted.", status=130)
    except BrokenPipeError:  # the reader of a pipe, such as head, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _fail(sentence: str, status: int = 1) -> None:
    words = visible(" ".join(sentence.split()))
    words = words if len(words) <= MOST_SHOWN else f"{words[:MOST_SHOWN]} ..."
    print(f"matinee: {words}", file=sys.stderr)
    sys.exit(status)


def _train(argv: list[str]) -> None:
    from matinee.config.composing import with_config

    resumed = [entry.removeprefix("resume=") for entry in argv if entry.startswith("resume=")]
    if resumed == ["true"]:
        argv = [entry for entry in argv if entry != "resume=true"]
        with_config("train", argv, lambda config: _train_one(config, resume=True))
        return
    if not resumed:
        with_config("train", argv, _train_one)
        return
    if len(argv) > 1:
        raise MatineeError("resume=FOLDER uses the config of the run; leave other overrides out.")
    if not resumed[0]:
        raise MatineeError("resume= names no folder; give a run folder that train printed.")
    from matinee.experiment import running
    from matinee.experiment.run_folder import RESULT
    from matinee.verbs.printing import print_run

    folder = Path(resumed[0])
    if (folder / RESULT).exists():
        print(f"{folder} has already finished; there is nothing to do.", file=sys.stderr)
    print_run(running.resume(folder))


def _train_one(config: Any, resume: bool = False) -> None:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from matinee.experiment import running
    from matinee.experiment.trainer import several_processes
    from matinee.training.processes import train_apart
    from matinee.verbs.printing import print_run

    hydra = HydraConfig.get()
    overrides = list(hydra.overrides.task)
    if hydra.mode == RunMode.MULTIRUN and several_processes(config):
        train_apart([*["resume=true"] * resume, *overrides])
        return
    if not resume:
        print_run(running.train(config, overrides))
    elif folder := running.train_or_resume(config, overrides):
        print(folder)
    else:
        print(f"another process works on {config.run_folder}; skipping it.", file=sys.stderr)


def _refit(argv: list[str]) -> None:
    def run(config: Any) -> None:
        from matinee.experiment.refitting import refit
        from matinee.verbs.printing import print_run

        print_run(refit(config.run, config.run_folder, config.log_dir, config.dataset))

    _ask("refit", argv, {"run": (str, "FOLDER")}, run)


def _overfit(argv: list[str]) -> None:
    def run(config: Any, rows: list[dict[str, str]], folders: list[Path]) -> None:
        from hydra.core.hydra_config import HydraConfig

        from matinee.verbs.overfit import overfit, record, row

        result = overfit(config, HydraConfig.get().runtime.choices.get("loss"))
        folders.append(record(config, result))
        rows.append(row(config, result))
        if not result.passed:
            raise MatineeError(f"{config.name} did not memorize its batch; see the table.")

    _with_table("overfit", argv, run)


def _find_lr(argv: list[str]) -> None:
    def run(config: Any, rows: list[dict[str, str]], folders: list[Path]) -> None:
        from hydra.core.hydra_config import HydraConfig

        from matinee.experiment import running
        from matinee.verbs.find_lr import OWN_KEYS, range_test, record, row, training_config

        given = HydraConfig.get().overrides.task
        overrides = [entry for entry in given if entry.split("=")[0] not in OWN_KEYS]
        result = range_test(config)
        folders.append(record(config, result))
        rows.append(row(config, result))
        if result.suggestion is None:
            raise MatineeError(
                f"no learning rate from {config.min_lr:g} to {config.max_lr:g} clearly lowers the loss of "
                f"{config.name} (see {folders[-1]}); widen the range, use more steps or larger batches."
            )
        if config.train:
            overrides.append(f"optimizer.lr={result.suggestion:g}")
            print(f"{config.name}: training with {overrides[-1]}", file=sys.stderr)
            folders.append(running.train(training_config(config, result.suggestion), overrides))

    _with_table("find-lr", argv, run)


def _with_table(
    verb: str, argv: list[str], task: Callable[[Any, list[dict[str, str]], list[Path]], None]
) -> None:
    """Run ``task`` for every config, then print one table of all rows, and the folders."""
    from matinee.config.composing import with_config

    rows: list[dict[str, str]] = []
    folders: list[Path] = []
    try:
        with_config(verb, argv, lambda config: task(config, rows, folders))
    finally:
        if rows:
            import pandas as pd

            from matinee.display.markdown import print_table
            from matinee.experiment.run_folder import RESULT
            from matinee.verbs.printing import print_run

            print_table(pd.DataFrame(rows))
            for folder in folders:
                print_run(folder) if (folder / RESULT).is_file() else print(folder)


def _evaluate(argv: list[str]) -> None:
    from matinee.config.composing import with_config
    from matinee.config.typed import take_typed

    values: dict[str, Any] = {}
    if not {"-m", "--multirun"} & set(argv):  # which separate several runs by commas
        argv, values = take_typed(argv, {"run": (str, "FOLDER")})

    def run(config: Any) -> None:
        from matinee.verbs.evaluate import evaluate_again

        for key, value in values.items():
            config[key] = value
        evaluate_again(config)

    with_config("evaluate", [*argv, *(f"{key}=typed" for key in values)], run)


def _recommend(argv: list[str]) -> None:
    from matinee.config import typed

    def run(config: Any) -> None:
        from matinee.verbs.recommend import answer

        _print_answer(answer(config))

    parsers: dict[str, tuple[typed.Parser, str]] = {
        "run": (str, "FOLDER"),
        "user": (typed.word, "ID"),
        "history": (typed.words, "[ITEM, ...]"),
        "ratings": (typed.ratings, "{ITEM: RATING, ...}"),
        "users": (str, "all|FILE"),
        "histories": (str, "FILE"),
        "allow": (typed.words_or_file, "FILE|[ITEM, ...]"),
        "deny": (typed.words_or_file, "FILE|[ITEM, ...]"),
        "output": (str, "FILE"),
        "shard": (str, "i/n"),
    }
    _ask("recommend", argv, parsers, run)


def _predict(argv: list[str]) -> None:
    def run(config: Any) -> None:
        from matinee.verbs.predict import answer

        print(answer(config))

    files = {"run": (str, "FOLDER"), "pairs": (str, "FILE"), "output": (str, "FILE")}
    _ask("predict", argv, {**files, "shard": (str, "i/n")}, run)


def _similar(argv: list[str]) -> None:
    from matinee.config import typed

    def run(config: Any) -> None:
        from matinee.verbs.similar import answer

        _print_answer(answer(config))

    parsers: dict[str, tuple[typed.Parser, str]] = {
        "run": (str, "FOLDER"),
        "item": (typed.word, "ID"),
        "items": (str, "all|FILE"),
        "output": (str, "FILE"),
        "shard": (str, "i/n"),
    }
    _ask("similar", argv, parsers, run)


def _embeddings(argv: list[str]) -> None:
    def run(config: Any) -> None:
        from matinee.verbs.similar import export_embeddings

        print(export_embeddings(config))

    _ask("embeddings", argv, {"run": (str, "FOLDER"), "output": (str, "FILE")}, run)


def _ask(
    verb: str, argv: list[str], parsers: Mapping[str, Any], task: Callable[[Any], None]
) -> None:
    """Call ``task`` with the config of a verb, some of whose values are what was typed."""
    from matinee.config import typed
    from matinee.config.composing import with_config

    argv, values = typed.take_typed(argv, parsers)
    arguments = [*argv, *(f"{key}=typed" for key in values)]
    with_config(verb, arguments, lambda config: task(typed.with_values(config, values)))


def _print_answer(found: Any) -> None:
    """Print a table, or the file that it was written to."""
    if isinstance(found, Path):
        print(found)
        return
    from matinee.display.markdown import print_table

    print_table(found.map(lambda cell: f"{cell:.3f}" if isinstance(cell, float) else cell))


def _describe(argv: list[str]) -> None:
    from matinee.config.composing import with_config

    if "--html" in argv[:-1]:  # as report takes it
        place = argv.index("--html")
        argv = [*argv[:place], f"html={argv[place + 1]}", *argv[place + 2 :]]

    def run(config: Any) -> None:
        from hydra.core.hydra_config import HydraConfig

        from matinee.verbs.describe import describe_dataset

        print(describe_dataset(config, HydraConfig.get().runtime.choices["dataset"]))

    with_config("describe", argv, run)


def _export(argv: list[str]) -> None:
    from matinee.config.composing import with_config
    from matinee.config.typed import take_typed

    argv, values = take_typed(argv, {"run": (str, "FOLDER"), "output": (str, "FOLDER")})

    def run(config: Any) -> None:
        from matinee.config.typed import with_values
        from matinee.display.markdown import print_table
        from matinee.verbs.export.command import export, parity_table

        options = with_values(config, values)
        print_table(parity_table(export(options)))
        print(options.output)

    with_config("export", [*argv, *(f"{key}=typed" for key in values)], run)


def _serve(argv: list[str]) -> None:
    from matinee.config.composing import with_config
    from matinee.config.typed import take_typed

    argv, values = take_typed(argv, {"run": (str, "FOLDER"), "artefact": (str, "FOLDER")})

    def run(config: Any) -> None:
        from matinee.config.typed import with_values
        from matinee.verbs.serve.command import serve

        serve(with_values(config, values))

    with_config("serve", [*argv, *(f"{key}=typed" for key in values)], run)


def _report(argv: list[str]) -> None:
    from matinee.verbs.report.command import run

    run(argv)


def _search(argv: list[str]) -> None:
    from matinee.config.checking import top_level
    from matinee.config.composing import with_config
    from matinee.config.typed import take_typed

    argv, values = take_typed(argv, {"over": (str, "{KEY: VALUES, ...}")})
    of_train = {"experiment", "encoder", *(key for keys in top_level("train") for key in keys)}
    of_train.difference_update(*top_level("search"))
    every_run = [entry for entry in argv if re.split(r"[.=@]", entry.lstrip("+~"))[0] in of_train]

    def run(config: Any) -> None:
        from matinee.verbs.search.command import search

        config.over = values.get("over")
        search(config, every_run)

    with_config("search", [entry for entry in argv if entry not in every_run], run)
