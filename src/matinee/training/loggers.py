"""Loggers: TensorBoard's event files, in the run folder itself."""

import base64
import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger

from matinee.display.metrics import metric_title


class TensorBoard(TensorBoardLogger):
    """Lightning's TensorBoard logger without subfolders, extra files and uninformative curves.

    Args:
        save_dir: The run folder.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir, name="", version="", default_hp_metric=False)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write metrics, without the number of the epoch."""
        shown = {name: value for name, value in metrics.items() if name != "epoch"}
        super().log_metrics(shown, step)

    def log_trial(
        self,
        chosen: Mapping[str, bool | int | float | str],
        first: Sequence[str],
        metrics: Sequence[str],
        step: int,
    ) -> None:
        """Write a row of the HParams tab; its metrics are scalars that were logged already.

        TensorBoard takes the columns of all runs from one of them, and shows the first five of the
        hyperparameters and of the metrics unless a user asks for more. It shows 15 characters of a trial's
        name and merges trials of one name, so the name ends in a code of the run folder.

        Args:
            chosen: Hyperparameters by name; one of them is ``model``.
            first: The names that the table begins with.
            metrics: Tags of the columns of metrics, in order, such as ``with_best_epoch/test/rmse``.
            step: Where to write.
        """
        # these imports take a tenth of a second
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.plugins.hparams import api_pb2, metadata
        from tensorboard.plugins.hparams.plugin_data_pb2 import (
            HParamsPluginData,
            SessionEndInfo,
            SessionStartInfo,
        )

        columns = [
            api_pb2.HParamInfo(
                name=name,
                type=api_pb2.DATA_TYPE_STRING
                if isinstance(value, str)
                else api_pb2.DATA_TYPE_FLOAT64,
                differs=name in first,  # sorts these before the others
            )
            for name, value in chosen.items()
        ]
        shown = [
            api_pb2.MetricInfo(
                name=api_pb2.MetricName(tag=tag), display_name=metric_title(tag.partition("/")[2])
            )
            for tag in metrics
        ]
        code = hashlib.sha256(str(Path(self.log_dir).resolve()).encode()).digest()
        trial = f"{chosen['model']} {base64.b32encode(code)[:4].decode().lower()}"
        started = SessionStartInfo(group_name=trial)
        for name, value in chosen.items():
            kind = "string_value" if isinstance(value, str) else "number_value"
            setattr(started.hparams[name], kind, value)
        parts = {
            metadata.EXPERIMENT_TAG: {
                "experiment": api_pb2.Experiment(hparam_infos=columns, metric_infos=shown)
            },
            metadata.SESSION_START_INFO_TAG: {"session_start_info": started},
            metadata.SESSION_END_INFO_TAG: {
                "session_end_info": SessionEndInfo(status=api_pb2.STATUS_SUCCESS)
            },
        }
        for tag, part in parts.items():
            content = HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION, **part)
            plugin = SummaryMetadata.PluginData(
                plugin_name=metadata.PLUGIN_NAME, content=content.SerializeToString()
            )
            value = Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin))
            self.experiment._get_file_writer().add_summary(Summary(value=[value]), step)

    def save(self) -> None:
        """Write pending events; the hyperparameters are in the run folder's ``config.yaml`` already."""
        self.experiment.flush()


@contextmanager
def reporting_once() -> Iterator[None]:
    """Print no traceback where a thread of TensorBoard cannot write: the logger raises the same error."""

    def report(failure: Any) -> None:
        if not issubclass(failure.exc_type, OSError):
            before(failure)

    before, threading.excepthook = threading.excepthook, report
    try:
        yield
    finally:
        threading.excepthook = before
