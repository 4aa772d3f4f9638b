"""The committed OpenAPI document against the running service, through both of its fronts."""

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from devstack.local import ROOT
from devstack.process import LOCALHOST, free_port
from tests.conftest import token

CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.mark.parametrize(
    ("front", "phases"), [("app", "examples,coverage,fuzzing,stateful"), ("functions", "examples,coverage")]
)
def test_every_answer_is_as_the_document_says(
    front: str, phases: str, environment: dict[str, str], tmp_path: Path
) -> None:
    port = free_port()
    url = f"http://{LOCALHOST}:{port}"
    with (tmp_path / "log").open("w+") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "devstack.serve", front, str(port)],
            cwd=ROOT,
            env=os.environ | environment,
            stdin=subprocess.PIPE,  # it ends when this closes
            stdout=log,
            stderr=log,
        )
        try:
            _wait(f"{url}/ready", server)
            run = subprocess.run(
                [
                    *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "--no-color", "run"),
                    *(str(ROOT / "docs/openapi.json"), "--url", url, "--phases", phases, "--max-examples", "3"),
                ],
                cwd=tmp_path,
                env=os.environ | {"TOKEN": token("schemathesis")},
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            server.communicate()
        log.seek(0)
        written = log.read()

    assert run.returncode == 0, run.stdout + run.stderr
    assert "Unhandled exception" not in written, written
    assert "Traceback" not in written, written


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        try:
            if httpx.get(url).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    pytest.fail("the service does not start")
