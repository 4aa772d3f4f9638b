"""Transactional outbox: a transaction stores a job, which runs after it, again and again until it succeeds.

A job is leased, not locked: no transaction stays open during calls to another store, and when a
process dies, its job runs again at the end of the lease. So a job can run twice at once, and its
handler must be idempotent.
"""

import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from shared.http.problems import Problem
from shared.stores.postgres import Connection, Postgres, fetch_one

logger = logging.getLogger(__name__)

LEASE = 15.0
"""Seconds for a handler: longer than the limits of its operations together."""
LONGEST_BACKOFF = 300.0
MAX_ATTEMPTS = 50
"""After about four hours a job becomes a dead letter, for an operator."""


class WorkerLostError(Exception):
    """The last attempt never ended: each process with the job dies or is too slow."""


type Handler = Callable[[UUID], Awaitable[float | None]]
"""Does the work for a subject; returns the seconds until the next run, or None where the job is done."""


class Backlog(NamedTuple):
    """Numbers of due and dead jobs, for metrics."""

    due: int
    dead: int
    age: float
    """Seconds since the oldest live job became due."""


class _Job(NamedTuple):
    id: UUID
    kind: str
    subject: UUID
    attempts: int
    run_at: datetime
    """The end of the lease; no two leases of a job end at the same time."""


async def enqueue(connection: Connection, kind: str, subject: UUID) -> None:
    """Store a job in the caller's transaction."""
    await connection.execute("INSERT INTO outbox (kind, subject) VALUES ($1, $2)", kind, subject)


async def drain(
    postgres: Postgres, handlers: Mapping[str, Handler], *, subject: UUID | None = None, seconds: float = math.inf
) -> int:
    """Run all due jobs, or those of a subject, and return their number; processes may drain concurrently.

    No job begins later than `seconds`: one that goes on for long is due again at once, each time.
    """
    count, until = 0, time.monotonic() + seconds
    while time.monotonic() < until and (job := await _lease(postgres, subject)) is not None:
        await _run(postgres, handlers, job)
        count += 1
    return count


async def backlog(postgres: Postgres) -> Backlog:
    """Return the current backlog."""
    sql = """
        SELECT count(*) FILTER (WHERE dead_at IS NULL) AS due,
               count(*) FILTER (WHERE dead_at IS NOT NULL) AS dead,
               coalesce(extract(epoch FROM now() - min(due_at) FILTER (WHERE dead_at IS NULL)), 0)::float AS age
        FROM outbox WHERE due_at <= now()
    """
    async with postgres.connection() as connection:
        return Backlog(**await fetch_one(connection, sql))


async def _lease(postgres: Postgres, subject: UUID | None) -> _Job | None:
    async with postgres.connection() as connection:
        sql = """
            UPDATE outbox SET attempts = attempts + 1, run_at = now() + make_interval(secs => $2)
            WHERE id = (
                SELECT id FROM outbox
                WHERE dead_at IS NULL AND run_at <= now() AND subject = coalesce($1, subject)
                ORDER BY run_at LIMIT 1 FOR UPDATE SKIP LOCKED
            )
            RETURNING id, kind, subject, attempts, run_at
        """
        row = await connection.fetchrow(sql, subject, LEASE)
    return None if row is None else _Job(**row)


async def _run(postgres: Postgres, handlers: Mapping[str, Handler], job: _Job) -> None:
    if job.attempts > MAX_ATTEMPTS:
        await _fail(postgres, job, WorkerLostError())
        return
    try:
        again = await handlers[job.kind](job.subject)  # an older release does not know every kind
    except Exception as error:  # noqa: BLE001 - the job runs again after any error
        await _fail(postgres, job, error)
        return
    # By the lease: a process that was slower than its lease has lost the job.
    async with postgres.connection() as connection:
        if again is None:
            await connection.execute("DELETE FROM outbox WHERE id = $1 AND run_at = $2", job.id, job.run_at)
        else:
            sql = """
                UPDATE outbox SET attempts = 0, last_error = NULL,
                                  due_at = now() + make_interval(secs => $3), run_at = now() + make_interval(secs => $3)
                WHERE id = $1 AND run_at = $2
            """
            await connection.execute(sql, job.id, job.run_at, again)


async def _fail(postgres: Postgres, job: _Job, error: Exception) -> None:
    dead, name = job.attempts >= MAX_ATTEMPTS, type(error).__name__
    fields = {"job": str(job.id), "kind": job.kind, "attempts": job.attempts, "error": name}
    delay = min(2.0**job.attempts, LONGEST_BACKOFF)
    if dead:
        logger.error("Outbox job is a dead letter", extra=fields)
    else:
        logger.warning("Outbox job failed", extra=fields)
    try:
        async with postgres.connection() as connection:
            # Citus takes no `now()` inside a CASE.
            sql = """
                UPDATE outbox SET last_error = $3, dead_at = now() + CASE WHEN $4 THEN interval '0' END,
                                  run_at = now() + make_interval(secs => $5)
                WHERE id = $1 AND run_at = $2
            """
            await connection.execute(sql, job.id, job.run_at, name, dead, delay)
    except Problem:
        logger.warning("Outbox job waits for its lease to end", extra=fields)
