"""The second process: it answers the requests that come over its connection to the first."""

import asyncio
import importlib
import logging as python_logging
import socket
import sys
from contextvars import ContextVar
from logging.handlers import QueueHandler
from typing import override

from shared import logging
from shared.http.application import Application
from shared.http.middleware import failed
from shared.http.second_process import Answered, Asked, read, write
from shared.http.unstreamed import call

_BEAT = 2.0
"""Seconds between two signs of life."""

_lines: ContextVar[list[python_logging.LogRecord] | None] = ContextVar("lines", default=None)


class _Lines(QueueHandler):
    """Keeps the lines of each request for the first process, which has the handlers."""

    def __init__(self) -> None:
        super().__init__(None)  # type: ignore[arg-type]

    @override
    def enqueue(self, record: python_logging.LogRecord) -> None:
        lines = _lines.get()
        if lines is not None:
            lines.append(record)
        elif python_logging.lastResort is not None:
            python_logging.lastResort.handle(record)


async def serve(factory: str, connection: socket.socket) -> None:
    """Answer what comes over a connection, until its end."""
    reader, writer = await asyncio.open_connection(sock=connection)
    settings, _ = await read(reader)
    module, _, name = factory.partition(":")
    app: Application = getattr(importlib.import_module(module), name)(settings)
    try:
        # Where one fails, say since its answer cannot be sent, all end: the first process begins another.
        async with asyncio.TaskGroup() as group:
            group.create_task(_beat(writer))
            while True:
                (number, asked), body = await read(reader)
                group.create_task(_answer(app, writer, number, asked, body))
    except* (EOFError, OSError):
        pass  # the first process has ended
    finally:
        writer.close()
        await app.close()


async def _beat(writer: asyncio.StreamWriter) -> None:
    while True:
        write(writer, None)
        await asyncio.sleep(_BEAT)


async def _answer(app: Application, writer: asyncio.StreamWriter, number: int, asked: Asked, body: bytes) -> None:
    logging.resume(asked.log)
    lines: list[python_logging.LogRecord] = []
    _lines.set(lines)
    scope = {**asked.scope, "app": app, "log": asked.log}
    try:
        status, headers, content = await call(app.answering, scope, body)
    except Exception as error:  # noqa: BLE001 - the client gets an answer in any case
        status, headers, content = await call(failed(error, scope["path"]), scope, b"")
    write(writer, (number, Answered(status, headers, asked.log, lines)), content)


def main() -> None:
    """Serve the app that the command line names, over the connection that it names."""
    _, factory, descriptor = sys.argv
    python_logging.getLogger().addHandler(_Lines())
    asyncio.run(serve(factory, socket.socket(fileno=int(descriptor))))
