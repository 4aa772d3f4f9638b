"""Run by test_telemetry.py in a process of its own, since providers and drivers are set up once a process.

Uses the application with an in-memory exporter, then prints what was exported as JSON.
"""

import asyncio
import json
import logging
import sys

import httpx
from opentelemetry import metrics, trace
from opentelemetry._logs import set_logger_provider
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


async def use(token: str) -> None:
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
    await client.get("/api/v1/twins", params={"q": "Zebulon"})
    await client.get(f"{path}/decision")
    await client.patch(path, json={"consent": False})
    await client.get(f"{path}/decision")
    await client.post("/api/v1/twins", json={"twin_name": ["Zebulon"]})
    await client.delete(path)
    await app.drain()
    await client.aclose()
    await app.close()


def main() -> None:
    export_in_memory()
    asyncio.run(use(sys.argv[1]))
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


if __name__ == "__main__":
    main()
