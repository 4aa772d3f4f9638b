"""Run by test_telemetry.py in a process of its own, since providers and drivers are set up once a process.

Uses the application with an in-memory exporter, then prints what was exported as JSON. The arguments are
who sets telemetry up before the application is imported, `app` or `worker`, a token, and a `traceparent`.
"""

import asyncio
import json
import logging
import os
import sys

import httpx
from azure_functions_runtime import otel
from opentelemetry import metrics, trace
from opentelemetry._logs import get_logger_provider, set_logger_provider
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

SPANS, LOGS, METRICS = InMemorySpanExporter(), InMemoryLogRecordExporter(), InMemoryMetricReader()  # type: ignore[no-untyped-call]


def export_in_memory() -> None:
    tracers, loggers = TracerProvider(), LoggerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(SPANS))
    loggers.add_log_record_processor(SimpleLogRecordProcessor(LOGS))
    trace.set_tracer_provider(tracers)
    set_logger_provider(loggers)
    metrics.set_meter_provider(MeterProvider([METRICS]))
    logging.getLogger().addHandler(LoggingHandler(logger_provider=loggers))


def export_as_the_worker_does() -> None:
    """Let the worker of Azure Functions set up its exporters, which reach nothing here, and listen in."""
    otel.initialize_azure_monitor()
    tracers, loggers, meters = trace.get_tracer_provider(), get_logger_provider(), metrics.get_meter_provider()
    assert isinstance(tracers, TracerProvider)
    assert isinstance(loggers, LoggerProvider)
    assert isinstance(meters, MeterProvider)
    tracers.add_span_processor(SimpleSpanProcessor(SPANS))
    loggers.add_log_record_processor(SimpleLogRecordProcessor(LOGS))
    meters.add_metric_reader(METRICS)


async def use(token: str, traceparent: str) -> None:
    from twins.app import create_app

    app = create_app()
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://twins.test",
        headers={"Authorization": f"Bearer {token}"},
    )
    made = await client.post(
        "/api/v1/twins",
        json={"twin_name": "Zebulon Quartz", "use_case": "secret use", "tone": "secret tone", "consent": True},
    )
    path = made.headers["location"]
    await client.put(f"{path}/persona", json={"summary": "secret summary"})
    await client.get("/api/v1/twins", params={"q": "Zebulon"}, headers={"traceparent": traceparent})
    await client.get(f"{path}/decision")
    await client.patch(path, json={"consent": False})
    await client.get(f"{path}/decision")
    await client.post("/api/v1/twins", json={"twin_name": ["Zebulon"]})
    await client.delete(path)
    await app.drain()
    await client.aclose()
    await app.close()


def main() -> None:
    by, token, traceparent = sys.argv[1:]
    export_as_the_worker_does() if by == "worker" else export_in_memory()
    asyncio.run(use(token, traceparent))
    data = METRICS.get_metrics_data()
    found = {
        "spans": [json.loads(span.to_json()) for span in SPANS.get_finished_spans()],
        "logs": [
            {"body": str(log.log_record.body), "attributes": dict(log.log_record.attributes or {})}
            for log in LOGS.get_finished_logs()
        ],
        "metrics": json.loads(data.to_json()) if data else {},
    }
    sys.stdout.write(json.dumps(found, default=str))
    if by == "worker":
        sys.stdout.flush()
        os._exit(0)  # else the exporters, which reach nothing, try again for a while


if __name__ == "__main__":
    main()
