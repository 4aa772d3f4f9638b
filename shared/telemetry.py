"""OpenTelemetry, only where it is configured: without that its API does almost nothing."""

import logging
from collections.abc import Iterable

from fastapi.telemetry import TelemetryConfig
from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Observation
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.kept import failures
from shared.key_sets import fetches, unknown_ids
from shared.settings import Settings

_OFF: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
# FastAPI's logs repeat validation messages, its operation spans triple the volume, and its metrics say what the rows of
# requests say, for a quarter of the gate's time.
_ON: TelemetryConfig = {"tracing": True, "metrics": False, "logs": False, "operation_spans": False}

_EXPORTING = ("azure.core", "azure.identity", "azure.monitor", "msal", "opentelemetry", "requests", "urllib3")
"""Loggers of the exporters and their transports: the export of one line would log the next."""

_FEATURES = ("azure_sdk", "django", "fastapi", "flask", "httpx", "psycopg2", "requests", "urllib", "urllib3")


def configure(settings: Settings, product: str) -> TelemetryConfig:
    """Export spans, metrics and logs to Azure Monitor, and return FastAPI's part in that.

    `product` is the name of the meter and the prefix of its metrics. Where
    PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY is true, the worker of Azure Functions has set up the
    exporters before this code is imported; then this function only instruments the drivers.
    """
    connection_string = settings.applicationinsights_connection_string
    if connection_string is None:
        return _OFF
    # The SDK takes a second to import.
    from opentelemetry.instrumentation.asyncpg import AsyncPGInstrumentor  # noqa: PLC0415
    from opentelemetry.instrumentation.logging.handler import LoggingHandler  # noqa: PLC0415
    from opentelemetry.instrumentation.pymongo import PymongoInstrumentor  # noqa: PLC0415
    from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider  # noqa: PLC0415

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

    class Redactor(SpanProcessor):
        """Removes the query from request spans: a filter may be a name."""

        def on_start(self, span: Span, parent_context: object = None) -> None:  # noqa: ARG002
            if span.attributes and "url.query" in span.attributes:
                span.set_attribute("url.query", "REDACTED")

    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.add_span_processor(Redactor())
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
    return _ON


async def spare(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Keep drivers from making spans in a request whose own is not recorded: they would prepare each for nothing."""
    if trace.get_current_span().is_recording():
        await app(scope, receive, send)
        return
    from opentelemetry.instrumentation.utils import suppress_instrumentation  # noqa: PLC0415 - with the SDK only

    with suppress_instrumentation():
        await app(scope, receive, send)


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
