"""The committed OpenAPI document, and an earlier one, against the running service."""

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
EARLIER = Path(__file__).with_name("earlier_openapi.json")
"""The document of the release before consents had an assurance, without its texts."""


@pytest.mark.parametrize(
    ("front", "phases"), [("app", "examples,coverage,fuzzing,stateful"), ("functions", "examples,coverage")]
)
def test_every_answer_is_as_the_document_says(
    front: str, phases: str, environment: dict[str, str], tmp_path: Path
) -> None:
    cases = _run(environment, front, tmp_path, ROOT / "docs/openapi.json", "--phases", phases)
    record("schemathesis", {"front": front, "phases": phases, "cases": cases})


def test_a_client_of_the_earlier_document_is_answered_as_that_says(environment: dict[str, str], tmp_path: Path) -> None:
    # What was no request then may be one now.
    assert _run(environment, "app", tmp_path, EARLIER, "--mode", "positive")


def _run(environment: dict[str, str], front: str, folder: Path, document: Path, *options: str) -> int:
    """Run Schemathesis with a document, and return the number of its requests."""
    with serving(environment, front) as service:
        run = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "--no-color", "run"),
                *(str(document), "--url", service.url, "--max-examples", "3", *options),
            ],
            cwd=folder,
            env=os.environ | {"TOKEN": token("schemathesis")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        assert service.is_sound(), service.written
    cases = re.search(r"(\d+) generated", run.stdout)
    assert cases, run.stdout
    return int(cases[1])
