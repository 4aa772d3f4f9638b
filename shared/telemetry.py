"""OpenTelemetry: set up only where it is configured; without that its API does next to nothing."""

from collections.abc import Iterable

from fastapi.telemetry import TelemetryConfig
from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Observation

from shared.azure import failures
from shared.settings import Settings

_OFF: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
# Its logs repeat validation messages, and its operation spans triple the volume.
_ON: TelemetryConfig = {"tracing": True, "metrics": True, "logs": False, "operation_spans": False}

_FEATURES = ("azure_sdk", "django", "fastapi", "flask", "psycopg2", "requests", "urllib", "urllib3")


def configure(settings: Settings) -> TelemetryConfig:
    """Export spans, metrics and logs to Azure Monitor, and return what FastAPI is to do for it.

    The worker of Azure Functions sets the exporters up itself where
    PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY is true, before this code is imported: then only the
    drivers are instrumented here.
    """
    connection_string = settings.applicationinsights_connection_string
    if connection_string is None:
        return _OFF
    # The SDK takes a second to import.
    from opentelemetry.instrumentation.asyncpg import AsyncPGInstrumentor  # noqa: PLC0415
    from opentelemetry.instrumentation.pymongo import PymongoInstrumentor  # noqa: PLC0415
    from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider  # noqa: PLC0415

    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        from azure.identity import DefaultAzureCredential  # noqa: PLC0415
        from azure.monitor.opentelemetry import configure_azure_monitor  # noqa: PLC0415

        configure_azure_monitor(
            connection_string=connection_string.get_secret_value(),
            # Ingestion without keys: the identity of the app has the role for it.
            credential=DefaultAzureCredential(managed_identity_client_id=settings.azure_client_id),
            instrumentation_options={name: {"enabled": False} for name in _FEATURES},
        )

    class Redactor(SpanProcessor):
        """Takes the query out of request spans: a filter may be a twin's name."""

        def on_start(self, span: Span, parent_context: object = None) -> None:  # noqa: ARG002
            if span.attributes and "url.query" in span.attributes:
                span.set_attribute("url.query", "REDACTED")

    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.add_span_processor(Redactor())
    # Both leave parameters and documents out by default, and do nothing the second time.
    AsyncPGInstrumentor().instrument()  # type: ignore[no-untyped-call]
    PymongoInstrumentor().instrument()
    metrics.get_meter("twins").create_observable_counter(
        "twins.vault.errors", [_failures], description="Failed reads of secrets and tokens."
    )
    return _ON


def _failures(_: CallbackOptions) -> Iterable[Observation]:
    for (service, error), count in failures.items():
        yield Observation(count, {"service": service, "error.type": error})
