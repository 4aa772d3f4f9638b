"""The MongoDB client, opened at the first use; its failures become 503. Only this module imports Motor."""

import asyncio
import hashlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

# A hanging server blocks Motor's threads; the default of 5 per core is soon used up.
os.environ.setdefault("MOTOR_MAX_WORKERS", "32")

import bson.errors
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection
from pymongo.errors import PyMongoError

from shared.http.problems import Unavailable
from shared.settings import Settings

logger = logging.getLogger(__name__)

InvalidBSON = bson.errors.InvalidBSON

type Document = dict[str, Any]
type Collection = AsyncIOMotorCollection

_CODEC = CodecOptions[Document](uuid_representation=UuidRepresentation.STANDARD)
"""As the client's: without it a UUID cannot be encoded."""


def sha256_of(document: Document) -> bytes:
    """Return the SHA-256 of a document as BSON: of its values, their types and the order of its members.

    JSON in the form of RFC 8785 would be the same for any store, and cost a read of 20 kB a seventh of its time.
    """
    return hashlib.sha256(bson.encode(document, codec_options=_CODEC)).digest()


class Mongo:
    """A client of one MongoDB database, with majority writes and reads from the primary."""

    def __init__(self, settings: Settings, options: Callable[[], Mapping[str, Any]] = dict) -> None:
        """`options` returns more client options; it runs in the event loop, at the first use."""
        self._settings = settings
        self._options = options
        self._client: AsyncIOMotorClient[Document] | None = None
        self._collections: dict[str, Collection] = {}

    def _open(self) -> "AsyncIOMotorClient[Document]":
        if self._client is None:
            settings = self._settings
            milliseconds = int(settings.mongodb_timeout * 1000)
            self._client = AsyncIOMotorClient(
                settings.mongodb_uri.get_secret_value(),
                maxPoolSize=settings.mongodb_pool_max,
                # Limits each operation in its thread: cancelling the coroutine would not free the thread.
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
        """Yield a collection for a little longer than one operation; raises `Unavailable`."""
        try:
            # Operations wait for a thread while others hang; that wait has no other limit.
            async with asyncio.timeout(self._settings.mongodb_timeout + 0.5):
                found = self._collections.get(name)
                if found is None:  # kept: Motor makes three objects for each
                    found = self._collections[name] = self._open()[self._settings.mongodb_database][name]
                yield found
        except (PyMongoError, TimeoutError) as error:
            logger.warning("MongoDB is unavailable", extra={"error": type(error).__name__})
            raise Unavailable("The document store does not answer in time.") from error

    async def ping(self) -> None:
        """Run `ping` on the primary; raises `Unavailable`."""
        async with self.collection("ping") as collection:
            await collection.database.command("ping")

    async def close(self) -> None:
        """Close the client; the next use opens a new one."""
        client, self._client = self._client, None
        self._collections.clear()
        if client is not None:
            client.close()
