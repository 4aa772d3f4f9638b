"""What a process with telemetry exports while the app in it is used."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from devstack.local import ROOT
from infra.checks.deployment import FOLDER, read
from tests.support.app import token
from tests.support.stores import MEASURED

CONNECTION = "InstrumentationKey=00000000-0000-0000-0000-000000000000;IngestionEndpoint=https://127.0.0.1:9/"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
WITHOUT_STORE = "without-a-store"
"""The id of the request to an application that reaches no store, and has no host."""
UNRECORDED = "4bf92f3577b34da6a3ce929d0e0e4736"
NOT_THE_APP = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
AS_DEPLOYED = read(FOLDER / "prod.snapshot.json").settings


@pytest.fixture(scope="module")
def bearer() -> str:
    return token("person@example.com")


@pytest.fixture(scope="module", params=["app", "worker", "functions"])
def exported(request: pytest.FixtureRequest, environment: dict[str, str], bearer: str) -> dict[str, Any]:
    """Everything that a process with telemetry exported while it was used; who had set the exporters up."""
    run = subprocess.run(
        [
            *(sys.executable, "-m", "tests.support.exported_telemetry", request.param, bearer),
            *(f"00-{TRACE}-{PARENT}-01", f"00-{UNRECORDED}-{PARENT}-00"),
        ],
        env=os.environ
        | MEASURED
        | environment
        | {"APPLICATIONINSIGHTS_CONNECTION_STRING": CONNECTION, "LOG_NAMES": "false", "LOG_LEVEL": "DEBUG"}
        # Of the worker: every span is kept but of callers who record none, and nothing but telemetry is sent anywhere.
        | {NOT_THE_APP: AS_DEPLOYED[NOT_THE_APP], "OTEL_TRACES_SAMPLER": "parentbased_always_on"}
        | {"APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "true", "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED": "true"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(run.stdout)
    return found
