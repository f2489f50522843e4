"""What a service accepts: sizes, times, and the sentence that says why a question is refused."""

import asyncio
import time
import traceback
from collections.abc import Callable

from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 2**20  # of a body
MOST_ITEMS = 1000  # of a history, or of ratings
MOST_LISTED = 10_000  # of allow, deny or predictions
MOST_ANSWERED = 1000  # items of an answer
MOST_EXPLAINED = 50  # newest items that an explanation considers
MOST_WAITING = 1000  # questions; others are told to come back
SECONDS = 30.0  # until a question is given up
HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class Refused(Exception):  # noqa: N818 - an answer, not a failure
    """A question that cannot be answered.

    Args:
        status: The status of the answer, 4xx, or 503 if the service has too much to do.
        sentence: Why.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


def refusal(status: int, sentence: str) -> JSONResponse:
    """Make the answer to a question that cannot be answered: ``{"error": SENTENCE}``."""
    plain = sentence.encode("ascii", "backslashreplace").decode()
    headers = {"retry-after": "1"} if status == 503 else None
    return JSONResponse({"error": plain[:500]}, status, headers)


class LimitedBody:
    """Reject bodies that are too large, before they are read as a whole."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the bytes of a body while they arrive."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        received, parts = 0, []
        while True:
            message = await receive()
            received += len(message.get("body", b""))
            if received > MOST_BYTES:
                sentence = f"the body has more than {MOST_BYTES} bytes."
                await refusal(413, sentence)(scope, receive, send)
                return
            parts.append(message)
            if message["type"] != "http.request" or not message.get("more_body"):
                break
        replayed = iter(parts)

        async def replay() -> Message:
            message = next(replayed, None)
            return await receive() if message is None else message

        await self.app(scope, replay, send)


class Watched:
    """Limit the time of an answer, add headers, and turn whatever fails into a status without details.

    Args:
        app: What answers.
        observe: Is told the path, the status and the seconds of each answer.
    """

    def __init__(self, app: ASGIApp, observe: Callable[[str, int, float], None]) -> None:
        self.app = app
        self.observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, within the limit."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        failure = None
        try:
            async with asyncio.timeout(SECONDS):
                await self.app(scope, receive, answer)
        except TimeoutError:
            failure = refusal(503, "the answer took too long; ask again later.")
        except Exception:
            traceback.print_exc()
            failure = refusal(500, "the service failed to answer; its log says why.")
        if failure is not None and not status:
            await failure(scope, receive, answer)
        path = getattr(scope.get("route"), "path", "other")
        self.observe(path, status, time.perf_counter() - began)
