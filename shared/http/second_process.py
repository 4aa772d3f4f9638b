"""`SecondProcess`: another process of the same app, which answers what would keep the first from answering others.

Threads are not enough for that: one that parses a large body or collects garbage keeps the interpreter, and the gate
waited up to 0.15 s for it.
"""

import asyncio
import contextlib
import itertools
import logging as python_logging
import os
import pickle  # nosec B403  # both ends are this program's
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from typing import Any

from fastapi import Response
from starlette.types import Scope

from shared import logging
from shared.http.problems import Unavailable
from shared.settings import Settings

logger = python_logging.getLogger(__name__)

CONNECTIONS = 2
"""The most connections to each store that the second process opens."""
LARGE = 64 * 1024
"""The size in bytes from which a body is parsed there."""

_NICENESS = 10
"""What waits for a verification can wait a little longer; what waits for the gate cannot."""
_START = 60.0
"""Seconds to the first sign of life: with a twentieth of a busy processor, the start takes twenty times as long."""
_SILENCE = 60.0
"""Seconds without a further sign after which the process is ended: it has only what others leave of the processor."""
_TURN, _EVERY = 0.0005, 0.01
"""Seconds that the first process leaves to it, and how often, where they share one processor."""

_SCOPE = {
    *("type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path", "headers")
}
_SIZES = struct.Struct("!II")
_MAIN = "from shared.http.serving import main; main()"
_MARK = "_is_in_second_process"


def in_second_process[Endpoint: Callable[..., Any]](endpoint: Endpoint) -> Endpoint:
    """Declare that the second process answers requests to this endpoint, if there is one."""
    setattr(endpoint, _MARK, True)
    return endpoint


def is_in_second_process(endpoint: Callable[..., Any]) -> bool:
    """Return whether `in_second_process` declared it."""
    return getattr(endpoint, _MARK, False)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that the first process has let in, without its body: the scope has the user."""

    scope: Scope
    log: logging.Request


@dataclass(frozen=True, slots=True)
class Answered:
    """What the first process sends and logs, without the body."""

    status: int
    headers: list[tuple[bytes, bytes]]
    log: logging.Request
    lines: list[python_logging.LogRecord]


class SecondProcess:
    """Begins with the first request for it, and ends with this process, or when it gives no sign of life."""

    def __init__(self, factory: str, settings: Settings) -> None:
        """`factory` is the place of the function that makes the app of settings, as `module:function`."""
        self._factory = factory
        # With telemetry on, the rows of its requests are this process's.
        others = {
            "postgres_pool_min": 0,
            "postgres_pool_max": CONNECTIONS,
            "postgres_pool_reserved": 0,
            "mongodb_pool_max": CONNECTIONS,
            "applicationinsights_connection_string": None,
            "second_process": False,
        }
        self._settings = settings.model_copy(update=others)
        self._starting = asyncio.Lock()
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[tuple[Answered, bytes]]] = {}
        self._leaving: asyncio.Task[None] | None = None
        self._numbers = itertools.count()

    async def answer(self, scope: Scope, body: bytes) -> Response:
        """Return the answer to a request whose user the scope has; raises `Unavailable`."""
        log: logging.Request = scope["log"]
        kept = {name: value for name, value in scope.items() if name in _SCOPE}
        answered, content = await self._ask(Asked({**kept, "user": scope["user"]}, log), body)
        log.fields, log.last = answered.log.fields, answered.log.last
        for line in answered.lines:
            python_logging.getLogger(line.name).handle(line)
        response = Response(content, answered.status)
        response.raw_headers = answered.headers
        return response

    async def close(self) -> None:
        """End the process; the next request begins another."""
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading

    async def _ask(self, asked: Asked, body: bytes) -> tuple[Answered, bytes]:
        number, future = next(self._numbers), asyncio.get_running_loop().create_future()
        try:
            async with self._starting:
                writer = self._writer or await self._start()
            self._waiting[number] = future
            write(writer, (number, asked), body)
            if self._leaving is None or self._leaving.done():
                self._leaving = asyncio.create_task(self._leave_turns(), context=Context())
            answered: tuple[Answered, bytes] = await future
        except OSError as error:
            raise _ended(error) from error
        finally:
            self._waiting.pop(number, None)
        return answered

    async def _leave_turns(self) -> None:
        """Let it run now and then while it is asked: on one processor, a busy first process would never."""
        while self._waiting and os.process_cpu_count() == 1:
            await asyncio.sleep(_EVERY)
            time.sleep(_TURN)  # noqa: ASYNC251  # all of this process is to wait

    async def _start(self) -> asyncio.StreamWriter:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-c", _MAIN, self._factory, str(theirs.fileno())),
                # A host adds the folders of its packages to the path of this process only.
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
            )
        _set_aside(process.pid)
        reader, writer = await asyncio.open_connection(sock=ours)
        write(writer, self._settings)
        self._writer = writer
        # In a context of its own: its end belongs to no request.
        self._reading = asyncio.create_task(self._read(reader, process, writer), context=Context())
        return writer

    async def _read(
        self, reader: asyncio.StreamReader, process: asyncio.subprocess.Process, writer: asyncio.StreamWriter
    ) -> None:
        patience = _START
        try:
            while True:
                async with asyncio.timeout(patience):
                    found, body = await read(reader)
                patience = _SILENCE
                if found is not None:
                    number, answered = found
                    if (future := self._waiting.get(number)) is not None and not future.done():
                        future.set_result((answered, body))
        except (OSError, EOFError, TimeoutError) as error:
            logger.error("The second process has ended", extra={"error": type(error).__name__})  # noqa: TRY400
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            self._writer = None
            writer.close()
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(ConnectionResetError())
            await process.wait()


def _set_aside(process: int) -> None:
    """Nice the second process; on one processor it runs only while nothing else would, and in its turns.

    One that is niced, and no more, gets turns of a whole tick (4 ms) of a busy processor: beside one account's worst
    the gate answered half as many requests as without it, and its p99 was three times as long.
    """
    with contextlib.suppress(OSError):  # it has ended, or the system has no such policy
        os.setpriority(os.PRIO_PROCESS, process, _NICENESS)
        if os.process_cpu_count() == 1:
            os.sched_setscheduler(process, os.SCHED_IDLE, os.sched_param(0))


def _ended(error: OSError) -> Unavailable:
    logger.warning("The second process is unavailable", extra={"error": type(error).__name__})
    return Unavailable("The process for this work has ended; another begins with the next request.")


def write(writer: asyncio.StreamWriter, message: object, body: bytes = b"") -> None:
    """Send a message to the other process, and a body as it is: a copy of 1 MiB takes a millisecond."""
    content = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    head = _SIZES.pack(len(content), len(body)) + content
    # CPython 3.13: an empty part stays in the transport's buffer, and the loop never sleeps again.
    writer.writelines([head, body] if body else [head])


async def read(reader: asyncio.StreamReader) -> tuple[Any, bytes]:
    """Return the next message and body from the other process; raises `EOFError` or `OSError` where it has ended."""
    try:
        size, body_size = _SIZES.unpack(await reader.readexactly(_SIZES.size))
        message = pickle.loads(await reader.readexactly(size))  # noqa: S301 # nosec B301  # both ends are this program's
        return message, await reader.readexactly(body_size)
    except asyncio.IncompleteReadError as error:
        raise EOFError from error
