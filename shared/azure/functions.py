"""The adapter to Azure Functions: `azure.functions.AsgiFunctionApp` with its own translation of requests.

The translation in azure-functions 2.3.0 cannot keep this API's promises. It runs the ASGI lifespan
inside the first requests, once for each that arrives before it is done; returns an empty 500 for a
path that is not UTF-8 or a port above 65535; decodes percent-encoding that the host has already
decoded; and adds a `Content-Type` to a 204 or 304. Here one request is one ASGI connection, made
from the same public `HttpRequest` and `HttpResponse`. The only private name in use is
`_add_http_app`: the base class's constructor calls it to add its function.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import override

import azure.functions as func
from starlette.types import ASGIApp, Scope

from shared.http.unstreamed import call

logger = logging.getLogger(__name__)

_TRACE = {b"traceparent", b"tracestate"}
_CHATTY = ("azure.functions", "azure_functions_runtime", "proxy_worker")
"""Loggers of the worker: at INFO they write several lines a request, about a third of its time."""


def _begin(start: Callable[[], Awaitable[None]]) -> asyncio.Task[None] | None:
    """Start a task that never fails; without a running loop, do nothing."""

    async def run() -> None:
        try:
            await start()
        except Exception as error:  # noqa: BLE001 - the first request tries again, and answers for it
            logger.warning("The app could not prepare itself", extra={"error": type(error).__name__})

    try:
        return asyncio.get_running_loop().create_task(run())
    except RuntimeError:
        return None


def _quieten() -> None:
    """Leave one handler on the root logger: the worker adds one for the host, and keeps that of its console."""
    root = logging.getLogger()
    if any(type(handler).__name__ == "AsyncLoggingHandler" for handler in root.handlers):
        for handler in root.handlers[:]:
            if type(handler) is logging.StreamHandler:
                root.removeHandler(handler)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


class _Response(func.HttpResponse):
    """An answer over a plain dict of headers in small letters: the library's own adds each to a list of its own."""

    def __init__(self, body: bytes, status: int, headers: dict[str, str]) -> None:
        self._body = body
        self._status = status
        self._headers = headers

    @property
    @override
    def status_code(self) -> int:
        return self._status

    @property
    @override
    def headers(self) -> dict[str, str]:  # type: ignore[override]
        return self._headers

    @override
    def get_body(self) -> bytes:
        return self._body


class FunctionApp(func.AsgiFunctionApp):
    """One ASGI application for every path and method of the host.

    The application checks tokens itself, so the host asks for no function key. Its lifespan does not
    run: the host never signals the worker's end. An exception that leaves the application becomes an
    empty 500, so the application must answer its own exceptions.

    `start` is work that a first request would wait for. It begins while the host prepares, if an event loop
    runs: the worker imports the app in the loop that serves it.
    """

    def __init__(self, app: ASGIApp, start: Callable[[], Awaitable[None]] | None = None) -> None:
        self.asgi_app = app
        self.starting = None if start is None else _begin(start)
        super().__init__(app, http_auth_level=func.AuthLevel.ANONYMOUS)
        _quieten()

    def _add_http_app(
        self,
        http_middleware: func.AsgiMiddleware | func.WsgiMiddleware,  # noqa: ARG002 - what this replaces
        function_name: str = "http_app_func",
    ) -> None:
        async def answer(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
            return await _call(self.asgi_app, req, context)

        # No list of methods: with one, the host answers all others with its own empty 404.
        self.function_name(function_name)(self.route("/{*route}")(answer))


async def _call(app: ASGIApp, request: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    status, raw, body = await call(app, _scope(request, context), request.get_body())
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in raw}
    # The library would add `text/plain`; the host omits an empty header.
    headers.setdefault("content-type", "")
    return _Response(body, status, headers)


def _scope(request: func.HttpRequest, context: func.Context) -> Scope:
    # Split by hand: urllib refuses authorities that the host accepts.
    scheme, _, rest = request.url.partition("://")
    _, slash, target = rest.partition("/")
    # The host has decoded the path once (RFC 3986 §2.4 forbids a second time) and re-encoded
    # characters that no path of this API contains, so routing uses the path as it is.
    path, _, query = (slash + target or "/").partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": scheme,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": _headers(request, context),
        "client": None,
        "server": None,
    }


def _headers(request: func.HttpRequest, context: func.Context) -> list[tuple[bytes, bytes]]:
    """Return the headers with the host's trace (W3C Trace Context), which goes on with the client's if there is one.

    So the host's row of a request and everything that the app exports of it have one trace.
    """
    headers = [(name.encode(), value.encode()) for name, value in request.headers.items()]
    trace = context.trace_context
    if not trace.trace_parent:
        return headers
    ours = ((b"traceparent", trace.trace_parent), (b"tracestate", trace.trace_state))
    kept = [header for header in headers if header[0] not in _TRACE]
    return kept + [(name, value.encode()) for name, value in ours if value]
