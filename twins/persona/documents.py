"""Persona documents in MongoDB. A document counts only once PostgreSQL has made it a version."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from shared.lane import Lane
from shared.stores.mongo import InvalidBSON, Mongo, sha256_of
from twins.persona.models import Example, Fact, Persona, Style

_COLLECTION = "personas"
_NESTED = set(Persona.model_fields) - {"extensions"}
_CHANGED = "Persona document has changed"

MAX_BYTES = 256 * 1024
"""Size of a persona as compact UTF-8 JSON."""

_LANE = Lane("documents", threads=1, within=2.0)
"""Large documents are read and made here: for a small one two changes of threads take as long as the work."""
_FEW, _SHORT = 100, 16 * 1024


class BrokenError(Exception):
    """A document is missing, or has changed since it was stored; the text says which."""


class TooLargeError(Exception):
    """A persona is larger than a document may be."""


class Stored(NamedTuple):
    """A stored document: its id, which nobody can guess, and its digest, which binds a version to it."""

    document_id: UUID
    sha256: bytes
    size: int
    """Of the persona as compact UTF-8 JSON."""


async def insert_document(mongo: Mongo, twin_id: UUID, persona: Persona) -> Stored:
    """Store a persona; raises `TooLargeError`, or `Unavailable` also where too many are stored."""
    content, stored = _made(persona) if _is_small(persona) else await _LANE.run(_made, persona)
    if stored.size > MAX_BYTES:
        raise TooLargeError
    async with mongo.collection(_COLLECTION) as collection:
        await collection.insert_one(
            {"_id": stored.document_id, "twin_id": twin_id, **content, "created_at": datetime.now(UTC)}
        )
    return stored


def _is_small(persona: Persona) -> bool:
    if persona.extensions or len(persona.facts) + len(persona.examples) > _FEW:
        return False
    told = (fact.text for fact in persona.facts)
    shown = (text for example in persona.examples for text in (example.user, example.twin))
    return sum(map(len, (*told, *shown))) <= _SHORT


def _made(persona: Persona) -> tuple[dict[str, Any], Stored]:
    # `extensions` as text: BSON turns {"$ref": …, "$id": …} into a reference, and has no integers beyond 64
    # bits and no NUL in names.
    nested, extensions = persona.model_dump(include=_NESTED), _text(persona.extensions)
    content = {"persona": nested, "extensions": extensions}
    size = len(_text(nested).encode()) + len(extensions.encode()) + len(',"extensions":')
    return content, Stored(uuid4(), sha256_of(content), size)


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


async def find_document(mongo: Mongo, twin_id: UUID, document_id: UUID, sha256: bytes | None) -> Persona:
    """Return a stored persona; raises `BrokenError` where there is no such document, or it has another digest.

    `sha256` is None for documents from before the digests.
    """
    try:
        async with mongo.collection(_COLLECTION) as collection:
            found = await collection.find_one({"_id": document_id, "twin_id": twin_id})
    except InvalidBSON:
        raise BrokenError(_CHANGED) from None
    if found is None:
        raise BrokenError("Persona document is missing")
    return await _LANE.run(_persona, found, sha256) if _is_large(found) else _persona(found, sha256)


def _is_large(found: Mapping[str, Any]) -> bool:
    match found:
        case {"extensions": str(extensions), "persona": {"facts": list(facts), "examples": list(examples)}}:
            return len(extensions) > _SHORT or len(facts) + len(examples) > _FEW
    return False  # it is broken


def _persona(found: Mapping[str, Any], sha256: bytes | None) -> Persona:
    if sha256 is not None and sha256_of({name: found.get(name) for name in ("persona", "extensions")}) != sha256:
        raise BrokenError(_CHANGED)
    content = found["persona"]
    # The document passed the checks of its time: a limit that changes must not make it unreadable.
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
    """A document, which may be a version."""

    document_id: UUID
    twin_id: UUID
    created_at: datetime


async def find_made(mongo: Mongo, since: datetime, until: datetime, limit: int) -> list[Made]:
    """Return up to `limit` documents made from `since` and before `until`, oldest first."""
    async with mongo.collection(_COLLECTION) as collection:
        cursor = collection.find({"created_at": {"$gte": since, "$lt": until}}, {"twin_id": 1, "created_at": 1})
        found = await cursor.sort([("created_at", 1), ("_id", 1)]).limit(limit).to_list(limit)
    return [Made(document["_id"], document["twin_id"], document["created_at"]) for document in found]


async def delete_documents(mongo: Mongo, twin_ids: Iterable[UUID], document_ids: Sequence[UUID]) -> None:
    """Remove documents of these twins: with the key of the shards, so that the others are not asked."""
    async with mongo.collection(_COLLECTION) as collection:
        await collection.delete_many({"twin_id": {"$in": list(set(twin_ids))}, "_id": {"$in": list(document_ids)}})
