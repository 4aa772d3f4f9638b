"""Twins, consents, personas and one long ledger, put straight into the stores."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg

from twins.consent.ledger import Chain
from twins.consent.models import BOOLEAN_NOTICE, GENERAL
from twins.consent.queries import select_decision

OWNERS = 100
SHARE = 50
"""Twins an owner has at least, so that pages are whole at every size."""
WRITER = "writer"
"""Owns what the writing workloads make and change, so that what is read stays as it is."""
WRITTEN = 1000
"""Twins of the writer."""
MANY = 10_000
"""Consents of the twin that has many."""

_TWINS = """
    INSERT INTO twins (owner, twin_name, use_case, tone)
    SELECT $1, 'Twin ' || n, 'customer support', 'professional' FROM generate_series(1, $2::int) n
"""
# Each twin has a live general consent.
_CONSENTS = """
    WITH given AS (
        INSERT INTO consents (id, twin_id, lineage, principal, method, purposes, notice_version,
                              notice_language, notice_text, notice_sha256, given_at)
        SELECT new.id, t.id, new.id, t.owner, 'api', '{general}', $1, $2, $3, $4, now()
        FROM twins t, LATERAL (SELECT uuidv7() AS id WHERE t.id IS NOT NULL) new
        RETURNING id, twin_id
    )
    INSERT INTO consent_states (twin_id, purpose, consent_id) SELECT twin_id, 'general', id FROM given
"""
_MORE_CONSENTS = """
    WITH given AS (
        INSERT INTO consents (id, twin_id, lineage, principal, method, purposes, notice_version,
                              notice_language, notice_text, notice_sha256, given_at)
        SELECT new.id, $5, new.id, $6, 'api', ARRAY['purpose-' || n], $1, $2, $3, $4, now()
        FROM generate_series(2, $7::int) n, LATERAL (SELECT uuidv7() AS id WHERE n > 0) new
        RETURNING id, twin_id, purposes
    )
    INSERT INTO consent_states (twin_id, purpose, consent_id) SELECT twin_id, purposes[1], id FROM given
"""
_NOTICE = (BOOLEAN_NOTICE.version, BOOLEAN_NOTICE.language, BOOLEAN_NOTICE.text, BOOLEAN_NOTICE.sha256)


def owner(number: int) -> str:
    """The name of one of the owners."""
    return f"owner-{number}"


def owners(rows: int) -> int:
    """How many owners share `rows` twins."""
    return min(OWNERS, rows // SHARE)


async def _fill(dsn: str, rows: int) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for number in range(owners(rows)):
            await connection.execute(_TWINS, owner(number), rows // owners(rows))
        await connection.execute(_TWINS, WRITER, WRITTEN)
        await connection.execute(_CONSENTS, *_NOTICE)
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


def fill(dsn: str, rows: int) -> None:
    """Give each of the owners its share of `rows` twins."""
    asyncio.run(_fill(dsn, rows))


async def _some_twins(dsn: str, name: str, limit: int) -> list[UUID]:
    connection = await asyncpg.connect(dsn)
    try:
        # In no order of any index, so that neighbours in the list are not neighbours on disk.
        query = "SELECT id FROM twins WHERE owner = $1 ORDER BY md5(id::text) LIMIT $2"
        return [row["id"] for row in await connection.fetch(query, name, limit)]
    finally:
        await connection.close()


def some_twins(dsn: str, name: str, limit: int) -> list[UUID]:
    """The ids of some twins of one owner."""
    return asyncio.run(_some_twins(dsn, name, limit))


async def _add_consents(dsn: str, twin_id: UUID, name: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(_MORE_CONSENTS, *_NOTICE, twin_id, name, MANY)
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


def add_consents(dsn: str, twin_id: UUID, name: str) -> None:
    """Bring a twin to `MANY` live consents, each for a purpose of its own."""
    asyncio.run(_add_consents(dsn, twin_id, name))


async def _add_events(dsn: str, twin_id: UUID, name: str, count: int) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        salt = await connection.fetchval("SELECT salt FROM twins WHERE id = $1", twin_id)
        chain, at = Chain(twin_id, salt, 0, bytes(32)), datetime.now(UTC)
        kinds = ("given", "withdrawn")
        events = []
        for number in range(count):
            event, digest = chain.add(kinds[number % 2], name, at, consent_id=str(twin_id), purpose=GENERAL)
            events.append((twin_id, chain.seq, event, digest))
        await connection.copy_records_to_table(
            "consent_events", records=events, columns=("twin_id", "seq", "event", "hash")
        )
        await connection.execute(
            "UPDATE twins SET ledger_seq = $2, ledger_hash = $3 WHERE id = $1", twin_id, chain.seq, chain.head
        )
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


def add_events(dsn: str, twin_id: UUID, name: str, count: int) -> None:
    """Give a twin a ledger of `count` events that verifies."""
    asyncio.run(_add_events(dsn, twin_id, name, count))


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def execute(dsn: str, statement: str) -> None:
    """Run one statement."""
    asyncio.run(_execute(dsn, statement))


class _Explaining:
    """In place of a connection: explains what it is asked."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def fetchrow(self, query: str, *arguments: object) -> list[str]:
        [found] = json.loads(await self._connection.fetchval(f"EXPLAIN (FORMAT JSON) {query}", *arguments))
        return list(_scans(found["Plan"]))


def _scans(node: dict[str, Any]) -> Iterator[str]:
    if "Relation Name" in node:
        yield f"{node['Node Type']} {node.get('Index Name', node['Relation Name'])}"
    for inner in node.get("Plans", ()):
        yield from _scans(inner)


async def _gate_plan(dsn: str) -> list[str]:
    connection = await asyncpg.connect(dsn)
    try:
        twin_id = await connection.fetchval("SELECT id FROM twins WHERE owner = $1 LIMIT 1", owner(0))
        explaining: Any = _Explaining(connection)
        scans: Any = await select_decision(explaining, twin_id, GENERAL, owner(0), any_owner=False)
        return list(scans)
    finally:
        await connection.close()


def gate_plan(dsn: str) -> list[str]:
    """How PostgreSQL reads each table for the gate's statement."""
    return asyncio.run(_gate_plan(dsn))
