"""Transactional outbox: work that is promised in a transaction, and done after it until it is done.

A job is leased, not locked: no transaction stays open while another store is asked, and the job of
a process that died is taken up again when its lease ends. So a job can run twice at once, and its
handler must be idempotent.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from shared.errors import Problem
from shared.postgres import Connection, Postgres

logger = logging.getLogger(__name__)

LEASE = 15.0
"""Seconds that a handler has: longer than its operations may take together."""
LONGEST_BACKOFF = 300.0
MAX_ATTEMPTS = 50
"""After about four hours a job is a dead letter: it waits for a person."""


class WorkerLostError(Exception):
    """The last attempt never ended: each process that runs the job dies, or is too slow."""


type Handler = Callable[[UUID], Awaitable[float | None]]
"""Does what is to be done for a subject; returns in how many seconds it is to run again, or None."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """How much work waits, for metrics."""

    due: int
    dead: int
    age: float
    """Seconds since the oldest job that is not dead was first due."""


@dataclass(frozen=True, slots=True)
class _Job:
    id: UUID
    kind: str
    subject: UUID
    attempts: int
    run_at: datetime
    """When the lease ends; no two leases of a job end at the same time."""


async def enqueue(connection: Connection, kind: str, subject: UUID) -> None:
    """Promise a job in the caller's transaction."""
    await connection.execute("INSERT INTO outbox (kind, subject) VALUES ($1, $2)", kind, subject)


async def drain(postgres: Postgres, handlers: Mapping[str, Handler], *, subject: UUID | None = None) -> int:
    """Run jobs until none is due, or only those of a subject, and return how many have run.

    Any number of processes may drain at once: each job is leased to one.
    """
    count = 0
    while (job := await _lease(postgres, subject)) is not None:
        await _run(postgres, handlers, job)
        count += 1
    return count


async def backlog(postgres: Postgres) -> Backlog:
    """Return how much work waits."""
    async with postgres.connection() as connection:
        row = await connection.fetchrow(
            """
            SELECT count(*) FILTER (WHERE dead_at IS NULL) AS due,
                   count(*) FILTER (WHERE dead_at IS NOT NULL) AS dead,
                   coalesce(extract(epoch FROM now() - min(due_at) FILTER (WHERE dead_at IS NULL)), 0)::float AS age
            FROM outbox WHERE due_at <= now()
            """
        )
    assert row is not None  # noqa: S101 - an aggregate has one row
    return Backlog(**row)


async def _lease(postgres: Postgres, subject: UUID | None) -> _Job | None:
    async with postgres.connection() as connection:
        row = await connection.fetchrow(
            """
            UPDATE outbox SET attempts = attempts + 1, run_at = now() + make_interval(secs => $2)
            WHERE id = (
                SELECT id FROM outbox
                WHERE dead_at IS NULL AND run_at <= now() AND subject = coalesce($1, subject)
                ORDER BY run_at LIMIT 1 FOR UPDATE SKIP LOCKED
            )
            RETURNING id, kind, subject, attempts, run_at
            """,
            subject,
            LEASE,
        )
    return None if row is None else _Job(**row)


async def _run(postgres: Postgres, handlers: Mapping[str, Handler], job: _Job) -> None:
    if job.attempts > MAX_ATTEMPTS:
        await _fail(postgres, job, WorkerLostError())
        return
    try:
        again = await handlers[job.kind](job.subject)  # an older release does not know every kind
    except Exception as error:  # noqa: BLE001 - whatever it is, the job is tried again
        await _fail(postgres, job, error)
        return
    # By the lease: whoever was slower than its own has lost the job.
    async with postgres.connection() as connection:
        if again is None:
            await connection.execute("DELETE FROM outbox WHERE id = $1 AND run_at = $2", job.id, job.run_at)
        else:
            await connection.execute(
                """
                UPDATE outbox SET attempts = 0, last_error = NULL,
                                  due_at = now() + make_interval(secs => $3), run_at = now() + make_interval(secs => $3)
                WHERE id = $1 AND run_at = $2
                """,
                job.id,
                job.run_at,
                again,
            )


async def _fail(postgres: Postgres, job: _Job, error: Exception) -> None:
    dead = job.attempts >= MAX_ATTEMPTS
    fields = {"job": str(job.id), "kind": job.kind, "attempts": job.attempts, "error": type(error).__name__}
    if dead:
        logger.error("Outbox job is a dead letter", extra=fields)
    else:
        logger.warning("Outbox job failed", extra=fields)
    try:
        async with postgres.connection() as connection:
            await connection.execute(
                """
                UPDATE outbox SET last_error = $3, dead_at = CASE WHEN $4 THEN now() END,
                                  run_at = now() + make_interval(secs => $5)
                WHERE id = $1 AND run_at = $2
                """,
                job.id,
                job.run_at,
                type(error).__name__,
                dead,
                min(2.0**job.attempts, LONGEST_BACKOFF),
            )
    except Problem:
        logger.warning("Outbox job waits for its lease to end", extra=fields)
