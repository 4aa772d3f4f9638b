"""Twins: created, read, changed and erased."""

import logging
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any
from uuid import UUID

from shared.auth import CurrentUser
from shared.http.conditional import Preconditions, etag
from shared.http.idempotency import Answer, Key, once
from shared.http.paging import Pages
from shared.http.problems import NotFound, Problem, ValidationFailed
from shared.logging import bind, conclude
from shared.stores.postgres import Connection, Priority, Record, constraint_of
from twins.consent import acts
from twins.context import Context
from twins.erasure import service as erasure
from twins.external import ExternalId
from twins.journal import service as journal
from twins.locking import lock
from twins.parent import address, no_twin
from twins.quotas import QuotaExceeded, no_room_for_twins
from twins.twin import queries
from twins.twin.models import Filters, Twin, TwinCreate, TwinPage, TwinPatch
from twins.twin.problems import ExternalIdKept

logger = logging.getLogger(__name__)

_SCANNED = 2000
"""The most twins that one page of a filtered list looks at."""
_INDEXED = re.compile(r"\w{3}")
"""What the index of names knows: three letters or digits in a row."""
_PLAIN = {"twin_name", "use_case", "tone"}
"""The members of a twin that no other member depends on."""


def _tag(row: Mapping[str, Any]) -> str:
    parts = [row["version"], "live" if row["consent"] else "off"]
    if row["external_ids"]:  # one that moves to another twin changes no row of this one
        parts.append(sha256(row["external_ids"].encode()).hexdigest()[:16])
    return etag(*parts)


async def create(ctx: Context, user: CurrentUser, wanted: TwinCreate, key: Key | None) -> Answer:
    """Create a twin, once for each idempotency key."""
    named: dict[str, str | None] = {"twin_name": ctx.log_name(wanted.twin_name)}
    principals = _accounts(ctx, wanted.principals)
    logger.info("Twin creation initiated", extra=named)

    async def work(connection: Connection) -> Answer:
        texts = wanted.twin_name, wanted.use_case, wanted.tone
        most = ctx.settings.account_twins
        twin_id = await queries.insert_twin(connection, user.owner, *texts, principals, most)
        if twin_id is None:
            raise no_room_for_twins(most)
        if wanted.external_ids:  # before the yes, which is then one to a twin with these ids
            await _attach(ctx, connection, user, twin_id, wanted.external_ids)
        if wanted.consent:
            await acts.grant_first(ctx, connection, user, twin_id)
        row = await _select(ctx, connection, user, twin_id)
        return _answer(Twin.of(row), _tag(row))

    async def read(made: str) -> Answer:
        return _answer(*await get(ctx, user, UUID(made)))

    try:
        answer = await once(ctx.postgres, key, work, read)
    except Exception as error:
        cause = error.__cause__ or error
        reason = {"error": type(cause).__name__, "constraint": constraint_of(cause)}
        level = logging.INFO if isinstance(error, Problem) and error.status < 500 else logging.ERROR  # noqa: PLR2004
        conclude(logger, "Twin creation failed", level, named | reason)
        raise
    bind(twin_id=answer.made)
    conclude(logger, "Twin creation repeated" if answer.is_replayed else "Twin created", extra=named)
    return answer


async def get(ctx: Context, user: CurrentUser, twin_id: UUID) -> tuple[Twin, str]:
    """Return a twin and its entity tag; raises `NotFound`."""
    async with ctx.postgres.connection() as connection:
        row = await _select(ctx, connection, user, twin_id)
    return Twin.of(row), _tag(row)


async def find(ctx: Context, user: CurrentUser, filters: Filters, pages: Pages) -> TwinPage:
    """Return a page of the owner's twins, newest first.

    Some of the newest are looked at one by one, which finds what is frequent. For a name that is rare among them the
    index has all the others, if it is rare among these too. Otherwise the next page goes on from there.
    """
    pages = pages.within("twins", filters)
    before = pages.start(UUID)
    async with ctx.postgres.connection() as connection:
        if filters.external_id is not None:
            digest = _digest(ctx, user, filters.external_id)
            rows = await queries.select_twins_called(connection, user.owner, ctx.lowest, filters, digest, 1)
            return pages.page(TwinPage, [Twin.of(row) for row in rows], lambda twin: str(twin.id))
        asked = user.owner, ctx.lowest, filters, _SCANNED
        rows, until = await queries.select_twins(connection, *asked, before, pages.fetch)
        left = pages.fetch - len(rows)
        if until is not None and left and filters.q is not None and _INDEXED.search(filters.q):
            named = await queries.select_twins_named(connection, *asked, until, left)
            if named is not None:
                rows, until = [*rows, *named], None
    end = None if until is None else str(until)
    return pages.page(TwinPage, [Twin.of(row) for row in rows], lambda twin: str(twin.id), end)


async def patch(
    ctx: Context, user: CurrentUser, twin_id: UUID, change: TwinPatch, preconditions: Preconditions
) -> tuple[Twin, str]:
    """Change members of a twin; raises `NotFound`, `PreconditionFailed`, `ExternalIdKept` or `QuotaExceeded`."""
    wanted = change.model_dump(exclude_unset=True)
    if "principals" in wanted:
        wanted["principals"] = _accounts(ctx, wanted["principals"])
    is_no = wanted.get("consent") is False
    async with ctx.postgres.transaction(Priority.HIGH if is_no else Priority.COMMON) as connection:
        await lock(connection, user.owner, twin_id)
        row: Mapping[str, Any] = await _select(ctx, connection, user, twin_id)
        preconditions.check(_tag(row))
        is_changed = "external_ids" in wanted and await _attach(ctx, connection, user, twin_id, change.external_ids)
        if wanted.get("consent") is True:
            await acts.grant_general(ctx, connection, user, twin_id)
        elif is_no:
            await acts.withdraw_general(ctx, connection, user, twin_id)
        current = {name: row[name] for name in ("twin_name", "use_case", "tone", "principals")}
        changed = {name: wanted.get(name, value) for name, value in current.items()}
        if added := set(changed["principals"]) - set(row["principals"]):
            await acts.check_names(connection, twin_id, [*added])
        if changed != current or is_changed:
            row = {**row, **await queries.update_twin(connection, twin_id, **changed)}
        if not wanted.keys() <= _PLAIN:
            row = await _select(ctx, connection, user, twin_id)
    if "consent" in wanted:
        await journal.attempt(ctx, twin_id)
    return Twin.of(row), _tag(row)


async def delete(ctx: Context, user: CurrentUser, twin_id: UUID, preconditions: Preconditions) -> UUID:
    """Erase a twin with all its data, and return the erasure's id, also of a twin that this owner has erased.

    Raises `NotFound` or `PreconditionFailed`.
    """
    async with ctx.postgres.transaction(Priority.HIGH) as connection:
        try:
            await lock(connection, user.owner, twin_id)
        except NotFound:
            # The answer may have been lost.
            erasure_id = await erasure.find_of(ctx, connection, user, twin_id)
            if erasure_id is None:
                raise
            return erasure_id
        preconditions.check(_tag(await _select(ctx, connection, user, twin_id)))
        erasure_id = await erasure.begin(ctx, connection, user, twin_id)
    await journal.attempt(ctx, twin_id)
    return erasure_id


erase = queries.erase
remaining = queries.remaining


async def _attach(
    ctx: Context, connection: Connection, user: CurrentUser, twin_id: UUID, external_ids: Sequence[ExternalId]
) -> bool:
    """Make these the external ids of a twin, and return whether that changes them.

    Raises `ExternalIdKept` or `QuotaExceeded`.
    """
    digests = [_digest(ctx, user, external) for external in external_ids]
    row = await queries.attach_ids(connection, twin_id, user.owner, digests, external_ids)
    match row["problem"]:
        case None:
            return bool(row["is_changed"])
        case "kept":
            detail = "A person has spoken on another twin of yours that has this id, or had it when it was erased."
            raise ExternalIdKept(detail, pointer=f"#/external_ids/{row['place'] - 1}")
        case "too_many":
            raise QuotaExceeded("Once a person has spoken, a twin may have had 1,000 external ids; this is beyond.")
        case _:
            raise no_twin()


def _digest(ctx: Context, user: CurrentUser, external: ExternalId) -> bytes:
    return ctx.external_digest(user.owner, external.type, external.id)


def _accounts(ctx: Context, named: Sequence[str]) -> list[str]:
    """Return the accounts behind these names; raises `ValidationFailed` for one that is named in two ways."""
    accounts = [ctx.account_of(name) for name in named]
    if len(set(accounts)) < len(accounts):
        raise ValidationFailed([{"pointer": "#/principals", "detail": "must not name an account twice"}])
    return accounts


def _answer(twin: Twin, tag: str) -> Answer:
    return Answer(twin.id, str(twin.id), twin.model_dump_json(), {"Location": address(twin.id), "ETag": tag})


async def _select(ctx: Context, connection: Connection, user: CurrentUser, twin_id: UUID) -> Record:
    row = await queries.select_twin(connection, user.owner, twin_id, ctx.lowest)
    if row is None:
        raise no_twin()
    return row
