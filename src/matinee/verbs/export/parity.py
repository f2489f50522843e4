"""Parity: whether the programs of an artefact answer as the run does."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from matinee.errors import MatineeError
from matinee.training.tasks.base import LightningTask

TOP = 20
COMPARED_AT_ONCE = 2**24  # scores held at a time, per program

Arrays = dict[str, npt.NDArray[Any]]
Answer = Callable[[Mapping[str, npt.NDArray[Any]]], npt.NDArray[np.float32]]


@dataclass
class Agreement:
    """How well a program agrees with the run.

    Attributes:
        rows: Number of histories, or of users whose ratings were predicted.
        largest_difference: Largest absolute difference of a score.
        equal_top: Number of rows with the same best items in the same order.
        equal_top_but_ties: The same, where items change places whose scores differ by no more than twice
            the tolerance.
    """

    rows: int = 0
    largest_difference: float = 0.0
    equal_top: int = 0
    equal_top_but_ties: int = 0

    def add(self, ours: npt.NDArray[Any], theirs: npt.NDArray[Any], tolerance: float) -> None:
        """Compare scores of the run with those of a program, (rows, items) each."""
        if ours.shape != theirs.shape or not np.array_equal(np.isfinite(ours), np.isfinite(theirs)):
            self.largest_difference = float("inf")
            return
        finite = np.isfinite(ours)
        differences = np.abs(
            np.where(finite, ours, 0).astype(np.float64) - np.where(finite, theirs, 0)
        )
        self.largest_difference = max(self.largest_difference, float(differences.max(initial=0.0)))
        best, found = (np.argsort(-part, axis=1, kind="stable")[:, :TOP] for part in (ours, theirs))
        right = np.take_along_axis(ours, best, 1).astype(np.float64)
        given = np.take_along_axis(ours, found, 1)  # what the run thinks of the program's items
        self.rows += len(ours)
        self.equal_top += int((best == found).all(1).sum())
        with np.errstate(invalid="ignore"):  # both are minus infinity where there are fewer items
            near = (best == found) | (right - given <= 2 * tolerance)
        self.equal_top_but_ties += int(near.all(1).sum())

    def record(self) -> dict[str, Any]:
        """Return plain values for the manifest."""
        return {
            "rows": self.rows,
            "largest_difference": self.largest_difference,
            f"equal_top_{TOP}": self.equal_top / self.rows,
            f"equal_top_{TOP}_but_ties": self.equal_top_but_ties / self.rows,
        }


def compare(
    task: LightningTask[Any],
    programs: Mapping[str, Answer],
    cases: Iterator[Arrays],
    tolerance: float,
) -> dict[str, Any]:
    """Compare programs with the task they were made from.

    Args:
        task: The task.
        programs: The programs, by file name; each maps arrays by input name to its output.
        cases: Batches of inputs, in the order of the task's arguments; rows of pairs are all items of one
            user.
        tolerance: Largest difference of two scores, relative to the larger of 1 and the largest score.

    Returns:
        What was found, by file name.

    Raises:
        MatineeError: If a program disagrees.
    """
    found = {name: Agreement() for name in programs}
    largest = 1.0
    for case in cases:
        with torch.no_grad():
            ours = _rows(task(*(torch.from_numpy(array) for array in case.values())).numpy())
        largest = max(largest, float(np.abs(ours[np.isfinite(ours)]).max(initial=0.0)))
        for name, program in programs.items():
            found[name].add(ours, _rows(program(case)), tolerance * largest)
    for name, agreement in found.items():
        off = agreement.largest_difference > tolerance * largest
        if off or agreement.equal_top_but_ties < agreement.rows:
            raise MatineeError(
                f"{name} disagrees with the run: scores differ by up to {agreement.largest_difference:.2g} "
                f"(allowed: {tolerance * largest:.2g}), and {agreement.equal_top_but_ties} of "
                f"{agreement.rows} lists of the best {TOP} items agree; raise tolerance=... if you accept "
                "that."
            )
    return {name: agreement.record() for name, agreement in found.items()}


def _rows(scores: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return scores if scores.ndim == 2 else scores[None]


def histories(
    count: int, longest: int, num_items: int, num_users: int, needs_times: bool = False
) -> Iterator[Arrays]:
    """Make random histories: empty ones, the longest, with ties, repetitions and unknown ids.

    Args:
        count: Number of histories, at least 1.
        longest: Largest number of items in a history.
        num_items: Number of items.
        num_users: Number of users.
        needs_times: Whether to make times too.

    Yields:
        Batches of several sizes and widths.
    """
    rng = np.random.default_rng(0)
    most, made, batch = max(1, COMPARED_AT_ONCE // (num_items + 1)), 0, 1
    while made < count:
        size = min(batch, count - made, most, 256)
        width = 1 + (longest if made in (0, 1) else int(rng.integers(0, longest + 1)))
        lengths = rng.integers(1, width + 1, size)
        lengths[rng.random(size) < 0.2] = width
        lengths[rng.random(size) < 0.1] = 1
        # half of the rows know few items, so that items repeat within them
        few = rng.integers(1, min(num_items, 5) + 1, (size, width))
        ids = np.where(
            rng.random((size, 1)) < 0.3, few, rng.integers(1, num_items + 1, (size, width))
        )
        ids[rng.random((size, width)) < 0.1] = 0
        ids[:, 0] = 0
        ids[np.arange(width) >= lengths[:, None]] = 0
        case = {
            "histories": ids,
            "lengths": lengths,
            "user_ids": rng.integers(0, num_users + 1, size),
        }
        if needs_times:
            gaps = rng.integers(0, 10**6, (size, width)) * (rng.random((size, 1)) < 0.8)
            gaps[:, :2] = 0
            case["times"] = np.cumsum(gaps, axis=1)
        yield case
        made, batch = made + size, 2 * batch


def pairs(count: int, num_items: int, num_users: int) -> Iterator[Arrays]:
    """Pair random users, and the unknown one, with all items and the unknown one.

    Args:
        count: Number of users, at least 1.
        num_items: Number of items.
        num_users: Number of users.

    Yields:
        The pairs of one user.
    """
    rng = np.random.default_rng(0)
    for user in [0, *rng.integers(1, num_users + 1, count - 1)]:
        yield {
            "user_ids": np.full(num_items + 1, user, np.int64),
            "item_ids": np.arange(num_items + 1, dtype=np.int64),
        }


def torch_answer(path: Any) -> Answer:
    """Return what answers with the program of PyTorch in a file."""
    program = torch.export.load(path).module()

    @torch.no_grad()
    def answer(inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        output: Tensor = program(*(torch.from_numpy(array) for array in inputs.values()))
        scores: npt.NDArray[np.float32] = output.numpy()
        return scores

    return answer


def onnx_answer(path: Any) -> Answer:
    """Return what answers with the program of ONNX in a file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def answer(inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        scores: npt.NDArray[np.float32] = session.run(None, dict(inputs))[0]
        return scores

    return answer
