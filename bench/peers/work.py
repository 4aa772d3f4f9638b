"""What the two plain peers do in the stores: the statements of our services, from the same files.

So the SQL, the documents and the arithmetic of the ledger are equal by construction; the HTTP, the
token, the pool, the checks and the JSON around them are each peer's own.
"""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from twins.consent import queries as consent_queries
from twins.consent.ledger import Chain
from twins.consent.models import BOOLEAN_NOTICE, GENERAL
from twins.consent.service import Terms
from twins.persona import queries as persona_queries
from twins.twin import queries as twin_queries

TWIN = ("id", "twin_name", "use_case", "tone", "consent", "created_at", "updated_at")


class Refused(Exception):
    """The answer is this status."""

    def __init__(self, status: int) -> None:
        self.status = status


def as_json(value: Any) -> bytes:
    return json.dumps(value, default=_plain, separators=(",", ":"), ensure_ascii=False).encode()


def _plain(value: Any) -> str:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)


async def gate(connection: Any, owner: str, twin_id: UUID, purpose: str) -> dict[str, Any]:
    row = await consent_queries.select_decision(connection, twin_id, purpose, owner, any_owner=False)
    if row is None:
        raise Refused(404)
    return {"decision": row["reason"] == "granted", "purpose": purpose, **row}


async def get(connection: Any, owner: str, twin_id: UUID) -> tuple[dict[str, Any], str]:
    row = await twin_queries.select_twin(connection, owner, twin_id)
    if row is None:
        raise Refused(404)
    return {name: row[name] for name in TWIN}, f'"{row["version"]}.{"live" if row["consent"] else "off"}"'


async def find(connection: Any, owner: str, limit: int, cursor: str | None) -> dict[str, Any]:
    rows = await twin_queries.select_twins(
        connection,
        owner,
        before=None if cursor is None else UUID(cursor),
        limit=limit + 1,
        q=None,
        use_case=None,
        tone=None,
        consent=None,
    )
    items = [{name: row[name] for name in TWIN} for row in rows[:limit]]
    return {"items": items, "next_cursor": items[-1]["id"] if len(rows) > limit else None}


async def create(connection: Any, owner: str, wanted: dict[str, Any]) -> tuple[dict[str, Any], str]:
    names = ("twin_name", "use_case", "tone")
    if set(wanted) != {*names, "consent"} or not isinstance(wanted["consent"], bool):
        raise Refused(422)
    if not all(isinstance(wanted[name], str) and wanted[name].strip() for name in names):
        raise Refused(422)
    async with connection.transaction():
        made = await twin_queries.insert_twin(connection, owner, *(wanted[name].strip() for name in names))
        if wanted["consent"]:
            await _grant(connection, owner, made)
        return await get(connection, owner, made["id"])


async def _grant(connection: Any, owner: str, twin: Any) -> None:
    twin_id = twin["id"]
    chain = Chain(twin_id, twin["salt"], twin["ledger_seq"], twin["ledger_hash"])
    terms = Terms(owner, "api", [GENERAL], BOOLEAN_NOTICE, None, None)
    notice = terms.notice
    made = await consent_queries.insert_consent(
        connection,
        twin_id,
        owner,
        terms.method,
        terms.purposes,
        notice.version,
        notice.language,
        notice.text,
        notice.sha256,
        None,
        None,
    )
    event = chain.add("given", owner, made["given_at"], consent_id=str(made["id"]), terms=terms.sealed(chain.salt))
    await consent_queries.insert_event(connection, twin_id, chain.seq, *event)


async def patch(connection: Any, owner: str, twin_id: UUID, change: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Change texts; the plain peers cannot patch consent."""
    names = ("twin_name", "use_case", "tone")
    if not set(change) <= set(names) or not all(isinstance(text, str) and text.strip() for text in change.values()):
        raise Refused(422)
    async with connection.transaction():
        if await consent_queries.lock_twin(connection, twin_id, owner) is None:
            raise Refused(404)
        twin, _ = await get(connection, owner, twin_id)
        await twin_queries.update_twin(connection, twin_id, **{name: change.get(name, twin[name]) for name in names})
        return await get(connection, owner, twin_id)


async def get_persona(pool: Any, personas: Any, owner: str, twin_id: UUID) -> dict[str, Any]:
    async with pool.acquire() as connection:
        row = await persona_queries.select_version(connection, owner, twin_id, None)
    if row is None or row["document_id"] is None:
        raise Refused(404)
    found = await personas.find_one({"_id": row["document_id"], "twin_id": twin_id})
    extensions = json.loads(found["extensions"])
    persona: dict[str, Any] = found["persona"]
    return persona | {"extensions": extensions, "version": row["version"], "created_at": row["created_at"]}


async def put_persona(pool: Any, personas: Any, owner: str, twin_id: UUID, persona: dict[str, Any]) -> dict[str, Any]:
    async with pool.acquire() as connection:
        _allowed(await persona_queries.select_head(connection, owner, twin_id))
    document_id = uuid4()
    extensions = persona.pop("extensions", {})
    await personas.insert_one(
        {
            "_id": document_id,
            "twin_id": twin_id,
            "persona": persona,
            "extensions": json.dumps(extensions),
            "created_at": datetime.now(UTC),
        }
    )
    async with pool.acquire() as connection, connection.transaction():
        await consent_queries.lock_twin(connection, twin_id, owner)
        _allowed(await persona_queries.select_head(connection, owner, twin_id))
        made = await persona_queries.insert_version(connection, twin_id, document_id)
    return persona | {"extensions": extensions, **made}


def _allowed(head: Any) -> None:
    if head is None:
        raise Refused(404)
    if head["reason"] != "granted":
        raise Refused(403)
