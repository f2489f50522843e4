"""The command line: ``matinee VERB [overrides]``.

Only the standard library is imported before the verb is known, and PyTorch only once there is work.
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matinee import __version__
from matinee.errors import MatineeError

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
  matinee train experiment=chronological/ncf       one of the experiments behind our figures
  matinee train -m experiment=chronological/mf seed=0,1,2
  matinee recommend run=lightning_logs/...         the folder that train printed last

  matinee VERB --help explains a verb and lists its choices.  matinee --version prints the version.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a user's mistake, 2 a wrong call, 143 terminated."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    verbs: dict[str, Callable[[list[str]], None]] = {
        "train": _train,
        "evaluate": _evaluate,
        "recommend": _recommend,
        "report": _report,
    }
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        sys.exit(0 if argv else 2)
    if argv[0] == "--version":
        print(f"matinee {__version__}")
        sys.exit(0)
    verb, *rest = argv
    if verb not in verbs:
        import difflib

        near = difflib.get_close_matches(verb, verbs, n=1) or ["--help"]
        _fail(f"there is no verb {verb!r}; try 'matinee {near[0]}'.", status=2)
    try:
        verbs[verb](rest)
    except MatineeError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted.", status=130)


def _fail(sentence: str, status: int = 1) -> None:
    print(f"matinee: {sentence}", file=sys.stderr)
    sys.exit(status)


def _train(argv: list[str]) -> None:
    resumed = [
        argument.removeprefix("resume=") for argument in argv if argument.startswith("resume=")
    ]
    if resumed:
        if len(argv) > 1:
            raise MatineeError(
                "resume=FOLDER goes on with the run's own config; leave other overrides out."
            )
        from matinee import experiment
        from matinee.report import print_run

        print_run(_until_terminated(experiment.resume, Path(resumed[0])))
        return
    _with_config("train", argv, _train_one)


def _train_one(config: Any) -> None:
    from hydra.core.hydra_config import HydraConfig

    from matinee import experiment
    from matinee.report import print_run

    hydra = HydraConfig.get()
    choices = dict(hydra.runtime.choices)
    if config.name is None:
        config.name = choices["experiment"] or "/".join(
            choices[g] for g in ("dataset", "split", "model")
        )
    folder = _until_terminated(experiment.train, config, list(hydra.overrides.task))
    print_run(folder)


def _evaluate(argv: list[str]) -> None:
    def run(config: Any) -> None:
        from matinee import experiment
        from matinee.report import print_evaluation
        from matinee.run_folder import read_result

        folder = Path(config.run)
        loaded = experiment.load_run(folder, config.checkpoint)
        loaded.config.trainer = config.trainer
        metrics, _ = experiment.evaluate(loaded, experiment.make_trainer(loaded.config, None))
        recorded = read_result(folder)["metrics"]
        same = print_evaluation(metrics, recorded)
        if config.checkpoint == "best" and not same:
            raise MatineeError(
                f"the figures of {folder} are not those recorded in its result.json."
            )

    _with_config("evaluate", argv, run)


def _recommend(argv: list[str]) -> None:
    def run(config: Any) -> None:
        from matinee.recommendation import answer
        from matinee.report import print_table

        print_table(
            answer(config).map(lambda cell: f"{cell:.3f}" if isinstance(cell, float) else cell)
        )

    _with_config("recommend", argv, run)


def _report(argv: list[str]) -> None:
    from matinee.report import report

    if any(argument in ("-h", "--help") for argument in argv):
        print("matinee report FOLDER... - one table of all finished runs below the folders\n")
        print("Seeds of one experiment are aggregated (mean and standard deviation). Figures that")
        print("another work has published for the same data and split stand beside ours.")
        return
    print(report([Path(argument) for argument in argv or ["lightning_logs"]]))


def _until_terminated(function: Callable[..., Path], *arguments: Any) -> Path:
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    try:
        return function(*arguments)
    except SIGTERMException:
        _fail(
            "terminated; the run was saved, go on with 'matinee train resume=FOLDER'.", status=143
        )
        raise


def _with_config(verb: str, argv: list[str], task: Callable[[Any], None]) -> None:
    """Compose ``configs/VERB.yaml`` with the overrides and hand it to ``task``."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from matinee.configuration import config_dir, explain

    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come here instead of being printed by Hydra
    sys.argv = [f"matinee {verb}", *argv]
    failures: list[MatineeError] = []

    def run(config: Any) -> None:
        try:
            task(config)
        except MatineeError as error:  # the other runs of a multirun go on
            failures.append(error)
            if "-m" in argv or "--multirun" in argv:
                print(f"matinee: {error}", file=sys.stderr)

    try:
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=verb)(run)()
    except (HydraException, OmegaConfBaseException) as error:
        raise MatineeError(explain(error, _known_keys(verb))) from error
    if failures:
        raise (
            failures[0]
            if len(failures) == 1
            else MatineeError(f"{len(failures)} runs failed, see above.")
        )


def _known_keys(verb: str) -> list[str]:
    from hydra import compose, initialize_config_dir

    from matinee.configuration import config_dir, dotted_keys

    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return dotted_keys(compose(verb))
