"""Questions that wait at the same time are scored in one forward pass."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from matinee.verbs.serve.limits import MOST_WAITING, Refused
from matinee.verbs.serve.sources import Asked, Scores, Source

BATCH = 64  # questions


class Waiting(NamedTuple):
    """A question that waits, what to make of its scores, and where the answer goes."""

    asked: Asked
    finish: Callable[[Scores], Any]
    answer: "asyncio.Future[Any]"


class Batcher:
    """Answer questions that wait at the same time in one forward pass, in a thread of its own.

    A question never waits for others: while one batch is computed, the next one gathers.

    Args:
        source: What scores.
        observe: Is told the size of each batch.
    """

    def __init__(self, source: Source, observe: Callable[[int], Any]) -> None:
        self.source = source
        self.observe = observe
        self.thread = ThreadPoolExecutor(1, "scores")
        self.waiting: list[Waiting] = []
        self.at_work: asyncio.Task[None] | None = None

    async def answer(self, asked: Asked, finish: Callable[[Scores], Any]) -> Any:
        """Score all items for one question, and return what ``finish`` makes of it.

        Args:
            asked: The question.
            finish: Is called in the thread with the scores, (num_items + 1,), which it may change.

        Raises:
            Refused: If too many questions wait.
        """
        if len(self.waiting) >= MOST_WAITING:
            raise Refused(503, "too many questions wait; ask again in a second.")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.waiting.append(Waiting(asked, finish, future))
        if self.at_work is None or self.at_work.done():
            self.at_work = asyncio.create_task(self._work())
        return await future

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in the thread that scores."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.thread, lambda: function(*arguments))

    async def _work(self) -> None:
        while self.waiting:
            first, self.waiting = self.waiting[:BATCH], self.waiting[BATCH:]
            batch = [one for one in first if not one.answer.done()]  # some were given up
            if batch:
                self.observe(len(batch))
                await self._answer(batch)

    async def _answer(self, batch: Sequence[Waiting]) -> None:
        try:
            answers = await self.call(self._finish, batch)
        except Exception as error:
            if len(batch) > 1:
                for one in batch:  # find whose question it is
                    await self._answer([one])
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        for one, answer in zip(batch, answers, strict=True):
            if not one.answer.done():
                one.answer.set_result(answer)

    def _finish(self, batch: Sequence[Waiting]) -> list[Any]:
        scores = self.source.score([one.asked for one in batch])
        return [one.finish(row) for one, row in zip(batch, scores, strict=True)]
