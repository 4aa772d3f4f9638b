"""`python -m proof [step …]`: run everything that backs the claims of the docs, and write docs/PROOF.md.

Each step writes its figures to `figures/<step>.json`, the only source of the page. With
PROFILE=short every step is smaller, the figures go to `.local/proof`, and the page stays unchanged.
`--page` only writes the page; `--check` fails if it is not current.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from devstack import local
from devstack.local import ROOT
from proof import audit, mutation, page

SHORT = os.environ.get("PROFILE") == "short"
FOLDER = local.FOLDER / "proof" if SHORT else page.FIGURES
PYTEST = (sys.executable, "-m", "pytest", "--quiet")


def _run(*command: str) -> None:
    profile = {"PROFILE": "short" if SHORT else "full", "FIGURES": str(FOLDER)}
    done = subprocess.run(command, cwd=ROOT, env=os.environ | profile, check=False)
    if done.returncode:
        sys.exit(f"failed: {' '.join(command)}")


def tests() -> dict[str, Any]:
    """Run `make test`, and return its figures."""
    junit, coverage = FOLDER / "junit.xml", FOLDER / "coverage.json"
    _run("make", "test", f"REPORTS=--junitxml={junit} --cov-report=json:{coverage}")
    found = page.tests(junit, coverage)
    junit.unlink()
    coverage.unlink()
    return found


def bench() -> dict[str, Any]:
    """Compare with the peers, after a test that they do the same work; the comparison keeps its own figures."""
    _run(*PYTEST, "tests/bench")
    _run("make", "bench")
    return {}


def resilience() -> dict[str, Any]:
    """Run the faults on real processes."""
    _run(*PYTEST, "tests/resilience")
    return {}


def fuzz() -> dict[str, Any]:
    """Send hostile bytes and strings, and run one client that exhausts what it can."""
    _run(*PYTEST, "tests/hostile/long")
    return {}


def browser() -> dict[str, Any]:
    """Give and withdraw a consent on the documentation page."""
    _run(sys.executable, "-m", "tests.support.browser")
    _run(*PYTEST, "tests/docs/test_browser.py")
    return {}


STEPS: dict[str, Callable[[], dict[str, Any]]] = {
    "tests": tests,
    "browser": browser,
    "fuzz": fuzz,
    "resilience": resilience,
    "audit": audit.run,
    "bench": bench,
    "mutation": mutation.run,
}
NOT_SHORT = ("tests", "mutation")
"""Steps that PROFILE=short leaves out: `make test` is short by itself, and mutants take too long."""


def _take(step: str) -> None:
    """Run a step, and keep its own figures and those that its tests recorded."""
    print(f"proof: {step} …", file=sys.stderr, flush=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    figures: dict[str, Any] = STEPS[step]()
    for file in sorted(FOLDER.glob("*.jsonl")):
        figures[file.stem] = [json.loads(line) for line in file.read_text().splitlines()]
        file.unlink()
    made = {
        "made_at": datetime.now(UTC).date().isoformat(),
        "seconds": round(time.monotonic() - started),
        "figures": figures,
    }
    if figures:
        (FOLDER / f"{step}.json").write_text(json.dumps(made, indent=1) + "\n")


def main(arguments: list[str]) -> None:
    """Run the command line."""
    if arguments == ["--check"]:
        page.check()
        return
    if arguments != ["--page"]:
        for file in FOLDER.glob("*.jsonl"):
            file.unlink()  # of a run that failed
        for step in arguments or [step for step in STEPS if not (SHORT and step in NOT_SHORT)]:
            _take(step)
    if not SHORT:
        page.write()
        print(page.PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main(sys.argv[1:])
