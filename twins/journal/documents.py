"""The journal in MongoDB: documents are added, and removed by age alone."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from shared.stores.mongo import Mongo

_COLLECTION = "journal"

type Entry = dict[str, Any]


def entry_of(
    subject: UUID, digest: bytes, seq: int, at: datetime, entry: dict[str, Any], origin: bytes | None
) -> Entry:
    """Return the document of an event, whose id is the event's hash: so it is there once.

    `origin` is the id of the entry that this event repeats after a restore.
    """
    return {"_id": digest, "subject": subject, "seq": seq, "at": moment(at), "entry": entry, "origin": origin}


def moment(at: datetime) -> str:
    """Return a moment as entries have it, which sorts as text: MongoDB's own dates end with the millisecond."""
    return at.isoformat(timespec="microseconds")


async def add(mongo: Mongo, entries: Sequence[Entry]) -> None:
    """Add entries; one that is there stays as it is."""
    async with mongo.collection(_COLLECTION) as collection:
        for entry in entries:
            await collection.update_one({"_id": entry["_id"]}, {"$setOnInsert": entry}, upsert=True)


async def find_after(mongo: Mongo, at: str, digest: bytes, limit: int) -> list[Entry]:
    """Return up to `limit` entries behind the one of this moment and id, oldest first, without what they say."""
    behind = {"$or": [{"at": {"$gt": at}}, {"at": at, "_id": {"$gt": digest}}]}
    wanted = {"subject": 1, "seq": 1, "at": 1, "entry.type": 1, "entry.erasure_id": 1}
    async with mongo.collection(_COLLECTION) as collection:
        cursor = collection.find({"at": {"$gte": at}, **behind}, wanted).sort([("at", 1), ("_id", 1)])
        found: list[Entry] = await cursor.limit(limit).to_list(limit)
    return found


async def remove_before(mongo: Mongo, at: datetime, limit: int) -> int:
    """Remove up to `limit` entries from before a moment, and return their number."""
    async with mongo.collection(_COLLECTION) as collection:
        found = await collection.find({"at": {"$lt": moment(at)}}, {"_id": 1}).limit(limit).to_list(limit)
        if found:
            await collection.delete_many({"_id": {"$in": [entry["_id"] for entry in found]}})
    return len(found)
