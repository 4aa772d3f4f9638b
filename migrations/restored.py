"""After a restore: close the gate, find what the ledgers have lost, and say which journal counts."""

import asyncio
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
from pymongo import MongoClient, UpdateOne

from migrations.roles import connect

logger = logging.getLogger(__name__)

_BATCH = 1000

type _Entry = dict[str, Any]

UNSURE = """\
Nothing in this journal is later than the ledgers. It counts only if it is the running one: a journal that was restored
to the same moment has lost the same events. The gate stays closed until you say which one counts:
  --journal URI    the MongoDB that has the running or the newest journal ("$MONGODB_URI" where that is this one)
  --journal-lost   there is none: what was said no to since the backup may be lost"""
OLDER = """\
This journal ends before events that the ledgers have been compared with: it was restored to an earlier moment, so it is
not the newest. The gate stays closed. Name the newest one with --journal URI, or say --journal-lost."""


class UndecidedError(Exception):
    """Which journal counts is not known; the gate is closed, and the text says what to do."""


def restored(dsn: str, uri: str, database: str, *, journal: str | None, is_lost: bool, kept_days: float) -> str:
    """Close the gate, and let the app open it again twin by twin; return what was found.

    `journal` is the address of the MongoDB whose journal counts, None for that of `uri`. Raises `UndecidedError`.
    """
    return asyncio.run(_restored(dsn, uri, database, journal, is_lost=is_lost, kept_days=kept_days))


async def _restored(dsn: str, uri: str, database: str, journal: str | None, *, is_lost: bool, kept_days: float) -> str:
    async with connect(dsn) as connection:
        async with connection.transaction():
            epoch: int = await connection.fetchval("SELECT begin_restore('operator')")
        logger.warning("The gate is closed for every twin from before restore %d", epoch)
        if is_lost:
            # Behind all that the app compares again: what is lost stays so, and closes the gate no second time.
            await _decide(connection, epoch, "lost", datetime.now(UTC) + timedelta(minutes=1))
            return f"Restore {epoch}: the journal is lost, says the operator. Twins open once their ledgers verify."
        seen = await _take_up(connection, journal or uri, database, uri if journal else None)
        if await _is_older(connection, seen.newest, kept_days):
            raise UndecidedError(OLDER)
        if journal is None and not seen.lost:
            raise UndecidedError(UNSURE)
        await _decide(connection, epoch, "named" if journal else "running", seen.newest)
    return (
        f"Restore {epoch}: the journal has {seen.number} entries, the last of {seen.newest or 'no time'}; "
        f"the ledgers lack {seen.lost}. Twins open once these are repeated and their ledgers verify."
    )


async def open_twins(dsn: str, twin_ids: list[UUID]) -> str:
    """Open the gate for twins on the operator's word; that is noted in `restores` and in the log."""
    async with connect(dsn) as connection, connection.transaction():
        status = await connection.execute(
            "UPDATE twins SET epoch = present_epoch() WHERE id = ANY ($1) AND epoch < present_epoch()", twin_ids
        )
        await connection.execute("DELETE FROM unconfirmed_twins WHERE twin_id = ANY ($1)", twin_ids)
        await connection.execute(
            """
            UPDATE restores SET opened_unconfirmed = opened_unconfirmed || $1::uuid[]
            WHERE epoch = present_epoch()
            """,
            twin_ids,
        )
    logger.warning("Opened on the operator's word: %s", ", ".join(map(str, twin_ids)))
    return f"Opened on the operator's word: {status.rpartition(' ')[2]} of {len(twin_ids)} twins."


class _Seen:
    """What there is in a journal."""

    def __init__(self) -> None:
        self.number = 0
        self.lost = 0
        self.newest: datetime | None = None


async def _decide(connection: asyncpg.Connection, epoch: int, journal: str, newest: datetime | None) -> None:
    await connection.execute(
        """
        UPDATE restores SET journal = $2, decided_at = now(), compared_to = greatest(compared_to, $3),
                            seen_to = CASE WHEN $2 <> 'lost' THEN greatest(seen_to, $3) END
        WHERE epoch = $1
        """,
        epoch,
        journal,
        newest,
    )
    logger.warning("Restore %d: the journal that counts is %s", epoch, journal)


async def _take_up(connection: asyncpg.Connection, uri: str, database: str, into: str | None) -> _Seen:
    """Note each entry that the ledgers lack, and copy a named journal `into` the one that the app writes."""
    seen, digests = _Seen(), set[bytes]()
    for page in _pages(uri, database):
        if into is not None:
            await asyncio.to_thread(_copy, into, database, page)
        seen.number += len(page)
        seen.newest = max(datetime.fromisoformat(page[-1]["at"]), seen.newest or datetime.min.replace(tzinfo=UTC))
        digests.update(entry["_id"] for entry in page)
        seen.lost += await _note_lost(connection, page)
    waiting = await connection.fetch(
        "SELECT hash, origin FROM lost_events WHERE replayed_at IS NULL AND origin IS NOT NULL"
    )
    repeats = [row["hash"] for row in waiting if row["origin"] in digests]
    # What an earlier restore has repeated is in the journal itself, and is repeated only once.
    await _set_aside(connection, "hash = ANY ($2)", "repeats another", repeats)
    await _set_aside(
        connection,
        "entry->>'type' <> $2 AND NOT EXISTS (SELECT FROM twins t WHERE t.id = subject)",
        "there is no such twin",
        "account_erased",
    )
    return seen


async def _set_aside(connection: asyncpg.Connection, which: str, outcome: str, argument: object) -> None:
    await connection.execute(
        f"UPDATE lost_events SET replayed_at = now(), outcome = $1 WHERE replayed_at IS NULL AND {which}",  # noqa: S608
        outcome,
        argument,
    )


async def _note_lost(connection: asyncpg.Connection, page: list[_Entry]) -> int:
    said = [entry["entry"] for entry in page]
    erasures = [UUID(says["erasure_id"]) if says["type"] == "account_erased" else None for says in said]
    subjects, seqs = [entry["subject"] for entry in page], [entry["seq"] for entry in page]
    found = await connection.fetch(
        "SELECT lost_of($1, $2, $3, $4) AS hash", subjects, seqs, [entry["_id"] for entry in page], erasures
    )
    lost = {row["hash"] for row in found}
    rows = [
        (entry["subject"], entry["_id"], entry["seq"], datetime.fromisoformat(entry["at"]), json.dumps(entry["entry"]),
         entry.get("origin"))
        for entry in page
        if entry["_id"] in lost
    ]  # fmt: skip
    await connection.executemany(
        """
        INSERT INTO lost_events (subject, hash, seq, at, entry, origin) VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (subject, hash) DO NOTHING
        """,
        rows,
    )
    return len(rows)


async def _is_older(connection: asyncpg.Connection, newest: datetime | None, kept_days: float) -> bool:
    seen: datetime | None = await connection.fetchval(
        """
        SELECT CASE WHEN seen_to > now() - make_interval(secs => $1) THEN seen_to END
        FROM restores ORDER BY epoch DESC LIMIT 1
        """,
        timedelta(days=kept_days).total_seconds(),
    )
    return seen is not None and (newest is None or newest < seen)


def _pages(uri: str, database: str) -> Iterator[list[_Entry]]:
    with MongoClient[_Entry](uri, timeoutMS=30_000, uuidRepresentation="standard") as client:
        page: list[_Entry] = []
        for entry in client[database]["journal"].find(sort=[("at", 1)]).batch_size(_BATCH):
            page.append(entry)
            if len(page) == _BATCH:
                yield page
                page = []
        if page:
            yield page


def _copy(uri: str, database: str, page: list[_Entry]) -> None:
    with MongoClient[_Entry](uri, timeoutMS=30_000, w="majority", uuidRepresentation="standard") as client:
        client[database]["journal"].bulk_write(
            [UpdateOne({"_id": entry["_id"]}, {"$setOnInsert": entry}, upsert=True) for entry in page], ordered=False
        )
