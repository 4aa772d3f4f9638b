"""The application as a process of its own, for what people run against it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from devstack.local import ROOT
from devstack.process import LOCALHOST, free_port


@contextmanager
def serving(environment: dict[str, str]) -> Iterator[str]:
    """Serve on a port of its own, and lend the address."""
    port = free_port()
    url = f"http://{LOCALHOST}:{port}"
    command = [sys.executable, "-m", "devstack.serve", "app", str(port)]
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | environment, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as app:
        try:
            _wait_until_ready(url)
            yield url
        finally:
            app.communicate(timeout=15)  # it serves for as long as its standard input is open


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/ready", trust_env=False).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass  # it does not listen yet
        time.sleep(0.05)
    raise TimeoutError(url)
