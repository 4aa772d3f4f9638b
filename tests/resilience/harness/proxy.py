"""A TCP proxy that is as bad as a network can be: slow, cut off mid-answer, or a black hole."""

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from devstack.process import LOCALHOST

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER of no time at all: closing sends RST, as a peer that has crashed does."""


class Proxy:
    """Forwards to a port of this machine, from a port of its own, until told to misbehave.

    Every member may be changed while connections are open, and holds for those too.
    """

    def __init__(self, target: int, seed: int = 0) -> None:
        self.port = 0
        self.delay_up = 0.0
        """Seconds that bytes to the server are held back."""
        self.delay_down = 0.0
        """Seconds that bytes to the client are held back."""
        self.cut_within: tuple[int, int] | None = None
        """Bytes to the client after which a connection is cut, chosen anew for each connection."""
        self.cuts = 0
        self._target = target
        self._random = random.Random(seed)
        self._hole = False
        self._connections: set[_Connection] = set()

    def open_hole(self) -> None:
        """Swallow every byte both ways; connecting still works, as with a hung server."""
        self._hole = True

    def close_hole(self) -> None:
        """Forward again; connections that lost bytes are reset, as by a firewall that forgot them."""
        self._hole = False
        for connection in self._connections:
            if connection.lost_bytes:
                connection.reset()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Proxy"]:
        """Listen until the end of the block."""
        server = await asyncio.start_server(self._serve, LOCALHOST, self.port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for connection in self._connections:
                connection.reset()
            while self._connections:
                await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection(LOCALHOST, self._target)
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(writer, up_writer)
        self._connections.add(connection)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._up(connection, reader))
                group.create_task(self._down(connection, up_reader))
        finally:
            connection.reset()
            self._connections.discard(connection)

    async def _up(self, connection: "_Connection", reader: asyncio.StreamReader) -> None:
        await self._pump(connection, reader, connection.up, lambda: self.delay_up, lambda data: data)

    async def _down(self, connection: "_Connection", reader: asyncio.StreamReader) -> None:
        sent = 0
        budget: int | None = None

        def cut(data: bytes) -> bytes:
            nonlocal sent, budget
            if self.cut_within is None:
                return data
            if budget is None:
                budget = sent + self._random.randint(*self.cut_within)
            kept = data[: max(0, budget - sent)]
            sent += len(kept)
            return kept

        await self._pump(connection, reader, connection.down, lambda: self.delay_down, cut)

    async def _pump(
        self,
        connection: "_Connection",
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        delay: Callable[[], float],
        cut: Callable[[bytes], bytes],
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                await asyncio.sleep(delay())
                if self._hole:
                    connection.lost_bytes = True
                    continue
                kept = cut(data)
                writer.write(kept)
                await writer.drain()
                if len(kept) < len(data):
                    self.cuts += 1
                    break
            while self._hole and not connection.is_reset:  # the end of a stream is swallowed too
                connection.lost_bytes = True
                await asyncio.sleep(0.01)
        connection.reset()


class _Connection:
    """Both ends of one connection through the proxy."""

    def __init__(self, down: asyncio.StreamWriter, up: asyncio.StreamWriter) -> None:
        self.down = down
        self.up = up
        self.lost_bytes = False
        self.is_reset = False

    def reset(self) -> None:
        """Drop both ends at once; harmless when they are gone."""
        if self.is_reset:
            return
        self.is_reset = True
        for writer in (self.down, self.up):
            end: socket.socket | None = writer.get_extra_info("socket")
            if end is not None:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            writer.transport.abort()
