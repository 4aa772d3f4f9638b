"""Personas: MongoDB stores a document first, then PostgreSQL decides whether it becomes a version."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from uuid import UUID

from pydantic import ValidationError

from shared.auth import CurrentUser
from shared.http.conditional import Preconditions, etag
from shared.http.idempotency import Answer, Key, once, replay
from shared.http.paging import Pages
from shared.http.problems import InternalError, NotFound, Problem, Unavailable, ValidationFailed
from shared.http.validation import from_validation
from shared.lane import Lane
from shared.stores.postgres import Connection, Record
from twins.context import Context
from twins.decision.problems import ConsentRequired
from twins.limits import key_of_account
from twins.locking import lock
from twins.parent import no_twin
from twins.persona import documents, prompt, queries
from twins.persona.models import (
    Persona,
    PersonaPatch,
    PersonaPut,
    PersonaVersion,
    Prompt,
    VersionEntry,
    VersionPage,
    address,
)
from twins.persona.patch import json_patch
from twins.persona.problems import VersionConflict
from twins.quotas import no_room_for_versions
from twins.scopes import PROMPT

logger = logging.getLogger(__name__)

_BATCH = 1000
_DIFFS = Lane("diff", threads=1, within=2.0)
_MERGES = Lane("merge", threads=1, within=2.0)

remaining = queries.remaining


def tag(version: int) -> str:
    """Return the entity tag of a persona's version."""
    return etag("persona", version)


async def erase(connection: Connection, twin_ids: Sequence[UUID]) -> dict[str, int]:
    """Remove some persona versions of these erased twins, and return their number."""
    return await queries.erase(connection, twin_ids, _BATCH)


async def get(ctx: Context, user: CurrentUser, twin_id: UUID, version: int | None = None) -> PersonaVersion:
    """Return a version of a persona, by default the latest; raises `NotFound`."""
    return await _read(ctx, user, twin_id, await _version(ctx, user, twin_id, version))


async def put(
    ctx: Context, user: CurrentUser, twin_id: UUID, persona: PersonaPut, preconditions: Preconditions
) -> PersonaVersion:
    """Make `persona` the next version.

    Raises `NotFound`, `ConsentRequired`, `PreconditionFailed`, or `ValidationFailed` if it is too large, or has
    read-only members that are not those of the latest version.
    """

    def check(latest: int) -> None:
        preconditions.check(tag(latest) if latest else None)
        persona.check_read_only(head if latest == head["persona_version"] else {})

    async with ctx.postgres.connection() as connection:
        head = _allowed(await queries.select_version(connection, user.owner, twin_id, None, ctx.lowest))
    check(head["persona_version"])
    return await _write(ctx, user, twin_id, persona, check)


async def patch(
    ctx: Context, user: CurrentUser, twin_id: UUID, change: PersonaPatch, preconditions: Preconditions
) -> PersonaVersion:
    """Merge `change` into the latest version, and make the result the next version.

    Raises `NotFound`, `ConsentRequired`, `PreconditionFailed`, `VersionConflict`, or `ValidationFailed` for the result.
    """

    def check(latest: int) -> None:
        preconditions.check(tag(latest))
        if latest != row["version"]:
            raise VersionConflict("Another change to this persona came first.")

    row = _allowed(await _version(ctx, user, twin_id, None))
    check(row["version"])
    try:
        persona = await _MERGES.run((await _read(ctx, user, twin_id, row)).merged, change)
    except ValidationError as error:
        raise from_validation(error) from None
    return await _write(ctx, user, twin_id, persona, check)


async def restore(ctx: Context, user: CurrentUser, twin_id: UUID, version: int, key: Key | None) -> Answer:
    """Make an old version the next one, once for each idempotency key; raises `NotFound` or `ConsentRequired`."""

    def answer(made: PersonaVersion) -> Answer:
        headers = {"Location": address(twin_id, made.version), "ETag": tag(made.version)}
        return Answer(twin_id, str(made.version), made.model_dump_json(), headers)

    async def read(made: str) -> Answer:
        return answer(await get(ctx, user, twin_id, int(made)))

    # No transaction is open during a call of MongoDB: the call may hang, and connections are few.
    if first := await replay(ctx.postgres, key, read):
        return first
    persona = await _read(ctx, user, twin_id, _allowed(await _version(ctx, user, twin_id, version)))

    async def work(connection: Connection) -> Answer:
        return answer(await make_version(connection))

    async with _candidate(ctx, user, twin_id, persona) as make_version:
        return await once(ctx.postgres, key, work, read)


async def history(ctx: Context, user: CurrentUser, twin_id: UUID, pages: Pages) -> VersionPage:
    """Return a page of a persona's versions, newest first; raises `NotFound`."""
    pages = pages.within("persona versions", twin_id)
    before = pages.start(int)
    async with ctx.postgres.connection() as connection:
        rows = await queries.select_versions(connection, user.owner, twin_id, before, pages.fetch)
        if not rows and await queries.select_head(connection, user.owner, twin_id, ctx.lowest) is None:
            raise no_twin()
    return pages.page(VersionPage, [VersionEntry.of(row) for row in rows], lambda entry: entry.version)


async def diff(ctx: Context, user: CurrentUser, twin_id: UUID, old: int, new: int) -> str:
    """Return the difference between two versions, as a JSON Patch (RFC 6902); raises `NotFound` or `Unavailable`."""
    async with _DIFFS.turn():  # sixteen at once, all of which read two documents, kept the gate from the interpreter
        before, after = [await get(ctx, user, twin_id, version) for version in (old, new)]
        return await _DIFFS.run(lambda: json_patch(before.content(), after.content()))


async def compile_prompt(ctx: Context, user: CurrentUser, twin_id: UUID) -> tuple[Prompt, str]:
    """Return the persona as chat messages and as plain text; raises `NotFound` or `ConsentRequired`."""
    row = _allowed(await _version(ctx, user, twin_id, None, PROMPT))
    persona = await _read(ctx, user, twin_id, row, PROMPT)
    twin = row["twin_name"], row["use_case"], row["tone"]
    return Prompt(messages=prompt.messages(*twin, persona)), prompt.plain_text(*twin, persona)


def _allowed(row: Record | None) -> Record:
    if row is None:
        raise no_twin()
    if row["reason"] != "granted":
        raise ConsentRequired("This twin has no live consent.", reason=row["reason"])
    return row


async def _version(ctx: Context, user: CurrentUser, twin_id: UUID, version: int | None, scope: str = "") -> Record:
    owner = user.owns if scope in user.scopes else user.owner  # with this scope, any twin
    async with ctx.postgres.connection() as connection:
        asked = twin_id, version, ctx.lowest, key_of_account(user.sub)
        row = await queries.select_version(connection, owner, *asked, any_owner=scope in user.scopes)
    if row is None:
        raise no_twin()
    if row["document_id"] is None:
        raise NotFound("This twin has no persona yet." if version is None else "There is no such version.")
    return row


async def _read(ctx: Context, user: CurrentUser, twin_id: UUID, row: Record, scope: str = "") -> PersonaVersion:
    try:
        persona = await documents.find_document(ctx.mongo, twin_id, row["document_id"], row["sha256"])
    except documents.BrokenError as broken:
        await _version(ctx, user, twin_id, row["version"], scope)  # raises where the twin was deleted meanwhile
        logger.error(str(broken), extra={"version": row["version"]})  # noqa: TRY400 - a trace would add nothing
        raise InternalError("The persona cannot be read.") from None
    return PersonaVersion.of(persona, row["version"], row["created_at"])


async def _write(
    ctx: Context, user: CurrentUser, twin_id: UUID, persona: Persona, check: Callable[[int], None]
) -> PersonaVersion:
    async with _candidate(ctx, user, twin_id, persona, check) as make_version, ctx.postgres.transaction() as connection:
        return await make_version(connection)


@asynccontextmanager
async def _candidate(
    ctx: Context, user: CurrentUser, twin_id: UUID, persona: Persona, check: Callable[[int], None] = lambda _: None
) -> AsyncIterator[Callable[[Connection], Awaitable[PersonaVersion]]]:
    """Store a document, and lend what makes it the next version, or raises a `Problem`.

    `check` raises a `Problem` where the number of the latest version (0: none yet) forbids the next.
    """
    try:
        stored = await documents.insert_document(ctx.mongo, twin_id, persona)
    except documents.TooLargeError:
        detail = f"must not be larger than {documents.MAX_BYTES // 1024} KiB as JSON"
        raise ValidationFailed([{"pointer": "#", "detail": detail}]) from None

    async def make_version(connection: Connection) -> PersonaVersion:
        # Under the lock, so that a withdrawal is either before this version, or after it.
        await lock(connection, user.owner, twin_id)
        check(_allowed(await queries.select_head(connection, user.owner, twin_id, ctx.lowest))["persona_version"])
        most = ctx.settings.account_versions, ctx.settings.account_bytes
        made = await queries.insert_version(connection, twin_id, *stored, *most)
        if made is None:
            raise no_room_for_versions(*most)
        return PersonaVersion.of(persona, made["version"], made["created_at"])

    try:
        yield make_version
    except Unavailable:  # the document may have become a version
        raise
    except Problem:
        with suppress(Unavailable):  # the sweep removes it later
            await documents.delete_documents(ctx.mongo, [twin_id], [stored.document_id])
        raise
