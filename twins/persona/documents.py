"""Persona documents in MongoDB. A document counts only once PostgreSQL has made it a version."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID, uuid4

from shared.mongo import Mongo
from twins.persona.models import Example, Fact, Persona, Style

_COLLECTION = "personas"
_NESTED = set(Persona.model_fields) - {"extensions"}


async def insert_document(mongo: Mongo, twin_id: UUID, persona: Persona) -> UUID:
    """Store a persona and return the document's id, which nobody can guess."""
    document_id = uuid4()
    content = persona.model_dump(include=_NESTED)
    async with mongo.collection(_COLLECTION) as collection:
        await collection.insert_one(
            {
                "_id": document_id,
                "twin_id": twin_id,
                "persona": content,
                # As text: BSON turns {"$ref": …, "$id": …} into a reference, and has no integers
                # beyond 64 bits and no NUL in names.
                "extensions": json.dumps(persona.extensions, ensure_ascii=False, separators=(",", ":")),
                "created_at": datetime.now(UTC),
            }
        )
    return document_id


async def find_document(mongo: Mongo, twin_id: UUID, document_id: UUID) -> Persona | None:
    """Return a stored persona, as it was given."""
    async with mongo.collection(_COLLECTION) as collection:
        found = await collection.find_one({"_id": document_id, "twin_id": twin_id})
    if found is None:
        return None
    content = found["persona"]
    # It was checked when it was written: a limit that changes must not make it unreadable.
    return Persona.model_construct(
        **content
        | {
            "style": Style.model_construct(**content["style"]),
            "facts": [Fact.model_construct(**fact) for fact in content["facts"]],
            "examples": [Example.model_construct(**example) for example in content["examples"]],
            "extensions": json.loads(found["extensions"]),
        }
    )


async def find_ids(mongo: Mongo, twin_ids: Sequence[UUID], limit: int) -> list[UUID]:
    """Return the ids of up to `limit` documents of these twins."""
    async with mongo.collection(_COLLECTION) as collection:
        cursor = collection.find({"twin_id": {"$in": list(twin_ids)}}, {"_id": 1}).limit(limit)
        return [found["_id"] for found in await cursor.to_list(limit)]


class Made(NamedTuple):
    """A document that may be a version, or not."""

    document_id: UUID
    twin_id: UUID
    created_at: datetime


async def find_made(mongo: Mongo, since: datetime, until: datetime, limit: int) -> list[Made]:
    """Return up to `limit` documents made from `since` and before `until`, oldest first."""
    async with mongo.collection(_COLLECTION) as collection:
        cursor = collection.find({"created_at": {"$gte": since, "$lt": until}}, {"twin_id": 1, "created_at": 1})
        found = await cursor.sort([("created_at", 1), ("_id", 1)]).limit(limit).to_list(limit)
    return [Made(document["_id"], document["twin_id"], document["created_at"]) for document in found]


async def delete_documents(mongo: Mongo, document_ids: Sequence[UUID]) -> None:
    """Remove documents."""
    async with mongo.collection(_COLLECTION) as collection:
        await collection.delete_many({"_id": {"$in": list(document_ids)}})
