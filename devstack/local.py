"""The folder `.local`: this machine's secrets and data, and the process that uses them."""

import contextlib
import fcntl
import json
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from devstack.process import StackError
from infra import new_secrets

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".local"
LOCK_TIMEOUT = 5.0
"""Seconds; an earlier run may still be on its way out."""


def secrets_of_this_machine() -> dict[str, str]:
    """Secret settings, made once and then always the same, by the names of their variables."""
    FOLDER.mkdir(exist_ok=True)
    file = FOLDER / "settings.json"
    if not file.exists():
        # Linked into place complete: two first runs at once agree on one file.
        with tempfile.NamedTemporaryFile("w", dir=FOLDER) as made, contextlib.suppress(FileExistsError):
            json.dump(
                {
                    "JWT_SECRETS": secrets.token_urlsafe(48),
                    "DIGEST_KEY": secrets.token_urlsafe(48),
                    "RECEIPT_KEYS": new_secrets.receipt_key(),
                },
                made,
                indent=2,
            )
            made.flush()
            os.link(made.name, file)
    values: dict[str, str] = json.loads(file.read_text())
    return values


class HeldError(StackError):
    """Another process has the claim."""

    def __init__(self, pid: int | None, url: str | None, ports: dict[str, int]) -> None:
        at = f" and serves {url}" if url else ""
        super().__init__(f"already running: process {pid} has {FOLDER}{at}. Stop that one first")
        self.ports = ports


class Claim:
    """The sole right to the servers under `.local`, and the notes kept in its lock file.

    `last_ports` are those of the previous run, so that a server keeps its port.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.last_ports: dict[str, int] = _read(file)["ports"]
        self._ports: dict[str, int] = {}
        self._write()

    def publish(self, server: str, port: int) -> None:
        """Let `make migrate` find a server that is up."""
        self._ports[server] = port
        self._write()

    def publish_url(self, url: str) -> None:
        """Let a second `make run` say where the first one serves."""
        self._write(url)

    def _write(self, url: str | None = None) -> None:
        self._file.seek(0)
        self._file.truncate()
        json.dump({"pid": os.getpid(), "url": url, "ports": self._ports}, self._file)
        self._file.flush()


@contextlib.contextmanager
def claim(timeout: float = LOCK_TIMEOUT) -> Iterator[Claim]:
    """Hold `.local` for this process; the system releases it however the process ends.

    Raises:
        HeldError: another process still holds it after `timeout` seconds.
    """
    FOLDER.mkdir(exist_ok=True)
    deadline = time.monotonic() + timeout
    with (FOLDER / "lock").open("a+") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise HeldError(**_read(file)) from None
            time.sleep(0.1)
        yield Claim(file)


def _read(file: TextIO) -> dict[str, Any]:
    file.seek(0)
    try:
        notes: dict[str, Any] = json.load(file)
    except ValueError:  # new, or being written at this moment
        return {"pid": None, "url": None, "ports": {}}
    return notes
