"""A server process: started until it answers, stopped in order, or disturbed on purpose by a test."""

import contextlib
import random
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

import psutil

LOCALHOST = "127.0.0.1"
START_TIMEOUT = 60.0
"""Seconds; recovery after a crash may have a long log to replay."""
STOP_TIMEOUT = 15.0
GRACE = 5
"""Seconds for requests under way to finish when the app stops."""
LOG_TAIL_LINES = 15


class StackError(Exception):
    """A problem that a person has to fix; the text says what it is, and how."""


def port_is_free(port: int) -> bool:
    """Return whether a server could listen on `port` of the loopback address now."""
    with socket.socket() as probe:
        # As servers do: connections in TIME_WAIT do not take a port, a listening socket does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOCALHOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Choose a free port below the range that outgoing connections use.

    A port from that range could be taken by any client while its server is down, and a server
    has to come back on the port it had.
    """
    return next(port for port in iter(lambda: random.randrange(20_000, 32_000), None) if port_is_free(port))  # noqa: S311 # nosec B311  # protects nothing


class Server(ABC):
    """One server process over one data folder, on one port of the loopback address.

    A context manager: started on entry, stopped on exit. After `stop` or `kill`, `start` brings it
    back with the same data, on the same port unless another program has taken it since. Not safe
    for use from two threads at once.
    """

    name: str
    stop_signal: signal.Signals
    """The signal for an orderly stop that does not wait for clients to leave."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder = folder.resolve()
        self.port = port or free_port()
        self.log = self.folder / f"{self.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        """The server's own files, and its working directory: this identifies a stale server."""
        return self.folder / "data"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        return self._running().pid

    def start(self) -> None:
        """Start the server and wait until it takes work.

        First stops a server that a killed run left behind on the same data.

        Raises:
            StackError: it did not start; the text ends with the tail of its log.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stop_stale()
        if not port_is_free(self.port):
            self.port = free_port()
        self._prepare()
        with self.log.open("wb") as log:
            # A session of its own: Ctrl-C in the terminal reaches the process that started it, which stops it
            # after the app has let go.
            self._process = subprocess.Popen(
                self._command(),
                cwd=self.data,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **self._credentials(),
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop in order, and keep every acknowledged write; does nothing if it is not running."""
        if self._process is None:
            return
        self.resume()
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """End it and its children at once by SIGKILL, like a crash."""
        process = self._running()
        _kill_tree(process.pid)
        process.wait()
        self._process = None

    def pause(self) -> None:
        """Freeze it and its children by SIGSTOP: connections stay open, and nothing answers."""
        self._signal_tree(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`; does nothing if it is not paused."""
        self._signal_tree(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def _prepare(self) -> None:
        """Make the data folder if there is none yet."""

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the server's argument list."""

    def _credentials(self) -> dict[str, Any]:
        """Return the arguments of `Popen` that choose the system user."""
        return {}

    @abstractmethod
    def _ready(self) -> bool:
        """Return whether the server takes work; called until it does."""

    @property
    @abstractmethod
    def _pid_file(self) -> Path:
        """Return the file where the server writes its process id, on the first line."""

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise StackError(f"{self.name} is not running")
        return self._process

    def _wait_until_ready(self) -> None:
        process = self._running()
        deadline = time.monotonic() + START_TIMEOUT
        while process.poll() is None and time.monotonic() < deadline:
            if self._ready():
                return
            time.sleep(0.02)
        outcome = "did not get ready" if process.poll() is None else f"ended with {process.returncode}"
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
        raise StackError(f"{self.name} {outcome}. The end of {self.log}:\n{tail}")

    def _signal_tree(self, number: signal.Signals) -> None:
        # Each PostgreSQL backend leads a process group of its own, so a group would miss them; the
        # parent comes first, lest it start a child in between.
        with contextlib.suppress(psutil.NoSuchProcess):
            server = psutil.Process(self.pid)
            server.send_signal(number)
            for child in server.children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.send_signal(number)

    def _stop_stale(self) -> None:
        try:
            stale = psutil.Process(int(self._pid_file.read_text().split()[0]))
            is_ours = Path(stale.cwd()) == self.data
        except (FileNotFoundError, IndexError, ValueError, psutil.NoSuchProcess, psutil.AccessDenied):
            return
        if not is_ours:
            # Another process has got the number since, for example after a reboot. PostgreSQL would
            # mistake that process for itself and refuse to start.
            self._pid_file.unlink()
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            stale.resume()
            stale.send_signal(self.stop_signal)
            try:
                stale.wait(STOP_TIMEOUT)
            except psutil.TimeoutExpired:
                _kill_tree(stale.pid)


def _kill_tree(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        server = psutil.Process(pid)
        # Listed before the parent dies, since its orphans would no longer be its children.
        family = [server, *server.children(recursive=True)]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family, timeout=STOP_TIMEOUT)
