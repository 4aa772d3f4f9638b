"""`Idempotency-Key` (IETF draft): a repeated POST takes effect once."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Annotated, NamedTuple
from uuid import UUID

from fastapi import Depends, Header, Request, Response

from shared.auth import User
from shared.context import Ctx
from shared.http.problems import Conflict, Gone, NotFound, ValidationFailed
from shared.stores.postgres import Connection, Postgres, Record, affected

LIFE_HOURS = 24
_DESCRIPTION = "Makes a repeated request safe: the same key and body make nothing a second time."
_REPLAYED = "Idempotency-Replayed"
_BATCH = 1000
_WORK = 5.0
"""Seconds for one round of `forget`: the timer has other work too."""


class IdempotencyKeyInUse(Conflict, slug="idempotency-key-in-use", title="Idempotency key in use"):
    """The first request with this `Idempotency-Key` is still running.

    Wait a moment and send the request again, to get what the first request made.
    """


class IdempotencyKeyReused(ValidationFailed, slug="idempotency-key-reused", title="Idempotency key reused"):
    """This `Idempotency-Key` was used for another request in the last 24 hours.

    Make a new key for each new request; repeat a key only with an identical request.
    """


class AnswerErased(Gone, slug="answer-erased", title="Answer erased"):
    """The first request with this `Idempotency-Key` succeeded, but the resource it made has been erased."""


class Key(NamedTuple):
    """Digests of a client's key and of the request that it came with."""

    key_hash: bytes
    request_hash: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request that makes a resource, and to its repeats."""

    subject: UUID
    """What the resource belongs to, or the resource itself."""
    made: str
    """The id of the resource: a repeat reads it again, so that only this is kept."""
    body: str
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 201

    @property
    def is_replayed(self) -> bool:
        """Whether an earlier request made the resource."""
        return _REPLAYED in self.headers

    def response(self) -> Response:
        """Return it as an HTTP answer."""
        return Response(self.body, self.status, self.headers, "application/json")


type Work = Callable[[Connection], Awaitable[Answer]]
"""Makes a resource."""
type Read = Callable[[str], Awaitable[Answer]]
"""Reads what was made, by its id, as it is now; raises `NotFound` where it has been erased."""


async def _key(
    request: Request,
    ctx: Ctx,
    user: User,
    idempotency_key: Annotated[
        str | None,
        Header(min_length=1, max_length=255, pattern=r"^[!-~]+$", description=_DESCRIPTION),
    ] = None,
) -> Key | None:
    if idempotency_key is None:
        return None
    key_hash = ctx.digests.digest("idempotency", f"{user.seat}\n{idempotency_key}".encode())
    what = f"{request.method} {request.url.path}\n".encode() + await request.body()
    return Key(key_hash, ctx.digests.digest("idempotent request", what))


IdempotencyKey = Annotated[Key | None, Depends(_key)]


async def once(postgres: Postgres, key: Key | None, work: Work, read: Read) -> Answer:
    """Do `work` in a transaction, or `read` what it made where a request with `key` has succeeded before.

    The same transaction stores the key, so that both take effect or neither. Raises
    `IdempotencyKeyInUse`, `IdempotencyKeyReused` or `AnswerErased`.
    """
    async with postgres.transaction() as connection:
        if key is None:
            return await work(connection)
        match await _running(connection, key):
            case "same":
                raise IdempotencyKeyInUse("A request with this Idempotency-Key is being answered.")
            case "other":
                raise _reused()
        stored = await _select(connection, key)
        if stored is None:
            answer = await work(connection)
            sql = """
                INSERT INTO idempotency_keys (key_hash, request_hash, twin_id, made, status)
                VALUES ($1, $2, $3, $4, $5)
                ON CONFLICT (key_hash) DO UPDATE SET
                    request_hash = EXCLUDED.request_hash, twin_id = EXCLUDED.twin_id, made = EXCLUDED.made,
                    status = EXCLUDED.status, created_at = EXCLUDED.created_at
            """
            await connection.execute(sql, *key, answer.subject, answer.made, answer.status)
            return answer
    return await _again(stored, read)


async def replay(postgres: Postgres, key: Key | None, read: Read) -> Answer | None:
    """Answer a repeated request as `once` does; return None for a first one, whose work is expensive from its start."""
    if key is None:
        return None
    async with postgres.connection() as connection:
        stored = await _select(connection, key)
    return None if stored is None else await _again(stored, read)


async def _running(connection: Connection, key: Key) -> str | None:
    """Lock the key, or return whether the request that holds it is the same one or another.

    A second INSERT of the key would wait for the first transaction; a lock fails at once. The lock of the
    request comes first: who has it, and not the key, meets another request.
    """
    sql = """
        SELECT CASE WHEN NOT pg_try_advisory_xact_lock($1) THEN 'same'
                    WHEN NOT pg_try_advisory_xact_lock($2) THEN 'other' END
    """
    both = bytes(a ^ b for a, b in zip(key.key_hash, key.request_hash, strict=True))
    found: str | None = await connection.fetchval(sql, _lock(both), _lock(key.key_hash))
    return found


def _lock(digest: bytes) -> int:
    return int.from_bytes(digest[:8], signed=True)


def _reused() -> IdempotencyKeyReused:
    return IdempotencyKeyReused([{"header": "Idempotency-Key", "detail": "was used for another request"}])


async def _select(connection: Connection, key: Key) -> Record | None:
    sql = """
        SELECT request_hash, made, status FROM idempotency_keys
        WHERE key_hash = $1 AND created_at > now() - make_interval(hours => $2)
    """
    stored = await connection.fetchrow(sql, key.key_hash, LIFE_HOURS)
    if stored is not None and stored["request_hash"] != key.request_hash:
        raise _reused()
    return stored


async def _again(stored: Record, read: Read) -> Answer:
    try:
        answer = await read(stored["made"])
    except NotFound:
        raise AnswerErased("What this request made has been erased.") from None
    return replace(answer, status=stored["status"], headers=answer.headers | {_REPLAYED: "true"})


async def forget(postgres: Postgres) -> None:
    """Delete keys older than `LIFE_HOURS`, for a few seconds at most."""
    sql = """
        DELETE FROM idempotency_keys WHERE key_hash IN (
            SELECT key_hash FROM idempotency_keys
            WHERE created_at <= now() - make_interval(hours => $1) LIMIT $2 FOR UPDATE SKIP LOCKED
        )
    """
    until = time.monotonic() + _WORK
    removed = _BATCH
    while removed == _BATCH and time.monotonic() < until:
        async with postgres.connection() as connection:
            removed = affected(await connection.execute(sql, LIFE_HOURS, _BATCH))
