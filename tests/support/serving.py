"""The application as a process of its own, for what speaks to it from outside."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from devstack.local import ROOT
from devstack.process import LOCALHOST, free_port
from tests.support import log_search

STARTED = 30
"""Seconds until a service that does not answer has failed."""
THREADS = 1 + 32 + 1 + 8 + 6
"""At the most: the event loop, the pool of asyncio and Motor, who watches standard input, the driver's own, lanes."""
MONGO_MONITORS = 2
"""Connections on which a MongoDB driver watches a server."""


@dataclass(frozen=True)
class Service:
    """A running process and what it has written so far."""

    port: int
    pid: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://{LOCALHOST}:{self.port}"

    @property
    def written(self) -> str:
        return self.log.read_text(errors="replace")

    def is_sound(self) -> bool:
        """Tell whether it has met nothing that it did not expect."""
        return not any(sign in self.written for sign in ("Traceback", "Unhandled exception", '"level":"ERROR"'))


@contextmanager
def serving(environment: Mapping[str, str], front: str = "app") -> Iterator[Service]:
    """Serve on a port of its own, as plain ASGI (`app`) or through the Functions worker library (`functions`)."""
    port = free_port()
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "devstack.serve", front, str(port)],
            cwd=ROOT,
            env=os.environ | dict(environment),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )
        service = Service(port, process.pid, Path(log.name))
        try:
            _wait_until_ready(service, process)
            yield service
        finally:
            process.communicate(timeout=15)  # it serves for as long as its standard input is open
            log_search.keep(service.written)


def _wait_until_ready(service: Service, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTED
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{service.url}/ready", trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass  # it does not listen yet
        time.sleep(0.05)
    raise AssertionError(f"the service does not start:\n{service.written[-2000:]}")
