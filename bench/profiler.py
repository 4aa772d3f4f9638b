"""The processor time of an application under load, by part: py-spy's samples, by the caller of the work."""

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from bench.stack import App

RATE = 250
"""Samples per second."""

# A sample belongs to the innermost frame of one of these; the standard library works for its caller.
PARTS = {
    "server (uvicorn)": ("uvicorn/", "h11/", "httptools/"),
    "Starlette and FastAPI": ("starlette/", "fastapi/"),
    "Pydantic": ("pydantic/",),
    "PostgreSQL driver": ("asyncpg/",),
    "MongoDB driver": ("motor/", "pymongo/", "bson/"),
    "logging": ("logging/", "pythonjsonlogger/", "shared/logging.py"),
    "telemetry": ("opentelemetry/",),
    "token": ("jose/", "shared/auth.py"),
    "this application": ("twins/", "shared/"),
    "event loop": ("asyncio/", "selectors.py"),
}


def shares(app: App, requests: list[bytes], seconds: int) -> dict[str, float]:
    """Load an application, and return each part's share of its event loop's time, the largest first."""
    with tempfile.NamedTemporaryFile() as stacks:
        sampler = subprocess.Popen(
            [
                *(str(Path(sys.executable).with_name("py-spy")), "record", "--pid", str(app.process.pid)),
                *("--format", "raw", "--rate", str(RATE), "--duration", str(seconds), "--output", stacks.name),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        app.run(requests, seconds + 1, 16)
        _, errors = sampler.communicate()
        if sampler.returncode:
            raise RuntimeError(f"py-spy failed: {errors}")
        lines = Path(stacks.name).read_text().splitlines()
    counted = _count(lines)
    total = sum(counted.values())
    return {part: round(count / total, 3) for part, count in counted.most_common()}


def _count(lines: list[str]) -> Counter[str]:
    """Count samples (`frame;frame;… count`, the innermost last) by part."""
    counted: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        # A thread in select is idle, though it looks busy when it loses the processor there.
        if "run_forever" in stack and "select (selectors.py" not in stack:
            counted[_part(stack.split(";"))] += int(count)
    return counted


def _part(frames: list[str]) -> str:
    for frame in reversed(frames):
        file = frame.rpartition(" (")[2]
        for part, prefixes in PARTS.items():
            if any(file.startswith(prefix) for prefix in prefixes):
                return part
    return "other"
