"""Requests as bytes, and wrk, which sends them."""

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from devstack.process import LOCALHOST

SCRIPT = Path(__file__).with_name("wrk.lua")
SEPARATOR = b"\x1e"


class LoadError(Exception):
    """An application gave a wrong answer or none, so there is no figure."""


@dataclass(frozen=True)
class Outcome:
    """The figures of wrk, and the processor time of the server's process."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    """The server's processor time per request, in microseconds."""

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def head(
    method: str, target: str, owner: str, token: str, length: int, content_type: str = "application/json"
) -> bytes:
    """Return the head of an HTTP/1.1 request with a body of so many bytes.

    `X-Owner` is for the peer that reads no tokens.
    """
    lines = [
        f"{method} {target} HTTP/1.1",
        f"Host: {LOCALHOST}",
        f"X-Owner: {owner}",
        f"Authorization: Bearer {token}",
    ]
    if length:
        lines += [f"Content-Type: {content_type}", f"Content-Length: {length}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def request(
    method: str, target: str, owner: str, token: str, body: object = None, content_type: str = "application/json"
) -> bytes:
    """Return one HTTP/1.1 request."""
    content = b"" if body is None else json.dumps(body).encode()
    return head(method, target, owner, token, len(content), content_type) + content


@contextmanager
def request_file(requests: Sequence[bytes]) -> Iterator[Path]:
    """Write requests to a file that the script reads."""
    with tempfile.NamedTemporaryFile(prefix="twins-bench-") as file:
        file.write(SEPARATOR.join(requests))
        file.flush()
        yield Path(file.name)


def run(server: psutil.Process, port: int, requests: Sequence[bytes], seconds: int, connections: int) -> Outcome:
    """Load a server for some seconds.

    Raises:
        LoadError: an answer was not 2xx or 3xx, or did not come.
    """
    with request_file(requests) as file:
        before = server.cpu_times()
        done = subprocess.run(
            [
                *("wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"),
                *("--script", str(SCRIPT), f"http://{LOCALHOST}:{port}", "--", str(file)),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        after = server.cpu_times()
    found = json.loads(done.stdout.splitlines()[-1])
    if found.pop("errors") or not found["requests"]:
        first = requests[0].partition(b"\r\n")[0].decode()
        raise LoadError(f"failed answers under load, such as to {first}:\n{done.stdout}")
    spent = after.user + after.system - before.user - before.system
    return Outcome(**found, cpu_us=spent / found["requests"] * 1e6)


def wait_until_listening(process: psutil.Process, port: int, timeout: float = 30) -> None:
    """Wait until the server takes connections."""
    deadline = time.monotonic() + timeout
    while not any(connection.laddr.port == port for connection in process.net_connections("tcp")):
        if time.monotonic() > deadline or not process.is_running():
            raise LoadError(f"nothing listens on port {port}")
        time.sleep(0.05)
