"""States of recurrent encoders, kept between questions: one more item then costs one step."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from matinee.contracts import RecurrentEncoder, State


class CarriedStates:
    """The state of an encoder after each of the newest histories that it has read.

    A history whose beginning, all but its last step, was read before is continued from the state after that
    beginning. States are found by all that the encoder has read, exactly, so another history can never be
    continued. Equal histories are not read again.

    Args:
        encoder: What reads; its weights must not change any more.
        most_bytes: Largest memory of histories and states; the least recently used are dropped.
    """

    def __init__(self, encoder: RecurrentEncoder, most_bytes: int = 2**26) -> None:
        self.encoder = encoder
        self.most_bytes = most_bytes
        self.bytes = 0
        self.steps = 0  # that the encoder has taken, for tests and measurements
        self.kept: OrderedDict[bytes, tuple[State, Tensor]] = OrderedDict()

    def last(
        self,
        histories: Sequence[npt.NDArray[Any]],
        embed: Callable[[int, int], Tensor],
        user_ids: Tensor | None = None,
    ) -> Tensor:
        """Encode histories, and return the outputs at their last positions.

        Args:
            histories: What decides the inputs of each history, position by position, (length, ...); at least
                one position each.
            embed: Makes the inputs of a history from a position on, (length - position, dim), from the
                number of the history and the position.
            user_ids: The users, (n,), if the encoder needs them.

        Returns:
            Outputs, (n, dim).
        """
        users = [0] * len(histories) if user_ids is None else user_ids.tolist()
        keys = [
            user.to_bytes(8, "little") + history.tobytes()
            for user, history in zip(users, histories, strict=True)
        ]
        rests: list[tuple[int, int, State]] = []  # number, steps to take, state before
        for number, (key, history) in enumerate(zip(keys, histories, strict=True)):
            if key in self.kept:
                self.kept.move_to_end(key)
                continue
            before = self.kept.get(key[: len(key) - history[-1:].nbytes])
            if before is None:
                rests.append((number, len(history), self.encoder.initial_state(1)))
            else:
                rests.append((number, 1, before[0]))
        found = {number: self.kept[key][1] for number, key in enumerate(keys) if key in self.kept}
        for number, state, output in self._read(histories, rests, embed, user_ids):
            found[number] = output
            self._keep(keys[number], state, output)
        return torch.stack([found[number] for number in range(len(histories))])

    def _read(
        self,
        histories: Sequence[npt.NDArray[Any]],
        rests: list[tuple[int, int, State]],
        embed: Callable[[int, int], Tensor],
        user_ids: Tensor | None,
    ) -> list[tuple[int, State, Tensor]]:
        """Take the steps that are left: all histories together, as far as the shortest, and so on."""
        if not rests:
            return []
        rests = sorted(rests, key=lambda rest: rest[1])
        numbers = [number for number, _, _ in rests]
        lengths = np.array([steps for _, steps, _ in rests])
        inputs = [embed(number, len(histories[number]) - steps) for number, steps, _ in rests]
        state = _joined([state for _, _, state in rests])
        done: list[tuple[int, State, Tensor]] = []
        begun = 0
        for end in np.unique(lengths).tolist():
            first = len(done)  # the histories before it have ended
            steps = torch.stack([one[begun:end] for one in inputs[first:]])
            context = () if user_ids is None else (user_ids[numbers[first:]],)
            outputs, state = self.encoder.unroll(steps, state, *context)
            self.steps += steps.shape[0] * steps.shape[1]
            ended = int((lengths == end).sum())
            for row in range(ended):
                done.append(
                    (numbers[first + row], _rows(state, slice(row, row + 1)), outputs[row, -1])
                )
            state = _rows(state, slice(ended, None))
            begun = end
        return done

    def _keep(self, key: bytes, state: State, output: Tensor) -> None:
        if key in self.kept:
            return
        state, output = _copied(state), output.clone()  # not views of a whole batch
        self.kept[key] = state, output
        self.bytes += len(key) + _bytes((state, output))
        while self.bytes > self.most_bytes and self.kept:
            dropped, values = self.kept.popitem(last=False)
            self.bytes -= len(dropped) + _bytes(values)


def _rows(state: State, rows: slice) -> State:
    return tuple(_rows(part, rows) if isinstance(part, tuple) else part[rows] for part in state)


def _copied(state: State) -> State:
    return tuple(_copied(part) if isinstance(part, tuple) else part.clone() for part in state)


def _joined(states: Sequence[State]) -> State:
    return tuple(
        _joined(parts) if isinstance(parts[0], tuple) else torch.cat(parts)
        for parts in zip(*states, strict=True)
    )


def _bytes(state: State) -> int:
    return sum(_bytes(part) if isinstance(part, tuple) else part.nbytes for part in state)
