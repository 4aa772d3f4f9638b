"""The MongoDB client: opened once, lazily; its failures become 503; the only motor site."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

# Motor's threads are held for as long as a server hangs; its default of 5 a core is soon used up.
os.environ.setdefault("MOTOR_MAX_WORKERS", "32")

from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection
from pymongo.errors import PyMongoError

from shared.errors import Unavailable
from shared.settings import Settings

logger = logging.getLogger(__name__)

type Document = dict[str, Any]
type Collection = AsyncIOMotorCollection


class Mongo:
    """A client of one MongoDB database, with majority writes and reads from the primary."""

    def __init__(self, settings: Settings, options: Callable[[], Mapping[str, Any]] = dict) -> None:
        """`options` is called in the event loop, when the client is opened."""
        self._settings = settings
        self._options = options
        self._client: AsyncIOMotorClient[Document] | None = None

    def _open(self) -> "AsyncIOMotorClient[Document]":
        if self._client is None:
            settings = self._settings
            milliseconds = int(settings.mongodb_timeout * 1000)
            self._client = AsyncIOMotorClient(
                settings.mongodb_uri.get_secret_value(),
                maxPoolSize=settings.mongodb_pool_max,
                # Bounds each operation in its thread: cancelling the coroutine would not free it.
                timeoutMS=milliseconds,
                serverSelectionTimeoutMS=milliseconds,
                connectTimeoutMS=milliseconds,
                uuidRepresentation="standard",
                tz_aware=True,
                w="majority",
                **self._options(),
            )
        return self._client

    @asynccontextmanager
    async def collection(self, name: str) -> AsyncIterator[Collection]:
        """Lend a collection; the block has a little longer than one operation may take.

        Raises:
            Unavailable: the server does not answer in time.
        """
        try:
            # Operations queue for a thread while others hang; that wait has no bound of its own.
            async with asyncio.timeout(self._settings.mongodb_timeout + 0.5):
                yield self._open()[self._settings.mongodb_database][name]
        except (PyMongoError, TimeoutError) as error:
            logger.warning("MongoDB is unavailable", extra={"error": type(error).__name__})
            raise Unavailable("The document store does not answer in time.") from error

    async def ping(self) -> None:
        """Run `ping` on the primary; raises `Unavailable` where that does not work."""
        async with self.collection("personas") as collection:
            await collection.database.command("ping")

    async def close(self) -> None:
        """Close the client; the next use opens a new one."""
        client, self._client = self._client, None
        if client is not None:
            client.close()
