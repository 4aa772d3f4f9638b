"""The work of the two plain peers in the stores: the statements of our services, from the same files.

So the SQL and the documents are equal by construction, and the database's functions write the ledger; the
HTTP, the token, the pool, the checks and the JSON around them are each peer's own.
"""

import hashlib
import hmac
import json
import os
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from shared.http.problems import NotFound
from shared.stores.mongo import sha256_of
from twins.assurance import RECORDED, word_of
from twins.consent import queries as consent_queries
from twins.consent.terms import Terms
from twins.decision import queries as decision_queries
from twins.decision.queries import Asked
from twins.limits import ACCOUNT, key_of_account
from twins.locking import lock
from twins.persona import queries as persona_queries
from twins.twin import queries as twin_queries
from twins.twin.models import Filters

TEXTS = ("twin_name", "use_case", "tone")
MOST = 10**15
SHOWN = ("id", *TEXTS, "principals", "consent", "created_at", "updated_at")


class Refused(Exception):
    """The answer has this status."""

    def __init__(self, status: int) -> None:
        self.status = status


def as_json(value: Any) -> bytes:
    return json.dumps(value, default=_plain, separators=(",", ":"), ensure_ascii=False).encode()


def _plain(value: Any) -> str:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)


async def gate(connection: Any, owner: str, twin_id: UUID, purpose: str) -> dict[str, Any]:
    asked = Asked(purpose, key_of_account(owner))
    row = await decision_queries.select_decision(connection, owner, owner, twin_id, asked, any_owner=False)
    if row is None:
        raise Refused(404)
    found = dict(row)
    found["decision"], found["purpose"] = found["reason"] == "granted", purpose
    found["assurance"] = None if found["assurance"] is None else word_of(found["assurance"])
    found["recipient"] = {"type": ACCOUNT, "id": owner, "issuer": None}
    return found


async def get(connection: Any, owner: str, twin_id: UUID) -> tuple[dict[str, Any], str]:
    row = await _select(connection, owner, twin_id)
    return _shown(row), _tag(row)


async def _select(connection: Any, owner: str, twin_id: UUID) -> Any:
    row = await twin_queries.select_twin(connection, owner, twin_id, RECORDED)
    if row is None:
        raise Refused(404)
    return row


def _tag(row: Any) -> str:
    return f'"{row["version"]}.{"live" if row["consent"] else "off"}"'


def _shown(row: Any) -> dict[str, Any]:
    return {name: row[name] for name in SHOWN} | {"external_ids": json.loads(row["external_ids"] or "[]")}


async def find(connection: Any, owner: str, limit: int, cursor: str | None) -> dict[str, Any]:
    before = None if cursor is None else UUID(cursor)
    nothing = Filters(None, None, None, None)
    rows, _ = await twin_queries.select_twins(connection, owner, RECORDED, nothing, limit, before, limit + 1)
    items = [_shown(row) for row in rows[:limit]]
    return {"items": items, "next_cursor": items[-1]["id"] if len(rows) > limit else None}


async def create(connection: Any, owner: str, wanted: dict[str, Any]) -> tuple[dict[str, Any], str]:
    if set(wanted) != {*TEXTS, "consent"} or not isinstance(wanted["consent"], bool):
        raise Refused(422)
    if not all(isinstance(wanted[name], str) and wanted[name].strip() for name in TEXTS):
        raise Refused(422)
    async with connection.transaction():
        twin_name, use_case, tone = (wanted[name].strip() for name in TEXTS)
        twin_id = await twin_queries.insert_twin(connection, owner, twin_name, use_case, tone, [], MOST)
        assert twin_id is not None
        if wanted["consent"]:
            digest = hmac.digest(os.environ["DIGEST_KEY"].encode(), owner.encode(), hashlib.sha256)
            await consent_queries.give_consent(connection, owner, owner, twin_id, Terms.general(owner), digest)
        return await get(connection, owner, twin_id)


async def patch(connection: Any, owner: str, twin_id: UUID, change: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Change texts; the plain peers cannot patch consent."""
    if not set(change) <= set(TEXTS) or not all(isinstance(text, str) and text.strip() for text in change.values()):
        raise Refused(422)
    async with connection.transaction():
        await _lock(connection, owner, twin_id)
        row = await _select(connection, owner, twin_id)
        texts = {name: change.get(name, row[name]) for name in (*TEXTS, "principals")}
        row = {**row, **await twin_queries.update_twin(connection, twin_id, **texts)}
    return _shown(row), _tag(row)


async def get_persona(pool: Any, personas: Any, owner: str, twin_id: UUID) -> dict[str, Any]:
    async with pool.acquire() as connection:
        row = await persona_queries.select_version(connection, owner, twin_id, None, RECORDED)
    if row is None or row["document_id"] is None:
        raise Refused(404)
    found = await personas.find_one({"_id": row["document_id"], "twin_id": twin_id})
    extensions = json.loads(found["extensions"])
    persona: dict[str, Any] = found["persona"]
    return persona | {"extensions": extensions, "version": row["version"], "created_at": row["created_at"]}


async def put_persona(pool: Any, personas: Any, owner: str, twin_id: UUID, persona: dict[str, Any]) -> dict[str, Any]:
    async with pool.acquire() as connection:
        _allowed(await persona_queries.select_version(connection, owner, twin_id, None, RECORDED))
    document_id = uuid4()
    extensions = persona.pop("extensions", {})
    content = {"persona": persona, "extensions": json.dumps(extensions)}
    await personas.insert_one({"_id": document_id, "twin_id": twin_id, **content, "created_at": datetime.now(UTC)})
    async with pool.acquire() as connection, connection.transaction():
        await _lock(connection, owner, twin_id)
        _allowed(await persona_queries.select_head(connection, owner, twin_id, RECORDED))
        made = await persona_queries.insert_version(
            connection, twin_id, document_id, sha256_of(content), len(json.dumps(persona)) + len(extensions), MOST, MOST
        )
    assert made is not None
    return persona | {"extensions": extensions, **made}


async def _lock(connection: Any, owner: str, twin_id: UUID) -> None:
    try:
        await lock(connection, owner, twin_id)
    except NotFound:
        raise Refused(404) from None


def _allowed(head: Any) -> None:
    if head is None:
        raise Refused(404)
    if head["reason"] != "granted":
        raise Refused(403)
