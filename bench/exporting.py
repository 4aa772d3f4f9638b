"""Telemetry as the worker of Azure Functions sets it up, with exporters that drop everything."""

import logging
import os
from collections.abc import Sequence
from typing import Any

from azure.monitor.opentelemetry.exporter import RateLimitedSampler
from opentelemetry import metrics, trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

TRACES_PER_SECOND = 5.0
"""The distribution's default."""


class _Spans(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002
        return SpanExportResult.SUCCESS


class _Logs(LogRecordExporter):
    def export(self, batch: Sequence[Any]) -> LogRecordExportResult:  # noqa: ARG002
        return LogRecordExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 10_000) -> bool:  # noqa: ARG002
        return True

    def shutdown(self) -> None:
        pass


def begin() -> None:
    """Set the providers, and let the application believe that it exports."""
    os.environ["APPLICATIONINSIGHTS_CONNECTION_STRING"] = "InstrumentationKey=00000000-0000-0000-0000-000000000000"
    tracers, loggers = TracerProvider(sampler=RateLimitedSampler(TRACES_PER_SECOND)), LoggerProvider()
    tracers.add_span_processor(BatchSpanProcessor(_Spans()))
    loggers.add_log_record_processor(BatchLogRecordProcessor(_Logs()))
    trace.set_tracer_provider(tracers)
    set_logger_provider(loggers)
    metrics.set_meter_provider(MeterProvider([InMemoryMetricReader()]))
    logging.getLogger().addHandler(LoggingHandler(logger_provider=loggers))
