"""Run by test_telemetry.py in a process of its own, since providers and drivers are set up once a process.

Uses the application with an in-memory exporter, then prints what was exported as JSON. The arguments are
who sets telemetry up before the application is imported, `app`, `worker`, or `functions` for the worker behind its
host, a token, and two `traceparent`s, the second of a trace that is not recorded.
"""

import asyncio
import contextvars
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

from devstack.functions_host import Worker, WorkerTransport
from shared.http.application import Application

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


async def drain(api: Application) -> None:
    """Do what a timer or a background task does, outside of any request."""
    await api.drain()


async def use(by: str, token: str, traceparent: str, unrecorded: str) -> list[str]:
    """Send requests, and return the host's spans of them."""
    worker = Worker()
    if by == "functions":
        await worker.start()
        api: Application = sys.modules["function_app"].api
        transport: httpx.AsyncBaseTransport = WorkerTransport(worker)
    else:
        from twins.app import create_app

        api = create_app()
        transport = httpx.ASGITransport(api)
    client = httpx.AsyncClient(
        transport=transport,
        base_url="http://twins.test",
        headers={"Authorization": f"Bearer {token}"},
    )
    made = await client.post(
        "/api/v1/twins",
        json={"twin_name": "Zebulon Quartz", "use_case": "hidden use", "tone": "hidden tone", "consent": True},
    )
    path = made.headers["location"]
    await client.put(f"{path}/persona", json={"summary": "hidden summary"})
    await client.get("/api/v1/twins", params={"q": "Zebulon"}, headers={"traceparent": traceparent})
    await client.get(f"{path}/decision")
    await client.post("/api/v1/decisions", json={"items": [{"twin_id": path.rpartition("/")[2]}]})
    await client.patch(path, json={"consent": False})
    await client.get(f"{path}/decision")
    await client.post("/api/v1/twins", json={"twin_name": ["Zebulon"]})
    await client.delete(path)
    await client.get(f"{path}/ledger", headers={"traceparent": unrecorded})
    await asyncio.create_task(drain(api), context=contextvars.Context())
    await client.aclose()
    await api.close()
    await asyncio.create_task(fail(), context=contextvars.Context())
    return list(worker.traces)


async def fail() -> None:
    """Use the application without a store, and count failures of what is not there in this process."""
    from shared.kept import failures
    from shared.key_sets import fetches, unknown_ids
    from twins.app import create_app

    os.environ["POSTGRES_DSN"] = "postgresql://nobody@127.0.0.1:9/nothing"
    app = create_app()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://twins.test") as client:
        await client.get("/ready", headers={"X-Request-Id": "without-a-store"})
    await app.close()
    failures["key_vault", "403"] += 1
    fetches["https://issuer.test", "404"] += 1
    unknown_ids["https://issuer.test"] += 1


def main() -> None:
    by, token, traceparent, unrecorded = sys.argv[1:]
    export_in_memory() if by == "app" else export_as_the_worker_does()
    host = asyncio.run(use(by, token, traceparent, unrecorded))
    data = METRICS.get_metrics_data()
    found = {
        "host": host,
        "spans": [json.loads(span.to_json()) for span in SPANS.get_finished_spans()],
        "logs": [
            {
                "body": str(log.log_record.body),
                "attributes": dict(log.log_record.attributes or {}),
                "trace_id": f"0x{log.log_record.trace_id:032x}",
            }
            for log in LOGS.get_finished_logs()
        ],
        "metrics": json.loads(data.to_json()) if data else {},
    }
    sys.stdout.write(json.dumps(found, default=str))
    if by != "app":
        sys.stdout.flush()
        os._exit(0)  # else the exporters, which reach nothing, try again for a while


if __name__ == "__main__":
    main()
