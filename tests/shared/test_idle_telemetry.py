"""Nothing happens and nothing is logged: what is exported must not cause the next export."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devstack.local import ROOT
from shared import telemetry
from tests.support.azure_server import AzureMonitor, IdentityEndpoint

IDLE = "Nothing but the exporters runs from here on"
METRICS = 200
LIVE = 3
TIMEOUT = 60

PROGRAM = f"""
import asyncio, logging, os, sys
from azure.monitor.opentelemetry.exporter._quickpulse import _exporter
from devstack.functions_host import Worker

_exporter._POST_INTERVAL_SECONDS = 0.01  # in place of a second
logging.getLogger().setLevel(logging.DEBUG)  # as a host may
asyncio.run(Worker().start())
logging.getLogger("twins").info({IDLE!r})
sys.stdin.read()
os._exit(0)  # without a last export
"""


@pytest.mark.parametrize("by_the_worker", ["true", "false"])
@pytest.mark.parametrize("status", [200, 500])
async def test_an_idle_process_exports_its_metrics_and_nothing_else(
    environment: dict[str, str], tmp_path: Path, by_the_worker: str, status: int
) -> None:
    async with AzureMonitor(status) as monitor, IdentityEndpoint() as identity:
        trusted = tmp_path / "trusted.pem"
        trusted.write_text(monitor.certificate_pem)
        as_deployed = identity.environment | {
            "APPLICATIONINSIGHTS_CONNECTION_STRING": monitor.connection_string,
            "APPLICATIONINSIGHTS_AUTHENTICATION_STRING": "Authorization=AAD",
            "PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY": by_the_worker,
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": ",".join(telemetry._FEATURES),
        }
        here = {
            "REQUESTS_CA_BUNDLE": str(trusted),
            "TMPDIR": str(tmp_path),
            "OTEL_BLRP_SCHEDULE_DELAY": "20",  # milliseconds, in place of a second
            "OTEL_METRIC_EXPORT_INTERVAL": "50",  # in place of a minute
            "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "true",
            "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED": "true",
        }
        with idle_process(environment | as_deployed | here):
            await until(lambda: bool(idle_rows(monitor)))
            live = monitor.live
            await until(lambda: len(idle_rows(monitor)) >= METRICS and monitor.live >= live + LIVE)

    assert [row for kind, row in idle_rows(monitor) if kind != "MetricData"] == []
    assert identity.tokens


@contextmanager
def idle_process(environment: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=os.environ | environment, cwd=ROOT, stdin=subprocess.PIPE
    )
    try:
        yield
    finally:
        process.communicate()


def idle_rows(monitor: AzureMonitor) -> list[tuple[str, dict[str, object]]]:
    """What came after the last line that says so: with what was sent beside it, it comes again after an error."""
    said = [n for n, (_, row) in enumerate(monitor.rows) if row.get("message") == IDLE]
    return monitor.rows[said[-1] + 1 :] if said else []


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            await asyncio.sleep(0.05)
