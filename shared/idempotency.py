"""`Idempotency-Key` (IETF draft): a POST that is sent again takes effect once."""

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Header, Request, Response

from shared.auth import User
from shared.context import Ctx
from shared.errors import Conflict, Gone, ValidationFailed
from shared.postgres import Connection, Postgres

LIFE_HOURS = 24
_REPLAYED = "Idempotency-Replayed"
_BATCH = 1000
_WORK = 5.0
"""Seconds that one round of forgetting may take: the timer has more to do."""


class IdempotencyKeyInUse(Conflict):
    """A request with this `Idempotency-Key` is still being answered.

    Wait a moment and send it again: you get the answer of the first one.
    """

    slug, title = "idempotency-key-in-use", "Idempotency key in use"


class IdempotencyKeyReused(ValidationFailed):
    """This `Idempotency-Key` was used for another request in the last 24 hours.

    Make a new key for each new request; repeat a key only with the very same request.
    """

    slug, title = "idempotency-key-reused", "Idempotency key reused"


class AnswerErased(Gone):
    """The first request with this `Idempotency-Key` succeeded; what it made has since been erased."""

    slug, title = "answer-erased", "Answer erased"


@dataclass(frozen=True, slots=True)
class Key:
    """A client's key and what it was sent with, both as digests."""

    key_hash: bytes
    request_hash: bytes

    @property
    def lock(self) -> int:
        """The number of the advisory lock that stands for this key."""
        return int.from_bytes(self.key_hash[:8], signed=True)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request that makes something answers, now and when it is sent again."""

    twin_id: UUID
    body: str
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 201

    @property
    def is_replayed(self) -> bool:
        """Whether an earlier request has got this answer."""
        return _REPLAYED in self.headers

    def response(self) -> Response:
        """Return it as an HTTP answer."""
        return Response(self.body, self.status, self.headers, "application/json")


async def _key(
    request: Request,
    ctx: Ctx,
    user: User,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            pattern=r"^[!-~]+$",
            description="Makes a repeated request safe: the same key and body give the first answer again.",
        ),
    ] = None,
) -> Key | None:
    if idempotency_key is None:
        return None
    key_hash = ctx.digests.digest("idempotency", f"{user.sub}\n{idempotency_key}".encode())
    what = f"{request.method} {request.url.path}\n".encode() + await request.body()
    return Key(key_hash, ctx.digests.digest("idempotent request", what))


IdempotencyKey = Annotated[Key | None, Depends(_key)]


async def once(postgres: Postgres, key: Key | None, work: Callable[[Connection], Awaitable[Answer]]) -> Answer:
    """Do `work` in a transaction, unless `key` says it was done: then return its first answer.

    The key is claimed in the transaction of the work: either both are there, or neither.

    Raises:
        IdempotencyKeyInUse: the first request is still running.
        IdempotencyKeyReused: the key was used for another request.
        AnswerErased: what the first request made has been erased.
    """
    async with postgres.transaction() as connection:
        if key is None:
            return await work(connection)
        # A second INSERT of the key would wait for the first transaction; this answers at once.
        if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", key.lock):
            raise IdempotencyKeyInUse("A request with this Idempotency-Key is being answered.")
        first = await _select(connection, key)
        if first is not None:
            return first
        answer = await work(connection)
        await connection.execute(
            """
            INSERT INTO idempotency_keys (key_hash, request_hash, twin_id, status, headers, body)
            VALUES ($1, $2, $3, $4, $5, $6)
            ON CONFLICT (key_hash) DO UPDATE SET
                request_hash = EXCLUDED.request_hash, twin_id = EXCLUDED.twin_id, status = EXCLUDED.status,
                headers = EXCLUDED.headers, body = EXCLUDED.body, created_at = EXCLUDED.created_at
            """,
            key.key_hash,
            key.request_hash,
            answer.twin_id,
            answer.status,
            json.dumps(answer.headers),
            answer.body,
        )
        return answer


async def replay(postgres: Postgres, key: Key | None) -> Answer | None:
    """Return the answer that a request with this key has got, if it has, and raise as `once`.

    For work that has more to do before its transaction than to open it.
    """
    if key is None:
        return None
    async with postgres.connection() as connection:
        return await _select(connection, key)


async def _select(connection: Connection, key: Key) -> Answer | None:
    stored = await connection.fetchrow(
        """
        SELECT request_hash, twin_id, status, headers, body FROM idempotency_keys
        WHERE key_hash = $1 AND created_at > now() - make_interval(hours => $2)
        """,
        key.key_hash,
        LIFE_HOURS,
    )
    if stored is None:
        return None
    if stored["request_hash"] != key.request_hash:
        raise IdempotencyKeyReused([{"header": "Idempotency-Key", "detail": "was used for another request"}])
    if stored["body"] is None:
        raise AnswerErased("What this request made has been erased.")
    headers = json.loads(stored["headers"]) | {_REPLAYED: "true"}
    return Answer(stored["twin_id"], stored["body"], headers, stored["status"])


async def forget(postgres: Postgres) -> None:
    """Remove answers that are older than they are kept, for a few seconds at most."""
    until = time.monotonic() + _WORK
    removed = _BATCH
    while removed == _BATCH and time.monotonic() < until:
        async with postgres.connection() as connection:
            rows = await connection.fetch(
                """
                DELETE FROM idempotency_keys WHERE key_hash IN (
                    SELECT key_hash FROM idempotency_keys
                    WHERE created_at <= now() - make_interval(hours => $1) LIMIT $2 FOR UPDATE SKIP LOCKED
                )
                RETURNING 1
                """,
                LIFE_HOURS,
                _BATCH,
            )
        removed = len(rows)
