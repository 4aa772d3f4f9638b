"""OpenTelemetry, only where it is configured: without that its API does almost nothing."""

import contextlib
import logging
from collections.abc import Iterable
from urllib.parse import urlsplit

from opentelemetry import context, metrics, propagate, trace
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.propagators.textmap import Getter
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.kept import failures
from shared.key_sets import fetches, unknown_ids
from shared.settings import Settings

type _Headers = list[tuple[bytes, bytes]]

_EXPORTING = ("azure.core", "azure.identity", "azure.monitor", "msal", "opentelemetry", "requests", "urllib3")
"""Loggers of the exporters and their transports: the export of one line would log the next."""

_METHODS = {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}

_FEATURES = ("azure_sdk", "django", "fastapi", "flask", "httpx", "psycopg2", "requests", "urllib", "urllib3")


def configure(settings: Settings, product: str) -> trace.Tracer | None:
    """Export spans, metrics and logs to Azure Monitor, and return what makes the spans of requests, if it is on.

    `product` is the name of the meter and the prefix of its metrics. Where
    PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY is true, the worker of Azure Functions has set up the
    exporters before this code is imported; then this function only instruments the drivers.
    """
    connection_string = settings.applicationinsights_connection_string
    if connection_string is None:
        return None
    # The SDK takes a second to import.
    from opentelemetry.instrumentation.asyncpg import AsyncPGInstrumentor  # noqa: PLC0415
    from opentelemetry.instrumentation.logging.handler import LoggingHandler  # noqa: PLC0415
    from opentelemetry.instrumentation.pymongo import PymongoInstrumentor  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415

    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        from azure.identity import DefaultAzureCredential  # noqa: PLC0415
        from azure.monitor.opentelemetry import configure_azure_monitor  # noqa: PLC0415

        configure_azure_monitor(
            connection_string=connection_string.get_secret_value(),
            # Ingestion without keys: the app's identity has the role.
            credential=DefaultAzureCredential(managed_identity_client_id=settings.azure_client_id),
            instrumentation_options={name: {"enabled": False} for name in _FEATURES},
        )

    for handler in logging.getLogger().handlers:
        if isinstance(handler, LoggingHandler):
            handler.addFilter(lambda record: not record.name.startswith(_EXPORTING))

    # By default both omit parameters and documents; a second call does nothing.
    AsyncPGInstrumentor().instrument()  # type: ignore[no-untyped-call]
    PymongoInstrumentor().instrument()
    meter = metrics.get_meter(product)
    meter.create_observable_counter(
        f"{product}.vault.errors", [_failures], description="Failed reads of secrets and tokens."
    )
    meter.create_observable_counter(
        f"{product}.issuers.fetches", [_fetches], description="Fetches of an issuer's keys; with error.type: failed."
    )
    meter.create_observable_counter(
        f"{product}.issuers.unknown_keys", [_unknown], description="Tokens whose key was not in the issuer's set."
    )
    return trace.get_tracer(product)


class _Getter(Getter[_Headers]):
    """Reads the headers of an ASGI scope."""

    def get(self, carrier: _Headers, key: str) -> list[str] | None:
        name = key.encode()
        return [value.decode("latin-1") for found, value in carrier if found == name] or None

    def keys(self, carrier: _Headers) -> list[str]:
        return [name.decode("latin-1") for name, _ in carrier]


_GETTER = _Getter()


async def traced(app: ASGIApp, tracer: trace.Tracer, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request inside a span that goes on with the caller's trace (W3C Trace Context).

    FastAPI's own describes each request before the sampler drops it, which it does with most. Here what is dropped has
    an id, for the log, and keeps drivers from preparing spans of their own.
    """
    parent = propagate.extract(scope["headers"], getter=_GETTER)
    span = tracer.start_span("HTTP", context=parent, kind=trace.SpanKind.SERVER)
    outside = context.attach(trace.set_span_in_context(span, parent))
    try:
        if span.is_recording():
            try:
                await app(scope, receive, send)
            finally:
                _describe(span, scope)
        else:
            from opentelemetry.instrumentation.utils import suppress_instrumentation  # noqa: PLC0415 - with the SDK only

            with suppress_instrumentation():
                await app(scope, receive, send)
    finally:
        span.end()
        context.detach(outside)


def _describe(span: trace.Span, scope: Scope) -> None:
    """Say in a request's span what it was, by OpenTelemetry's conventions (HTTP server spans, 1.44)."""
    status = scope["log"].status
    method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
    attributes: dict[str, str | int | None] = {
        "http.request.method": method,
        "http.response.status_code": status,
        "network.protocol.version": scope.get("http_version", "1.1"),
        "url.scheme": scope.get("scheme", "http"),
        "url.path": scope["path"],
    }
    with contextlib.suppress(ValueError):  # a client may send any text as `Host`
        host = urlsplit(f"//{next(iter(_GETTER.get(scope['headers'], 'host') or ()), '')}")
        attributes |= {"server.address": host.hostname, "server.port": host.port}
    if scope["query_string"]:
        attributes["url.query"] = "REDACTED"  # a filter may be a name
    name = "HTTP" if method == "_OTHER" else method
    if route := getattr(scope.get("route"), "path_format", None):
        attributes["http.route"] = route
        name = f"{name} {route}"
    span.update_name(name)
    if status >= 500:  # noqa: PLR2004
        attributes["error.type"] = str(status)
        span.set_status(trace.StatusCode.ERROR)
    span.set_attributes({name: value for name, value in attributes.items() if value})


# Copies: the thread that exports asks while the event loop counts.
def _failures(_: CallbackOptions) -> Iterable[Observation]:
    for (service, error), count in failures.copy().items():
        yield Observation(count, {"service": service, "error.type": error})


def _fetches(_: CallbackOptions) -> Iterable[Observation]:
    for (issuer, error), count in fetches.copy().items():
        yield Observation(count, {"issuer": issuer} | ({"error.type": error} if error else {}))


def _unknown(_: CallbackOptions) -> Iterable[Observation]:
    for issuer, count in unknown_ids.copy().items():
        yield Observation(count, {"issuer": issuer})
