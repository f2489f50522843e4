"""Guided search: Optuna proposes combinations (TPE) and ends trials below the median early.

Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011. The trials are stored in a
database, by default SQLite: a transaction is atomic even if its process is killed, whereas the lock of
Optuna's journal files outlives its process.
"""

import math
import socket
import sys
import time
from collections.abc import Sequence

import lightning.pytorch as pl
import optuna
from filelock import FileLock
from lightning.pytorch.callbacks import Callback
from optuna.distributions import BaseDistribution
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from matinee.batches.loading import mix_seed
from matinee.errors import MatineeError
from matinee.verbs.search.records import POLL_SECONDS, PRUNED, Row, acquire, check_search
from matinee.verbs.search.spaces import hash_id
from matinee.verbs.search.trials import Search

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
WARMUP_EPOCHS = 3  # before a trial may end early; it has at least 5
SQLITE_SECONDS = 60  # to wait while another process writes


class Pruning(Callback):
    """Reports the headline metric of every epoch, and ends a fit that is worse than the others.

    Args:
        trial: The trial to report to.
        monitor: Name of the logged metric.
    """

    def __init__(self, trial: Trial, monitor: str) -> None:
        self.trial = trial
        self.monitor = monitor
        self.pruned = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the epoch; stop unless it was the last one."""
        self.trial.report(trainer.callback_metrics[self.monitor].item(), trainer.current_epoch)
        if trainer.current_epoch + 1 < (trainer.max_epochs or 0) and self.trial.should_prune():
            self.pruned = trainer.should_stop = True


class GuidedSearch:
    """The trials of a guided search, shared by any number of processes.

    Args:
        prepared: The search.
        storage: URL of a database in SQLAlchemy's form; None stands for an SQLite file beside the
            results of the random search.

    Raises:
        MatineeError: If the database cannot be opened or holds another search with this name.
    """

    def __init__(self, prepared: Search, storage: str | None) -> None:
        self.prepared = prepared
        path = prepared.folder / f"{prepared.name}.tpe.db"
        self.storage = _without_password(storage) if storage else str(path)
        self.claims = prepared.folder / ".claims" / path.stem
        self.here = (
            f"{socket.gethostname()}:{prepared.folder.resolve()}"  # the folder of the claims
        )
        self.decision = FileLock(path.with_name(f".{path.name}.lock"), poll_interval=POLL_SECONDS)
        self.distributions: dict[str, BaseDistribution] = {
            name: one.for_optuna() for name, one in prepared.space.over.items()
        }
        url = storage or f"sqlite:///{path}"
        waiting = {"connect_args": {"timeout": SQLITE_SECONDS}} if url.startswith("sqlite") else {}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        acquire(self.decision)
        try:
            self.study = optuna.create_study(
                storage=optuna.storages.RDBStorage(url, engine_kwargs=waiting),
                study_name=f"{prepared.folder.name}/{prepared.name}",
                direction="maximize" if prepared.headline.higher_is_better else "minimize",
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(n_warmup_steps=WARMUP_EPOCHS),
            )
            found = self.study.user_attrs.get("identity")
            if found is None:
                self.study.set_user_attr("identity", dict(prepared.identity))
        except (SQLAlchemyError, StorageInternalError, ImportError, ValueError) as error:
            missing = getattr(error.__cause__, "name", None)  # a missing driver
            reason = f"install {missing}" if missing else str(error).splitlines()[0]
            raise MatineeError(
                f"the database {self.storage} cannot be used ({reason}); correct storage=..."
            ) from error
        finally:
            self.decision.release()
        check_search(found or prepared.identity, prepared.identity, self.storage)

    def rows(self) -> list[Row]:
        """Return the rows of the finished trials, in their order."""
        trials = self.study.get_trials(deepcopy=False, states=FINISHED)
        return [trial.user_attrs["row"] for trial in trials]

    def run(self) -> None:
        """Run trials until enough have finished or are running on other machines.

        Raises:
            Stopped: If a signal ended a trial; it is proposed again.
        """
        while True:
            acquire(self.decision)
            try:
                mine, others = self._running()
                trials = self.study.get_trials(deepcopy=False)
                missing = self.prepared.trials - others
                missing -= sum(trial.state in FINISHED for trial in trials)
                if missing <= 0:
                    if others:
                        running = "trial is" if others == 1 else "trials are"
                        print(f"{others} {running} running elsewhere", file=sys.stderr)
                    return
                if missing > mine:
                    trial = self._propose(trials)
                    claim = self._claim(trial.number)
                    acquire(claim)
                    trial.set_user_attr("place", self.here)
            finally:
                self.decision.release()
            if missing <= mine:
                time.sleep(POLL_SECONDS)  # another process may die and leave its trial
                continue
            try:
                self._run(trial)
            finally:
                claim.release()

    def _running(self) -> tuple[int, int]:
        """Count running trials of this folder and of others; propose those of dead processes again."""
        mine = others = 0
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            place = trial.user_attrs.get("place")
            if place is None:  # killed before it started
                continue
            if place != self.here:
                others += 1
            elif acquire(claim := self._claim(trial.number), blocking=False):
                self._retry(trial.number)
                claim.release()
            else:
                mine += 1
        return mine, others

    def _retry(self, number: int) -> None:
        """Propose a trial of a dead process again, unless the process died after the trial's end."""
        trial = self.study.get_trials(deepcopy=False)[number]
        if trial.state == TrialState.RUNNING:
            self.study.tell(number, state=TrialState.FAIL)
            self.study.enqueue_trial(trial.params)

    def _propose(self, trials: Sequence[FrozenTrial]) -> Trial:
        """Ask for a new combination; a random one if the proposed one is known."""
        open_or_finished = (*FINISHED, TrialState.RUNNING)
        space = self.prepared.space
        known = {
            hash_id(space.from_optuna(trial.params))
            for trial in trials
            if trial.state in open_or_finished
        }
        if self.prepared.default is not None:
            known.add(hash_id(self.prepared.default))
        seed = mix_seed(self.prepared.seed, len(trials))
        self.study.sampler = optuna.samplers.TPESampler(seed=seed)
        trial = self.study.ask(self.distributions)
        if hash_id(space.from_optuna(trial.params)) in known:
            self.study.tell(trial, state=TrialState.FAIL)
            fresh = next(drawn for drawn in space.draws(seed) if hash_id(drawn) not in known)
            self.study.enqueue_trial(space.to_optuna(fresh))
            trial = self.study.ask(self.distributions)
        return trial

    def _run(self, trial: Trial) -> None:
        watcher = Pruning(trial, self.prepared.headline.monitor)
        print(f"trial {trial.number + 1}", end=": ", file=sys.stderr)
        row = self.prepared.run(self.prepared.space.from_optuna(trial.params), watcher)
        if watcher.pruned:
            row["failure"] = PRUNED
        trial.set_user_attr("row", {"trial": trial.number + 1, **row})
        if watcher.pruned:
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            value = row[self.prepared.metric_names[-1]]
            worst = self.prepared.headline.goodness(-math.inf)  # for a failed trial
            self.study.tell(trial, worst if value is None else value)

    def _claim(self, number: int) -> FileLock:
        return FileLock(self.claims / str(number), poll_interval=POLL_SECONDS)


def _without_password(url: str) -> str:
    try:
        return make_url(url).render_as_string()
    except ArgumentError:  # reported when it is opened
        return url
