"""matinee: rating prediction and next-item recommendation with PyTorch Lightning and Hydra.

The command line is ``matinee``; the same from Python:

    import matinee

    run = matinee.train("experiment=random/mf_bias", "seed=1")  # a Run: its folder and its tables
    run.metrics(), run.history(), run.per_user()  # data frames
    model = matinee.load_run(run)  # data, split and the best weights
    matinee.recommend(model, user=42, top_k=5)

==================  ==================================================================================
``train``           train, evaluate and record one run; returns a ``Run``
``resume``          continue a run that was stopped
``refit``           train the model of a finished run on all of its data; returns a ``Run``
``Run``             a run folder, read as tables
``load_run``        rebuild data and model of a run folder and load its weights: an ``Experiment``
``evaluate``        evaluate an ``Experiment``
``recommend``       the best items for a user of the data, or for a new one
``predict_ratings`` predict ratings of pairs of users and items
``report``          tables of the runs below some folders, as Markdown
``compose``         compose and check a config without running it
``build``           make the objects that a config describes, an ``Experiment``, without training
``Experiment``      config, data and task
``Interactions``    validated interactions of users and items
``MatineeError``    raised for any error that you can fix
``Stopped``         raised when a signal ended a training that can be resumed
==================  ==================================================================================

These names are imported when they are first used, so that ``import matinee`` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matinee.config.composing import compose
    from matinee.data.interactions import Interactions
    from matinee.errors import MatineeError, Stopped
    from matinee.experiment.building import Experiment, build, load_run
    from matinee.experiment.runs import Run, evaluate, refit, resume, train
    from matinee.verbs.predict import predict_ratings
    from matinee.verbs.recommend import recommend
    from matinee.verbs.report.output import report

__version__ = "0.1.0"
__all__ = [
    "Experiment",
    "Interactions",
    "MatineeError",
    "Run",
    "Stopped",
    "build",
    "compose",
    "evaluate",
    "load_run",
    "predict_ratings",
    "recommend",
    "refit",
    "report",
    "resume",
    "train",
]
_HOMES = {
    "matinee.config.composing": ("compose",),
    "matinee.data.interactions": ("Interactions",),
    "matinee.errors": ("MatineeError", "Stopped"),
    "matinee.experiment.building": ("Experiment", "build", "load_run"),
    "matinee.experiment.runs": ("Run", "evaluate", "refit", "resume", "train"),
    "matinee.verbs.predict": ("predict_ratings",),
    "matinee.verbs.recommend": ("recommend",),
    "matinee.verbs.report.output": ("report",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'matinee' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
