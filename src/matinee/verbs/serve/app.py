"""The service: its routes and page, what every answer passes through, and how a model is swapped in."""

import asyncio
import contextlib
import hmac
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from starlette.exceptions import HTTPException

from matinee.errors import MatineeError
from matinee.verbs.serve.batching import Batcher
from matinee.verbs.serve.limits import LimitedBody, Refused, Watched, refusal
from matinee.verbs.serve.routes import router
from matinee.verbs.serve.sources import Source

PAGE = Path(__file__).parent / "page"


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

    def observe(path: str, status: int, passed: float) -> None:
        requests.labels(path, status).inc()
        seconds.labels(path).observe(passed)

    one_reload = asyncio.Lock()  # the last to be asked for is the last to be swapped in
    signalled: set[asyncio.Task[None]] = set()

    async def reload() -> str:
        async with one_reload:
            opened = await asyncio.to_thread(open_source)
            app.state.batcher = Batcher(opened, batches.observe)  # the old one ends its questions
            reloads.inc()
            print(f"now serving {opened.name}", flush=True)
        return opened.name

    async def reload_or_stay() -> None:
        try:
            await reload()
        except MatineeError as error:
            print(f"the old model stays: {error}", file=sys.stderr, flush=True)
        except Exception:
            traceback.print_exc()

    def hang_up() -> None:
        task = asyncio.create_task(reload_or_stay())
        signalled.add(task)
        task.add_done_callback(signalled.discard)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError, AttributeError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hang_up)
        yield

    app = FastAPI(title="matinee", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.batcher = Batcher(source or open_source(), batches.observe)
    app.add_middleware(LimitedBody)
    app.add_middleware(Watched, observe=observe)  # the outer one, so that reading a body counts

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return refusal(error.status, error.sentence)

    @app.exception_handler(MatineeError)
    async def impossible(request: Request, error: MatineeError) -> Response:
        return refusal(422, " ".join(str(error).split()))

    @app.exception_handler(HTTPException)
    async def unserved(request: Request, error: HTTPException) -> Response:
        sentences = {404: "there is no such path.", 405: "this path takes another method."}
        sentence = sentences.get(error.status_code, "the body cannot be read as JSON.")
        return refusal(error.status_code, sentence)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        if first["type"] == "json_invalid" or tuple(first["loc"]) == ("body",):
            sentence = "the body is no JSON object; send one, with content-type: application/json."
            return refusal(422, sentence)
        where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query"))
        return refusal(422, f"{where}: {first['msg']}.")

    app.include_router(router)

    @app.post("/reload")
    async def reload_now(authorization: Annotated[str, Header()] = "") -> dict[str, Any]:
        """Open the model again and swap it in; needs ``Authorization: Bearer TOKEN``."""
        if token is None:
            raise Refused(403, "reloading is off; start the service with MATINEE_TOKEN.")
        if not hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
            raise Refused(401, "the token is wrong; send it as Authorization: Bearer TOKEN.")
        return {"status": "ok", "model": await reload()}

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")

    for path, file in (("/", "index.html"), ("/page.css", "page.css"), ("/page.js", "page.js")):
        app.add_api_route(path, _file(PAGE / file), include_in_schema=False)
    return app


def _file(path: Path) -> Callable[[], Awaitable[FileResponse]]:
    async def file() -> FileResponse:
        return FileResponse(path)

    return file
