"""What is exported: spans of requests and both stores, log fields, counters; and nothing personal."""

import asyncio
import json
import os
import subprocess
import sys
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any

from opentelemetry import trace
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import StatusCode
from starlette.types import Scope, Send

from devstack.local import ROOT
from shared import telemetry
from shared.http.middleware import headers, outcome
from tests.support.telemetry import AS_DEPLOYED, NOT_THE_APP, PARENT, TRACE, UNRECORDED, WITHOUT_STORE


def points(exported: dict[str, Any], name: str) -> dict[str, float]:
    """Return a metric's values by its attribute values."""
    return {
        "".join(point["attributes"].values()): point["value"]
        for resource in exported["metrics"]["resource_metrics"]
        for scope in resource["scope_metrics"]
        for metric in scope["metrics"]
        if metric["name"] == name
        for point in metric["data"]["data_points"]
    }


def test_requests_and_both_stores_have_spans_of_one_trace(exported: dict[str, Any]) -> None:
    spans = exported["spans"]
    put = next(span for span in spans if span["name"] == "PUT /api/v1/twins/{twin_id}/persona")
    systems = {
        span["attributes"].get("db.system") or span["attributes"].get("db.system.name")
        for span in spans
        if span["context"]["trace_id"] == put["context"]["trace_id"] and span is not put
    }

    assert systems >= {"postgresql", "mongodb"}
    assert put["attributes"]["http.response.status_code"] == 200


def test_a_request_goes_on_with_the_trace_of_its_caller(exported: dict[str, Any]) -> None:
    """W3C Trace Context; a request without one begins a trace."""
    listed = next(span for span in exported["spans"] if span["name"] == "GET /api/v1/twins")
    made = next(span for span in exported["spans"] if span["name"] == "POST /api/v1/twins")

    assert listed["context"]["trace_id"] == f"0x{TRACE}"
    if exported["host"]:  # whose own span is between
        assert {f"0x{span.split('-')[2]}" for span in exported["host"]} >= {listed["parent_id"], made["parent_id"]}
    else:
        assert (listed["parent_id"], made["parent_id"]) == (f"0x{PARENT}", None)


def test_everything_of_a_request_has_one_trace(exported: dict[str, Any]) -> None:
    """The host's row, the app's, those of the stores, and each log line: one operation id, in Application Insights."""
    lines: dict[str, set[str]] = {}
    for log in exported["logs"]:
        if (request_id := log["attributes"].get("request_id")) not in {None, WITHOUT_STORE}:
            lines.setdefault(request_id, set()).add(log["trace_id"])
    assert len(lines) == 10
    assert all(len(traces) == 1 for traces in lines.values())
    traces = [trace for (trace,) in lines.values()]
    assert len(set(traces)) == 10
    roots = [span for span in exported["spans"] if span["kind"] == "SpanKind.SERVER" and span["name"] != "GET /ready"]
    assert [span["context"]["trace_id"] for span in roots] == [trace for trace in traces if UNRECORDED not in trace]
    if exported["host"]:
        assert traces == [f"0x{span.split('-')[1]}" for span in exported["host"]]


def test_a_trace_that_its_caller_does_not_record_has_lines_and_no_spans(exported: dict[str, Any]) -> None:
    """By the sampled flag (W3C Trace Context §3.2), with a sampler that is called `parentbased`."""
    assert f"0x{UNRECORDED}" in {log["trace_id"] for log in exported["logs"]}
    assert f"0x{UNRECORDED}" not in {span["context"]["trace_id"] for span in exported["spans"]}


async def traced(sampler: Sampler, status: int = 200, **scope: object) -> tuple[list[ReadableSpan], list[bool]]:
    """Send one request through the layer, and return the spans, and whether drivers were to make theirs."""
    seen: list[bool] = []

    async def app(scope: Scope, _: object, send: Send) -> None:
        seen.append(is_instrumentation_enabled())
        assert trace.get_current_span().get_span_context().is_valid  # for the lines of the log
        if status == 0:
            raise asyncio.CancelledError
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def nothing(*_: object) -> Any:
        pass

    kept = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    sent = {"type": "http", "method": "GET", "path": "/ready", "query_string": b"", "headers": []} | scope
    with suppress(asyncio.CancelledError):
        layers = partial(headers, partial(outcome, app))
        await telemetry.traced(layers, provider.get_tracer("test"), sent, nothing, nothing)
    assert not trace.get_current_span().get_span_context().is_valid
    return list(kept.get_finished_spans()), seen


async def test_drivers_make_no_spans_in_a_request_that_is_not_recorded() -> None:
    assert await traced(ALWAYS_OFF) == ([], [False])
    (span,), seen = await traced(ALWAYS_ON)
    assert (span.name, span.status.status_code, seen) == ("GET", StatusCode.UNSET, [True])


async def test_a_span_has_what_the_conventions_of_http_ask_for() -> None:
    """OpenTelemetry semantic conventions 1.44, HTTP server spans."""
    route = SimpleNamespace(path_format="/api/v1/twins/{twin_id}")
    headers = [(b"host", b"[::1]:7071"), (b"traceparent", f"00-{TRACE}-{PARENT}-01".encode())]
    asked = {"method": "BREW", "path": "/api/v1/twins/7", "query_string": b"q=Zebulon", "route": route}
    (span,), _ = await traced(ALWAYS_ON, 503, headers=headers, scheme="https", http_version="2", **asked)
    assert span.name == "HTTP /api/v1/twins/{twin_id}"
    assert dict(span.attributes or {}) == {
        "http.request.method": "_OTHER",
        "http.response.status_code": 503,
        "http.route": "/api/v1/twins/{twin_id}",
        "network.protocol.version": "2",
        "url.scheme": "https",
        "url.path": "/api/v1/twins/7",
        "url.query": "REDACTED",
        "server.address": "::1",
        "server.port": 7071,
        "error.type": "503",
    }
    assert span.status.status_code is StatusCode.ERROR
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}" if span.parent else "") == (TRACE, PARENT)


async def test_a_request_that_is_not_answered_or_has_a_bad_host_has_a_span_too() -> None:
    (span,), _ = await traced(ALWAYS_ON, 0, headers=[(b"host", b"[::1")])
    assert dict(span.attributes or {}) == {
        "http.request.method": "GET",
        "network.protocol.version": "1.1",
        "url.scheme": "http",
        "url.path": "/ready",
    }


def test_the_worker_instruments_no_more_than_the_app_does() -> None:
    assert AS_DEPLOYED["PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY"] == "true"
    assert AS_DEPLOYED[NOT_THE_APP].split(",") == list(telemetry._FEATURES)


def test_log_fields_are_attributes(exported: dict[str, Any]) -> None:
    created = next(log for log in exported["logs"] if log["body"] == "Twin created")

    assert set(created["attributes"]) >= {
        *("request_id", "owner", "twin_id", "twin_name"),
        *("method", "route", "status", "duration_ms", "transition"),
    }


def test_decisions_and_transitions_are_counted(exported: dict[str, Any]) -> None:
    assert points(exported, "twins.decisions") == {"granted": 2, "withdrawn": 1}
    assert points(exported, "twins.consents") == {"given": 1, "withdrawn": 1, "erased": 1}
    assert points(exported, "twins.outbox.dead") == {"": 0}
    assert points(exported, "twins.outbox.age")[""] >= 0
    assert points(exported, "twins.ledger.broken")[""] >= 0
    assert points(exported, "twins.ledger.age")[""] >= 0


def test_nothing_exported_is_personal_or_secret(exported: dict[str, Any], bearer: str) -> None:
    everything = json.dumps(exported)

    for secret in ("Zebulon", "hidden", "person@example.com", bearer, bearer.rpartition(".")[2]):
        assert secret not in everything


def test_without_configuration_no_sdk_is_imported(environment: dict[str, str]) -> None:
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "import function_app, sys; print(*(m for m in sys.modules if 'opentelemetry.sdk' in m))",
        ],
        env=os.environ | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == ""
