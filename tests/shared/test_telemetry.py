"""What is exported: spans of requests and both stores, log fields, counters; and nothing personal."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from devstack.local import ROOT
from infra.checks.__main__ import FOLDER
from infra.checks.evaluate import deployment
from shared import telemetry
from tests.conftest import token
from tests.stores import MEASURED

CONNECTION = "InstrumentationKey=00000000-0000-0000-0000-000000000000;IngestionEndpoint=https://127.0.0.1:9/"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
NOT_THE_APP = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
AS_DEPLOYED = deployment(FOLDER / "prod.bicepparam", {}).settings


@pytest.fixture(scope="module")
def bearer() -> str:
    return token("person@example.com")


@pytest.fixture(scope="module", params=["app", "worker"])
def exported(request: pytest.FixtureRequest, environment: dict[str, str], bearer: str) -> dict[str, Any]:
    """Everything that a process with telemetry exported while it was used; who had set the exporters up."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.shared.exported_telemetry", request.param, bearer, f"00-{TRACE}-{PARENT}-01"],
        env=os.environ
        | MEASURED
        | environment
        | {"APPLICATIONINSIGHTS_CONNECTION_STRING": CONNECTION, "LOG_NAMES": "false", "LOG_LEVEL": "DEBUG"}
        # Of the worker: every span is kept, and nothing but telemetry is sent anywhere.
        | {NOT_THE_APP: AS_DEPLOYED[NOT_THE_APP], "OTEL_TRACES_SAMPLER": "always_on"}
        | {"APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "true", "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED": "true"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(run.stdout)
    return found


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

    assert (listed["context"]["trace_id"], listed["parent_id"]) == (f"0x{TRACE}", f"0x{PARENT}")
    assert made["parent_id"] is None


def test_the_worker_instruments_no_more_than_the_app_does() -> None:
    assert AS_DEPLOYED["PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY"] == "true"
    assert AS_DEPLOYED[NOT_THE_APP].split(",") == list(telemetry._FEATURES)


def test_log_fields_are_attributes(exported: dict[str, Any]) -> None:
    created = next(log for log in exported["logs"] if log["body"] == "Twin created")

    assert set(created["attributes"]) >= {"request_id", "owner", "twin_id", "twin_name"}


def test_decisions_and_transitions_are_counted(exported: dict[str, Any]) -> None:
    assert points(exported, "twins.decisions") == {"granted": 1, "withdrawn": 1}
    assert points(exported, "twins.consents") == {"given": 1, "withdrawn": 1, "erased": 1}
    assert points(exported, "twins.outbox.dead") == {"": 0}
    assert points(exported, "twins.outbox.age")[""] >= 0


def test_nothing_exported_is_personal_or_secret(exported: dict[str, Any], bearer: str) -> None:
    everything = json.dumps(exported)

    for secret in ("Zebulon", "secret", "person@example.com", bearer, bearer.rpartition(".")[2]):
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
