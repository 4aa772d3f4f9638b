"""The committed OpenAPI document against the running service, through both of its fronts."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from devstack.local import ROOT
from tests.support.app import token
from tests.support.figures import record
from tests.support.serving import serving

CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.mark.parametrize(
    ("front", "phases"), [("app", "examples,coverage,fuzzing,stateful"), ("functions", "examples,coverage")]
)
def test_every_answer_is_as_the_document_says(
    front: str, phases: str, environment: dict[str, str], tmp_path: Path
) -> None:
    with serving(environment, front) as service:
        run = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "--no-color", "run"),
                *(str(ROOT / "docs/openapi.json"), "--url", service.url, "--phases", phases, "--max-examples", "3"),
            ],
            cwd=tmp_path,
            env=os.environ | {"TOKEN": token("schemathesis")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        assert service.is_sound(), service.written
    cases = re.search(r"(\d+) generated", run.stdout)
    assert cases, run.stdout
    record("schemathesis", {"front": front, "phases": phases, "cases": int(cases[1])})
