"""The ASGI layers between the server, or the Azure Functions adapter, and FastAPI: one function per concern."""

import asyncio
import contextlib
import gc
import logging as python_logging
import re
import time
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from uuid import uuid4

from opentelemetry.trace import Tracer
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared import logging
from shared.http.problems import InternalError
from shared.telemetry import traced

logger = python_logging.getLogger(__name__)

DRAIN_EVERY = 2.0
"""Seconds between two rounds of the background task."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")

_SECURITY_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"strict-transport-security": b"max-age=31536000; includeSubDomains",
    b"cross-origin-resource-policy": b"same-origin",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cache-control": b"no-store",
}
"""Defaults for every answer."""

_READS = {"GET", "HEAD"}

type _Work = Callable[[], Awaitable[None]]


def wrap(app: ASGIApp, drain: _Work, close: _Work, tracer: Tracer | None = None) -> ASGIApp:
    """Return `app` inside all layers, innermost first; the lifespan calls `drain` and `close`."""
    for layer in (head, outcome, headers):
        app = partial(layer, app)
    if tracer is not None:
        app = partial(traced, app, tracer)
    return partial(lifespan, app, drain, close)


async def lifespan(app: ASGIApp, drain: _Work, close: _Work, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve HTTP only, and answer the lifespan messages of any server or adapter.

    The adapter in azure-functions starts the lifespan once for each concurrent first request, treats a
    second start as a shutdown, and leaves `asgi` out of the scope. So the startup opens nothing.

    What was made until then is left out of garbage collections: one of them all took up to 70 ms, in which no request
    was answered.
    """
    if scope["type"] == "http":
        scope.setdefault("asgi", {"version": "3.0", "spec_version": "2.1"})
        await app(scope, receive, send)
    elif scope["type"] == "lifespan":
        gc.freeze()
        background = asyncio.create_task(_drain_for_ever(drain))
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        background.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await background
        await close()
        await send({"type": "lifespan.shutdown.complete"})


async def _drain_for_ever(drain: _Work) -> None:
    """Do the work of the timer on Azure Functions, which never runs this lifespan: at the start, and then again."""
    while True:
        try:
            await drain()
        except Exception as error:  # noqa: BLE001 - the next round may succeed
            logger.error("Unhandled exception", extra=_where(error))  # noqa: TRY400
        await asyncio.sleep(DRAIN_EVERY)


async def headers(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Give each request an id, the client's or a new one, and each answer headers and a body that suit every server.

    The adapter in azure-functions loses duplicate headers, crashes on values outside ASCII, and
    requires the members that are optional in ASGI.
    """
    given = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), "")
    identifier = given if _REQUEST_ID.fullmatch(given) else str(uuid4())
    scope["log"] = logging.begin(identifier)

    async def send_whole(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = _headers(message, identifier)
        elif message["type"] == "http.response.body":
            message.setdefault("body", b"")
        await send(message)

    await app(scope, receive, send_whole)


async def outcome(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Write the last log line of each request, with its method, route, status and duration.

    It is called `Request`, unless a service has named the outcome of its work. The level of a successful
    read is DEBUG: it changes nothing, reads are most of the requests, and the line would take a sixth of
    a read's time.

    An unhandled exception becomes a line of its own, and a 500 if no answer has begun: the adapter in
    azure-functions turns the exception into an empty 500, even after a handler's answer.
    """
    started_at = time.perf_counter()
    log: logging.Request = scope["log"]

    async def send_noted(message: Message) -> None:
        if message["type"] == "http.response.start":
            log.status = message["status"]
        await send(message)

    try:
        await app(scope, receive, send_noted)
    except Exception as error:  # noqa: BLE001 - the client gets an answer in any case
        response = failed(error, scope["path"])
        if not log.status:
            await response(scope, receive, send_noted)
    reads = log.status < 400 and scope["method"] in _READS  # noqa: PLR2004
    by, level, message, fields = log.last or (logger, python_logging.INFO, "Request", {})
    if reads:
        level = python_logging.DEBUG
    if by.isEnabledFor(level):
        extra = {
            **fields,
            "method": scope["method"],
            # The path's template: the path itself may contain personal data.
            "route": getattr(scope.get("route"), "path_format", ""),
            "status": log.status,
            "duration_ms": round((time.perf_counter() - started_at) * 1000, 2),
        }
        # `log` would search the stack for the place, and this is the same for each request.
        by.handle(by.makeRecord(by.name, level, __file__, 0, message, (), None, extra=extra))


def failed(error: Exception, path: str) -> Response:
    """Log an unhandled exception, and return the answer to its request."""
    # The text may contain client data, so only the class and the place are logged.
    logger.error("Unhandled exception", extra=_where(error))
    return InternalError("The server failed.").response(path)


async def head(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer HEAD as GET, without the body (RFC 9110 §9.3.2): no route declares it."""
    if scope["method"] != "HEAD":
        await app(scope, receive, send)
        return

    async def send_bare(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    scope["method"] = "GET"
    try:
        await app(scope, receive, send_bare)
    finally:
        scope["method"] = "HEAD"  # for the log


def _headers(message: Message, request_id: str) -> list[tuple[bytes, bytes]]:
    given: dict[bytes, bytes] = {}
    for name, value in message.get("headers", ()):
        key = name.lower()
        clean = value if value.isascii() else value.decode("latin-1").encode("ascii", "replace")
        # RFC 9110 §5.3 lets list-based fields be combined; no answer sets a cookie.
        given[key] = given[key] + b", " + clean if key in given else clean
    return [*{**_SECURITY_HEADERS, **given, b"x-request-id": request_id.encode()}.items()]


def _where(error: BaseException) -> dict[str, str]:
    """Return the log fields of an exception: its class and frames, without its text and values."""
    frames = traceback.extract_tb(error.__traceback__)
    stack = " < ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    return {"error": type(error).__name__, "stack": stack}
