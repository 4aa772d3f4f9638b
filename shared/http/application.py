"""`Application`: a FastAPI app with problem documents, pages, a completed OpenAPI document and middleware."""

from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from typing import Any, override

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from opentelemetry.trace import Tracer
from starlette.applications import Starlette
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.http.middleware import wrap
from shared.http.openapi import complete
from shared.http.pages import add_pages
from shared.http.routing import ApiRoute
from shared.http.validation import add_handlers


class Application(FastAPI):
    """A FastAPI app that answers every request with a well-formed answer, through any server.

    `drain` is the timer's work on Azure Functions; elsewhere the lifespan repeats it in the
    background. `start` does early what a first request would wait for, and `close` closes the app's
    connections. `tracer` makes a span of each request. `scopes` are those of tokens, with a sentence each,
    and `read_scope` the one that is for reading. `options` are those of FastAPI.
    """

    def __init__(
        self,
        *,
        drain: Callable[[], Awaitable[None]],
        close: Callable[[], Awaitable[None]],
        start: Callable[[], Awaitable[None]] | None = None,
        tracer: Tracer | None = None,
        scopes: Mapping[str, str] | None = None,
        read_scope: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False, **options)
        self.drain = drain
        self.close = close
        self.start = start
        self._tracer = tracer
        self._scopes = scopes or {}
        self._read_scope = read_scope
        add_handlers(self)
        add_pages(self)

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Without FastAPI's telemetry: it describes each request before the sampler drops it, and its logs repeat
        # validation messages.
        await Starlette.__call__(self, scope, receive, send)

    @cached_property
    def answering(self) -> ASGIApp:
        """What answers a request within the layers that each goes through once, in whatever process."""
        # Without FastAPI's layers for what is done here already: `outcome` answers 500, and `ApiRoute` bounds bodies.
        handlers = {kind: handler for kind, handler in self.exception_handlers.items() if kind is not Exception}
        return ExceptionMiddleware(AsyncExitStackMiddleware(self.router), handlers)

    @override
    def build_middleware_stack(self) -> ASGIApp:
        return wrap(self.answering, self.drain, self.close, self._tracer)

    @override
    def openapi(self) -> dict[str, Any]:
        for route in self.routes:
            if isinstance(route, ApiRoute):
                route.describe()
        before = self.openapi_schema
        document = super().openapi()
        if document is not before:  # FastAPI caches it until a route is added
            complete(document, self._scopes, self._read_scope)
        return document
