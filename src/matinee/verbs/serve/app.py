"""The service: questions in JSON, checked and limited, answered in batches."""

import asyncio
import contextlib
import hmac
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from matinee.errors import MatineeError
from matinee.verbs.serve.sources import Asked, Scores, Source

MOST_BYTES = 2**20  # of a body
MOST_ITEMS = 1000  # of a history, or of ratings
MOST_LISTED = 10_000  # of allow, deny or predictions
MOST_ANSWERED = 1000  # items of an answer
MOST_EXPLAINED = 50  # newest items that an explanation considers
MOST_WAITING = 1000  # questions; others are told to come back
BATCH = 64
SECONDS = 30.0  # until a question is given up
PAGE = Path(__file__).parent / "page"
HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}

RawId = StrictInt | Annotated[StrictStr, Field(max_length=1000)]
Listed = Annotated[list[RawId], Field(max_length=MOST_LISTED)]


class Rated(BaseModel):
    """A rating of an item."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    item: RawId
    rating: Annotated[float, Field(strict=True)]


class Someone(BaseModel):
    """Who asks: a user of the data, or a newcomer with a history or ratings, or without anything."""

    model_config = ConfigDict(extra="forbid")
    user: RawId | None = None
    history: Annotated[list[RawId], Field(max_length=MOST_ITEMS)] | None = None
    ratings: Annotated[list[Rated], Field(max_length=MOST_ITEMS)] | None = None


class RecommendQuestion(Someone):
    """Who asks for recommendations, and which items may be recommended."""

    allow: Listed | None = None
    deny: Listed | None = None
    top_k: Annotated[StrictInt, Field(ge=1, le=MOST_ANSWERED)] = 10
    repeat: StrictBool = False


class WhyQuestion(Someone):
    """Who asks why an item is recommended."""

    item: RawId


class PredictQuestion(BaseModel):
    """Pairs of users and items; unknown ids are predicted as unknown ones."""

    model_config = ConfigDict(extra="forbid")
    users: Listed
    items: Listed


class SimilarQuestion(BaseModel):
    """An item, to find others like it."""

    model_config = ConfigDict(extra="forbid")
    item: RawId
    top_k: Annotated[StrictInt, Field(ge=1, le=MOST_ANSWERED)] = 10


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
        self.waiting: list[tuple[Asked, asyncio.Future[Scores]]] = []
        self.at_work: asyncio.Task[None] | None = None

    async def score(self, asked: Asked) -> Scores:
        """Score all items for one question, (num_items + 1,).

        Raises:
            Refused: If too many questions wait.
        """
        if len(self.waiting) >= MOST_WAITING:
            raise Refused(503, "too many questions wait; ask again in a second.")
        future: asyncio.Future[Scores] = asyncio.get_running_loop().create_future()
        self.waiting.append((asked, future))
        if self.at_work is None or self.at_work.done():
            self.at_work = asyncio.create_task(self._work())
        return await future

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of the source in the thread that scores."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.thread, lambda: function(*arguments))

    async def _work(self) -> None:
        while self.waiting:
            batch, self.waiting = self.waiting[:BATCH], self.waiting[BATCH:]
            batch = [(asked, future) for asked, future in batch if not future.done()]
            self.observe(len(batch))
            try:
                scores = await self.call(self.source.score, [asked for asked, _ in batch])
            except Exception:
                for asked, future in batch:  # find whose question it is
                    await self._alone(asked, future)
                continue
            for (_, future), row in zip(batch, scores, strict=True):
                if not future.done():
                    future.set_result(row)

    async def _alone(self, asked: Asked, future: "asyncio.Future[Scores]") -> None:
        try:
            scores = await self.call(self.source.score, [asked])
        except Exception as error:
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(scores[0])


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
                await _refusal(413, f"the body has more than {MOST_BYTES} bytes.")(
                    scope, receive, send
                )
                return
            parts.append(message)
            if message["type"] != "http.request" or not message.get("more_body"):
                break
        replayed = iter(parts)

        async def replay() -> Message:
            message = next(replayed, None)
            return await receive() if message is None else message

        await self.app(scope, replay, send)


def create_app(
    open_source: Callable[[], Source], source: Source | None = None, token: str | None = None
) -> FastAPI:
    """Make the service.

    Args:
        open_source: Opens the model; called again by a reload.
        source: The model, if it is open already.
        token: What ``POST /reload`` must name; None switches it off.
    """
    registry = CollectorRegistry()
    requests = Counter(
        "matinee_requests", "Answers by path and status", ["path", "status"], registry=registry
    )
    seconds = Histogram("matinee_seconds", "Seconds of an answer", ["path"], registry=registry)
    batches = Histogram(
        "matinee_batch", "Questions of a batch", registry=registry, buckets=(1, 2, 4, 8, 16, 32, 64)
    )
    reloads = Counter("matinee_reloads", "Models that were swapped in", registry=registry)

    def served(source: Source) -> Batcher:
        return Batcher(source, batches.observe)

    async def reload() -> None:
        opened = await asyncio.to_thread(open_source)
        app.state.batcher = served(opened)  # questions that wait keep the old one until it answers
        reloads.inc()

    async def reload_or_stay() -> None:
        with contextlib.suppress(MatineeError):
            await reload()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError, AttributeError):
            asyncio.get_running_loop().add_signal_handler(
                signal.SIGHUP,
                lambda: setattr(app.state, "swap", asyncio.create_task(reload_or_stay())),
            )
        yield

    app = FastAPI(title="matinee", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.batcher = served(source or open_source())
    app.add_middleware(LimitedBody)

    @app.middleware("http")
    async def watched(
        request: Request, answer: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(SECONDS):
                response = await answer(request)
        except TimeoutError:
            response = _refusal(503, "the answer took too long; ask again later.")
        route = request.scope.get("route")
        path = getattr(route, "path", "other")
        requests.labels(path, response.status_code).inc()
        seconds.labels(path).observe(time.perf_counter() - began)
        for name, value in HEADERS.items():
            response.headers[name] = value
        return response

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return _refusal(error.status, error.sentence)

    @app.exception_handler(MatineeError)
    async def impossible(request: Request, error: MatineeError) -> Response:
        return _refusal(422, " ".join(str(error).split()))

    @app.exception_handler(HTTPException)
    async def unserved(request: Request, error: HTTPException) -> Response:
        sentences = {404: "there is no such path.", 405: "this path takes another method."}
        sentence = sentences.get(error.status_code, "the body cannot be read as JSON.")
        return _refusal(error.status_code, sentence)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query"))
        return _refusal(422, f"{where or 'the body'}: {first['msg']}.")

    @app.post("/recommend")
    async def recommend(question: RecommendQuestion) -> dict[str, Any]:
        """Recommend the best items to a user of the data or to a newcomer."""
        batcher: Batcher = app.state.batcher
        source = batcher.source
        asked = _asked(source, question)
        allow = None if question.allow is None else _found(source, question.allow)
        deny = _found(source, question.deny or [])
        scores = np.array(await batcher.score(asked))
        if allow is not None:
            kept = scores[allow]
            scores[:] = -np.inf
            scores[allow] = kept
        scores[deny] = -np.inf
        if not question.repeat:
            scores[asked.item_ids] = -np.inf
        best = _best(scores, question.top_k)
        return {"measure": _measure(source), "items": _listed(source, best, scores)}

    @app.post("/predict")
    async def predict(question: PredictQuestion) -> dict[str, Any]:
        """Predict ratings of pairs of users and items."""
        batcher: Batcher = app.state.batcher
        source = batcher.source
        if len(question.users) != len(question.items):
            raise Refused(422, "users and items have different lengths; give one of each per pair.")
        users = np.array([source.users.get(str(raw), 0) for raw in question.users], np.int64)
        items = np.array([source.items.get(str(raw), 0) for raw in question.items], np.int64)
        if len(users) == 0:
            return {"ratings": []}
        ratings = await batcher.call(source.rate, users, items)
        return {"ratings": [float(rating) for rating in ratings]}

    @app.post("/similar")
    async def similar(question: SimilarQuestion) -> dict[str, Any]:
        """Find the items that are most like an item."""
        batcher: Batcher = app.state.batcher
        source = batcher.source
        (item,) = _found(source, [question.item])
        measure, values = await batcher.call(source.similarities, item)
        values = np.array(values)
        values[[0, item]] = -np.inf
        best = _best(values, question.top_k)
        return {"measure": measure, "items": _listed(source, best, values)}

    @app.post("/why")
    async def why(question: WhyQuestion) -> dict[str, Any]:
        """Say which items of a newcomer contribute most to the score of an item."""
        batcher: Batcher = app.state.batcher
        source = batcher.source
        asked = _asked(source, question)
        (item,) = _found(source, [question.item])
        newest = Asked(0, asked.item_ids[-MOST_EXPLAINED:])
        shares = await batcher.call(source.shares, newest, item)
        order = np.argsort(-shares, kind="stable")[:5]
        best = newest.item_ids[order]
        return {
            "items": [
                {**_item(source, int(met)), "share": float(share)}
                for met, share in zip(best, shares[order], strict=True)
            ]
        }

    @app.get("/items")
    async def items(
        query: Annotated[str, Query(max_length=200)] = "",
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> dict[str, Any]:
        """Find items by words of their titles, the most popular first."""
        source: Source = app.state.batcher.source
        found = await asyncio.to_thread(source.find_items, query, limit)
        return {"items": [_item(source, item) for item in found]}

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Say what is served."""
        source: Source = app.state.batcher.source
        return {
            "status": "ok",
            "model": source.name,
            "items": len(source.raw_items),
            "users": len(source.users),
            "reads": source.reads,
            "rating_scale": source.rating_scale,
        }

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")

    @app.post("/reload")
    async def reload_now(authorization: Annotated[str, Header()] = "") -> dict[str, Any]:
        """Open the model again and swap it in; needs ``Authorization: Bearer TOKEN``."""
        if token is None:
            raise Refused(403, "reloading is off; start the service with MATINEE_TOKEN.")
        if not hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
            raise Refused(401, "the token is wrong; send it as Authorization: Bearer TOKEN.")
        await reload()
        return {"status": "ok", "model": app.state.batcher.source.name}

    for path, file in (("/", "index.html"), ("/page.css", "page.css"), ("/page.js", "page.js")):
        app.add_api_route(path, _file(PAGE / file), include_in_schema=False)
    return app


def _file(path: Path) -> Callable[[], Awaitable[FileResponse]]:
    async def file() -> FileResponse:
        return FileResponse(path)

    return file


def _refusal(status: int, sentence: str) -> JSONResponse:
    plain = sentence.encode("ascii", "backslashreplace").decode()
    headers = {"retry-after": "1"} if status == 503 else None
    return JSONResponse({"error": plain[:500]}, status, headers)


def _asked(source: Source, question: Someone) -> Asked:
    """Find who asks, and what they have met."""
    given = [name for name in ("user", "history", "ratings") if getattr(question, name) is not None]
    if len(given) > 1:
        raise Refused(422, f"{' and '.join(given)} cannot be combined; give one of them.")
    if question.user is not None:
        user_id = source.users.get(str(question.user), 0)
        if user_id == 0:
            raise Refused(404, f"user {question.user!r} is not in the data.")
        return Asked(user_id, source.met(user_id))
    for name in given:
        if name != source.reads:
            usable = f"give {source.reads}" if source.reads else "give user"
            raise Refused(422, f"this model cannot use {name}; {usable}.")
    if question.history is not None:
        return Asked(0, _found(source, question.history))
    if question.ratings is not None:
        item_ids = _found(source, [rated.item for rated in question.ratings])
        if len(np.unique(item_ids)) < len(item_ids):
            raise Refused(422, "an item is rated twice; give one rating per item.")
        low, high = source.rating_scale or (-np.inf, np.inf)
        for rated in question.ratings:
            if not low <= rated.rating <= high:
                raise Refused(422, f"a rating is outside the scale {low:g} to {high:g}.")
        return Asked(0, item_ids, tuple(rated.rating for rated in question.ratings))
    return Asked()


def _found(source: Source, raw_ids: Sequence[Any]) -> Any:
    item_ids = np.array([source.items.get(str(raw), 0) for raw in raw_ids], np.int64)
    if (unknown := np.flatnonzero(item_ids == 0)).size:
        raise Refused(404, f"item {raw_ids[int(unknown[0])]!r} is not in the data.")
    return item_ids


def _best(scores: Any, top_k: int) -> Any:
    """Return the best items, best first, ties by lower id, without those at minus infinity."""
    top_k = min(top_k, len(scores) - 1)
    worst = np.partition(scores, len(scores) - top_k)[len(scores) - top_k]
    candidates = np.flatnonzero((scores >= worst) & (scores > -np.inf))
    return candidates[np.argsort(-scores[candidates], kind="stable")[:top_k]]


def _measure(source: Source) -> str:
    return "score" if source.ranks else "predicted_rating"


def _item(source: Source, item: int) -> dict[str, Any]:
    return {"item": source.raw_items[item - 1], "title": source.titles[item - 1]}


def _listed(source: Source, best: Any, values: Any) -> list[dict[str, Any]]:
    return [{**_item(source, int(item)), "value": float(values[item])} for item in best]
