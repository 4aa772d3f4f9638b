"""The edge to Azure Functions: `azure.functions.AsgiFunctionApp` with a translation of our own.

The one in azure-functions 2.3.0 has no seam for what this API promises. It runs the ASGI lifespan
inside the first requests, once for each that arrives before it is done; ends in an empty 500 on a
path that is not UTF-8 or a port above 65535; decodes percent-encoding that the host has already
decoded; and gives a 204 or 304 a `Content-Type`. Here one request is one ASGI connection, made from
the same public `HttpRequest` and `HttpResponse`. The only private name relied on is
`_add_http_app`, the hook that the base class's constructor calls to add its function.
"""

import asyncio
import logging

import azure.functions as func
from starlette.types import ASGIApp, Message, Scope

_CHATTY = ("azure.functions", "azure_functions_runtime", "proxy_worker")
"""Loggers of the worker: at INFO they write several lines a request, about a third of its time."""


class FunctionApp(func.AsgiFunctionApp):
    """Every path and method of the host, answered anonymously by one ASGI application.

    The application judges its own tokens, so no function key is asked for. Its lifespan is not run:
    the host never tells the worker when it ends. An exception that leaves the application becomes
    an empty 500, so it must answer its own.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.asgi_app = app
        super().__init__(app, http_auth_level=func.AuthLevel.ANONYMOUS)
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)

    def _add_http_app(
        self,
        http_middleware: func.AsgiMiddleware | func.WsgiMiddleware,  # noqa: ARG002 - what this replaces
        function_name: str = "http_app_func",
    ) -> None:
        async def answer(req: func.HttpRequest) -> func.HttpResponse:
            return await _call(self.asgi_app, req)

        # No list of methods: with one, the host answers all others with an empty 404 of its own.
        self.function_name(function_name)(self.route("/{*route}")(answer))


async def _call(app: ASGIApp, request: func.HttpRequest) -> func.HttpResponse:
    """Serve one request (ASGI HTTP specification 2.4); body and answer are whole, never streamed."""
    body: bytes | None = request.get_body()
    status = 500
    headers: dict[str, str] = {}
    content: list[bytes] = []
    answered = asyncio.Event()

    async def receive() -> Message:
        nonlocal body
        if body is None:
            await answered.wait()  # that a client has left is never known here
            return {"type": "http.disconnect"}
        message = {"type": "http.request", "body": body, "more_body": False}
        body = None
        return message

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            for name, value in message["headers"]:
                headers[name.decode("latin-1")] = value.decode("latin-1")
        else:
            content.append(message.get("body", b""))
            if not message.get("more_body"):
                answered.set()

    await app(_scope(request), receive, send)
    response = func.HttpResponse(b"".join(content), status_code=status, headers=headers)
    # Without one the library adds `text/plain`; an empty one the host takes as none.
    response.headers.setdefault("content-type", "")
    return response


def _scope(request: func.HttpRequest) -> Scope:
    # The URL is taken apart by hand: urllib refuses authorities that the host lets through.
    scheme, _, rest = request.url.partition("://")
    _, slash, target = rest.partition("/")
    # The host has decoded the path once (RFC 3986 §2.4 forbids a second time) and encoded again what
    # no path of this API holds, so it is matched as it is.
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
        "headers": [(name.encode(), value.encode()) for name, value in request.headers.items()],
        "client": None,
        "server": None,
    }
