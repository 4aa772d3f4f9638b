"""The outermost ASGI layer, between the server or the Azure Functions adapter and FastAPI."""

import asyncio
import contextlib
import logging
import re
import time
import traceback
from collections.abc import Awaitable, Callable
from uuid import uuid4

from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from shared import logs
from shared.errors import InternalError

logger = logging.getLogger(__name__)

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
"""Sent with every answer that does not set them itself."""


class Shell:
    """Makes one request through any server end as an answer, whatever happens inside.

    The Azure Functions adapter starts the lifespan once for each concurrent first request, takes a
    second start for a shutdown, loses duplicate headers, crashes on header values that are not
    ASCII, and turns an exception into an empty 500 even after a handler has answered it. Here the
    lifespan opens nothing, and nothing but a well-formed answer gets out.
    """

    def __init__(
        self, app: FastAPI, close: Callable[[], Awaitable[None]], drain: Callable[[], Awaitable[None]]
    ) -> None:
        self.app = app
        self.close = close
        self.drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        background = asyncio.create_task(self._drain_for_ever())
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        background.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await background
        await self.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _drain_for_ever(self) -> None:
        """Do what the timer does on Azure Functions, which never runs a lifespan of ours."""
        while True:
            await asyncio.sleep(DRAIN_EVERY)
            try:
                await self.drain()
            except Exception as error:  # noqa: BLE001 - the next round may succeed
                logger.error("Unhandled exception", extra=_where(error))  # noqa: TRY400

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started_at = time.perf_counter()
        scope.setdefault("asgi", {"version": "3.0", "spec_version": "2.1"})
        request_id = _request_id(scope)
        logs.begin(request_id)
        status = 0

        async def send_whole(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _headers(message, request_id)
            elif message["type"] == "http.response.body":
                message.setdefault("body", b"")  # optional in ASGI, required by the adapter
            await send(message)

        try:
            await self.app(scope, receive, send_whole)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
            # Its text may carry what a client sent, so only the class and the place are logged.
            logger.error("Unhandled exception", extra=_where(error))  # noqa: TRY400
            if not status:
                response = InternalError("The server failed.").response(scope["path"])
                await response(scope, receive, send_whole)
        # A read that succeeds changes nothing and is one of very many: its line would be most of the
        # log's cost, and a sixth of the request's.
        level = logging.DEBUG if status < 400 and scope["method"] in {"GET", "HEAD"} else logging.INFO  # noqa: PLR2004
        if logger.isEnabledFor(level):
            _log(level, scope, status, time.perf_counter() - started_at)


def _log(level: int, scope: Scope, status: int, seconds: float) -> None:
    extra = {
        "method": scope["method"],
        "route": _route(scope),
        "status": status,
        "duration_ms": round(seconds * 1000, 2),
    }
    logger.log(level, "Request", extra=extra)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = value.decode("latin-1")
            return given if _REQUEST_ID.fullmatch(given) else str(uuid4())
    return str(uuid4())


def _headers(message: Message, request_id: str) -> list[tuple[bytes, bytes]]:
    found = _SECURITY_HEADERS | {b"x-request-id": request_id.encode()}
    set_before = set()
    for name, value in message.get("headers", ()):
        key = name.lower()
        clean = value if value.isascii() else value.decode("latin-1").encode("ascii", "replace")
        # RFC 9110 §5.3: a list-based field may be combined; no answer of ours sets a cookie.
        found[key] = found[key] + b", " + clean if key in set_before else clean
        set_before.add(key)
    return list(found.items())


def _route(scope: Scope) -> str:
    """Return the path's template: the path itself may hold what a client should not have put there."""
    return getattr(scope.get("route"), "path_format", "")


def _where(error: BaseException) -> dict[str, str]:
    """Return what may be logged of an exception: its class and its frames, but no text and no values."""
    frames = traceback.extract_tb(error.__traceback__)
    stack = " < ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    return {"error": type(error).__name__, "stack": stack}
