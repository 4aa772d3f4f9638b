"""What can be done with personas: documents are written first, then PostgreSQL decides."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

from pydantic import ValidationError

from shared.auth import CurrentUser
from shared.context import Context
from shared.errors import (
    Conflict,
    InternalError,
    NotFound,
    Problem,
    Unavailable,
    ValidationFailed,
    from_validation,
)
from shared.idempotency import Answer, Key, once, replay
from shared.merge_patch import merge
from shared.paging import Page, seal, unseal
from shared.postgres import Connection, Record
from shared.preconditions import Preconditions, etag
from twins.consent import service as consent
from twins.persona import documents, prompt, queries
from twins.persona.models import Persona, PersonaPatch, PersonaVersion, Prompt, VersionEntry
from twins.problems import ConsentRequired, no_twin

logger = logging.getLogger(__name__)

MAX_BYTES = 256 * 1024
"""Size of a persona as compact UTF-8 JSON."""
ORPHAN_AGE = timedelta(hours=1)
"""Age at which a document that is no version will not become one: no request takes that long."""
_BATCH = 500
_WORK = 5.0
"""Seconds that one round of the sweep may take: the timer has more to do."""

_CONTENT = set(Persona.model_fields)


class VersionConflict(Conflict):
    """Another change to this persona came first; nothing was done.

    Read the persona again and apply your change to what you find.
    """

    slug, title = "version-conflict", "Version conflict"


def tag(version: int) -> str:
    """Return the entity tag of a persona's version."""
    return etag("persona", version)


async def get(ctx: Context, user: CurrentUser, twin_id: UUID, version: int | None = None) -> PersonaVersion:
    """Return a version of a persona, the latest where none is named; raises `NotFound`."""
    row = await _version(ctx, user, twin_id, version)
    return await _read(ctx, user, twin_id, row)


async def put(
    ctx: Context, user: CurrentUser, twin_id: UUID, persona: Persona, preconditions: Preconditions
) -> PersonaVersion:
    """Make `persona` the next version.

    Raises:
        NotFound: there is no such twin.
        ConsentRequired: the twin may not be used.
        PreconditionFailed: `preconditions` do not hold.
        ValidationFailed: it is too large.
    """
    async with ctx.postgres.connection() as connection:
        head = await queries.select_head(connection, user.sub, twin_id)
    preconditions.check(_tag_of(_allowed(head)["persona_version"]))
    return await _write(ctx, user, twin_id, persona, preconditions)


async def patch(
    ctx: Context, user: CurrentUser, twin_id: UUID, change: PersonaPatch, preconditions: Preconditions
) -> PersonaVersion:
    """Merge `change` into the latest version and make that the next.

    Raises:
        NotFound: there is no such twin, or it has no persona yet.
        ConsentRequired: the twin may not be used.
        PreconditionFailed: `preconditions` do not hold.
        VersionConflict: another change came first.
        ValidationFailed: what comes out is not a persona.
    """
    row = await _version(ctx, user, twin_id, None)
    _allowed(row)
    preconditions.check(tag(row["version"]))
    current = await _read(ctx, user, twin_id, row)
    merged = merge(current.model_dump(include=_CONTENT), change.model_dump(exclude_unset=True))
    try:
        persona = Persona.model_validate(merged)
    except ValidationError as error:
        raise from_validation(error) from None
    return await _write(ctx, user, twin_id, persona, preconditions, row["version"])


async def restore(ctx: Context, user: CurrentUser, twin_id: UUID, version: int, key: Key | None) -> Answer:
    """Make an old version the next one again, once for each idempotency key.

    Raises:
        NotFound: there is no such twin, or no such version.
        ConsentRequired: the twin may not be used.
    """
    # No transaction is open while MongoDB is asked: it may hang, and connections are few.
    if first := await replay(ctx.postgres, key):
        return first
    row = await _version(ctx, user, twin_id, version)
    _allowed(row)
    persona = await _read(ctx, user, twin_id, row)

    async def work(connection: Connection) -> Answer:
        restored = await _make_version(connection, user, twin_id, persona, document_id, Preconditions())
        location = f"/api/v1/twins/{twin_id}/persona/versions/{restored.version}"
        headers = {"Location": location, "ETag": tag(restored.version)}
        return Answer(twin_id, restored.model_dump_json(), headers)

    async with _candidate(ctx, twin_id, persona) as document_id:
        return await once(ctx.postgres, key, work)


async def history(ctx: Context, user: CurrentUser, twin_id: UUID, limit: int, cursor: str | None) -> Page[VersionEntry]:
    """Return a page of a persona's versions, newest first; raises `NotFound`."""
    scope = f"persona versions\n{user.sub}\n{twin_id}"
    before = None if cursor is None else int(unseal(ctx.digests, scope, cursor)[0])
    async with ctx.postgres.connection() as connection:
        rows = await queries.select_versions(connection, user.sub, twin_id, before, limit + 1)
        if not rows and await queries.select_head(connection, user.sub, twin_id) is None:
            raise no_twin()
    items = [VersionEntry.model_validate(dict(row)) for row in rows[:limit]]
    more = len(rows) > limit
    return Page[VersionEntry](items=items, next_cursor=seal(ctx.digests, scope, [items[-1].version]) if more else None)


async def diff(ctx: Context, user: CurrentUser, twin_id: UUID, old: int, new: int) -> str:
    """Return what changed between two versions, as a JSON Patch (RFC 6902); raises `NotFound`."""
    before, after = [(await get(ctx, user, twin_id, version)).model_dump(include=_CONTENT) for version in (old, new)]

    def compare() -> str:
        import jsonpatch  # noqa: PLC0415 - rarely needed; cold start is not

        return str(jsonpatch.make_patch(before, after).to_string())

    # Twice 256 KiB may be compared: CPU-bound, so off the event loop.
    return await asyncio.to_thread(compare)


async def compile_prompt(ctx: Context, user: CurrentUser, twin_id: UUID) -> tuple[Prompt, str]:
    """Return the persona as chat messages and as plain text; raises `NotFound` or `ConsentRequired`."""
    row = await _version(ctx, user, twin_id, None)
    _allowed(row)
    persona = await _read(ctx, user, twin_id, row)
    twin = row["twin_name"], row["use_case"], row["tone"]
    return Prompt(messages=prompt.messages(*twin, persona)), prompt.plain_text(*twin, persona)


async def find_documents(ctx: Context, twin_ids: Sequence[UUID]) -> list[UUID]:
    """Return ids of documents of these twins, some of them where there are many."""
    return await documents.find_ids(ctx.mongo, twin_ids, _BATCH)


async def delete_documents(ctx: Context, document_ids: Sequence[UUID]) -> None:
    """Remove documents of erased twins."""
    await documents.delete_documents(ctx.mongo, document_ids)


async def sweep_orphans(ctx: Context) -> int:
    """Remove documents that a crash kept from becoming versions, and return how many.

    Looks at each document once, when it is an hour old, and for a few seconds at most.
    """
    give_up_at = time.monotonic() + _WORK
    removed, more = 0, True
    while more and time.monotonic() < give_up_at:
        count, more = await _sweep_some(ctx)
        removed += count
    if removed:
        logger.info("Unreferenced documents removed", extra={"count": removed})
    return removed


async def _sweep_some(ctx: Context) -> tuple[int, bool]:
    """Return how many were removed, and whether there may be more to look at."""
    async with ctx.postgres.transaction() as connection:
        sweep = await queries.lock_sweep(connection)
        if sweep is None:
            return 0, False
        since, until = sweep["swept_until"], sweep["now"] - ORPHAN_AGE
        found = await documents.find_made(ctx.mongo, since, until, _BATCH)
        document_ids = [made.document_id for made in found]
        orphans = set(document_ids) - await queries.select_kept(
            connection, document_ids, [made.twin_id for made in found]
        )
        if orphans:
            await documents.delete_documents(ctx.mongo, list(orphans))
        # Again from the last one's millisecond, since others of it may not have fitted in.
        swept_until = found[-1].created_at if len(found) == _BATCH else until
        await queries.update_sweep(connection, swept_until)
    return len(orphans), since < swept_until < until


def _allowed(row: Record | None) -> Record:
    if row is None:
        raise no_twin()
    if row["reason"] != "granted":
        raise ConsentRequired("This twin has no live consent.", reason=row["reason"])
    return row


def _tag_of(latest: int) -> str | None:
    return tag(latest) if latest else None


async def _version(ctx: Context, user: CurrentUser, twin_id: UUID, version: int | None) -> Record:
    async with ctx.postgres.connection() as connection:
        return _found(await queries.select_version(connection, user.sub, twin_id, version), version)


def _found(row: Record | None, version: int | None) -> Record:
    if row is None:
        raise no_twin()
    if row["document_id"] is None:
        raise NotFound("This twin has no persona yet." if version is None else "There is no such version.")
    return row


async def _read(ctx: Context, user: CurrentUser, twin_id: UUID, row: Record) -> PersonaVersion:
    persona = await documents.find_document(ctx.mongo, twin_id, row["document_id"])
    if persona is None:
        await _version(ctx, user, twin_id, row["version"])  # raises where the twin was deleted meanwhile
        logger.error("Persona document is missing", extra={"version": row["version"]})
        raise InternalError("The persona cannot be read.")
    return PersonaVersion.of(persona, row["version"], row["created_at"])


async def _write(
    ctx: Context,
    user: CurrentUser,
    twin_id: UUID,
    persona: Persona,
    preconditions: Preconditions,
    expected: int | None = None,
) -> PersonaVersion:
    if len(json.dumps(persona.model_dump(), ensure_ascii=False, separators=(",", ":")).encode()) > MAX_BYTES:
        detail = f"must not be larger than {MAX_BYTES // 1024} KiB as JSON"
        raise ValidationFailed([{"pointer": "#", "detail": detail}])
    async with (
        _candidate(ctx, twin_id, persona) as document_id,
        ctx.postgres.transaction() as connection,
    ):
        return await _make_version(connection, user, twin_id, persona, document_id, preconditions, expected)


@asynccontextmanager
async def _candidate(ctx: Context, twin_id: UUID, persona: Persona) -> AsyncIterator[UUID]:
    """Store a document that the block makes a version, or refuses by a `Problem`."""
    document_id = await documents.insert_document(ctx.mongo, twin_id, persona)
    try:
        yield document_id
    except Unavailable:  # nobody knows whether it became a version
        raise
    except Problem:
        with contextlib.suppress(Unavailable):  # the sweep removes it later
            await documents.delete_documents(ctx.mongo, [document_id])
        raise


async def _make_version(
    connection: Connection,
    user: CurrentUser,
    twin_id: UUID,
    persona: Persona,
    document_id: UUID,
    preconditions: Preconditions,
    expected: int | None = None,
) -> PersonaVersion:
    """Decide under a lock of the twin: a withdrawal is either before this version, or after it."""
    await consent.lock(connection, twin_id, user.sub)
    latest = _allowed(await queries.select_head(connection, user.sub, twin_id))["persona_version"]
    preconditions.check(_tag_of(latest))
    if expected is not None and expected != latest:
        raise VersionConflict("Another change to this persona came first.")
    made = await queries.insert_version(connection, twin_id, document_id)
    return PersonaVersion.of(persona, made["version"], made["created_at"])
