"""What can be done with twins."""

import logging
from dataclasses import dataclass
from uuid import UUID

from shared import logs
from shared.auth import CurrentUser
from shared.context import Context
from shared.errors import Problem
from shared.idempotency import Answer, Key, once
from shared.paging import Page, seal, unseal
from shared.postgres import Connection, Record
from shared.preconditions import Preconditions, etag
from twins.consent import service as consent
from twins.erasure import service as erasure
from twins.problems import no_twin
from twins.twin import queries
from twins.twin.models import Twin, TwinCreate, TwinPatch

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list of twins is narrowed to; None where it is not."""

    q: str | None
    use_case: str | None
    tone: str | None
    consent: bool | None


def _tag(row: Record) -> str:
    return etag(row["version"], "live" if row["consent"] else "off")


def _path(twin_id: UUID) -> str:
    return f"/api/v1/twins/{twin_id}"


async def create(ctx: Context, user: CurrentUser, wanted: TwinCreate, key: Key | None) -> Answer:
    """Make a twin, once for each idempotency key."""
    named = {"twin_name": ctx.log_name(wanted.twin_name)}
    logger.info("Twin creation initiated", extra=named)

    async def work(connection: Connection) -> Answer:
        made = await queries.insert_twin(connection, user.sub, wanted.twin_name, wanted.use_case, wanted.tone)
        if wanted.consent:
            await consent.grant_first(connection, consent.chain_of(made), user)
        row = await _select(connection, user, made["id"])
        twin = Twin.model_validate(dict(row))
        return Answer(twin.id, twin.model_dump_json(), {"Location": _path(twin.id), "ETag": _tag(row)})

    try:
        answer = await once(ctx.postgres, key, work)
    except Exception as error:
        cause = error.__cause__ or error
        constraint = getattr(cause, "constraint_name", None)
        logger.log(
            logging.INFO if isinstance(error, Problem) and error.status < 500 else logging.ERROR,  # noqa: PLR2004
            "Twin creation failed",
            extra=named | {"error": type(cause).__name__, "constraint": constraint},
        )
        raise
    logs.bind(twin_id=str(answer.twin_id))
    if not answer.is_replayed:
        logger.info("Twin created", extra=named)
    return answer


async def get(ctx: Context, user: CurrentUser, twin_id: UUID) -> tuple[Twin, str]:
    """Return a twin and its entity tag; raises `NotFound`."""
    async with ctx.postgres.connection() as connection:
        row = await _select(connection, user, twin_id)
    return Twin.model_validate(dict(row)), _tag(row)


async def find(ctx: Context, user: CurrentUser, filters: Filters, limit: int, cursor: str | None) -> Page[Twin]:
    """Return a page of the owner's twins, newest first."""
    scope = f"twins\n{user.sub}\n{filters}"
    before = None if cursor is None else UUID(unseal(ctx.digests, scope, cursor)[0])
    async with ctx.postgres.connection() as connection:
        rows = await queries.select_twins(
            connection,
            user.sub,
            before=before,
            limit=limit + 1,
            q=filters.q,
            use_case=filters.use_case,
            tone=filters.tone,
            consent=filters.consent,
        )
    items = [Twin.model_validate(dict(row)) for row in rows[:limit]]
    more = len(rows) > limit
    return Page[Twin](items=items, next_cursor=seal(ctx.digests, scope, [str(items[-1].id)]) if more else None)


async def patch(
    ctx: Context, user: CurrentUser, twin_id: UUID, change: TwinPatch, preconditions: Preconditions
) -> tuple[Twin, str]:
    """Change members of a twin; raises `NotFound` or `PreconditionFailed`."""
    async with ctx.postgres.transaction() as connection:
        chain = await consent.lock(connection, twin_id, user.sub)
        row = await _select(connection, user, twin_id)
        preconditions.check(_tag(row))
        wanted = change.model_dump(exclude_unset=True)
        if wanted.get("consent") is True:
            await consent.grant_general(connection, chain, user)
        elif wanted.get("consent") is False:
            await consent.withdraw_general(connection, chain, user)
        current = {name: row[name] for name in ("twin_name", "use_case", "tone")}
        texts = {name: wanted.get(name, value) for name, value in current.items()}
        if texts != current:
            await queries.update_twin(connection, twin_id, **texts)
        row = await _select(connection, user, twin_id)
    return Twin.model_validate(dict(row)), _tag(row)


async def delete(ctx: Context, user: CurrentUser, twin_id: UUID, preconditions: Preconditions) -> UUID:
    """Erase a twin and everything stored of it, and return the erasure's id.

    Raises `NotFound` or `PreconditionFailed`.
    """
    async with ctx.postgres.transaction() as connection:
        await consent.lock(connection, twin_id, user.sub)
        preconditions.check(_tag(await _select(connection, user, twin_id)))
        erasure_id = await erasure.begin(ctx, connection, user, [twin_id])
    await erasure.attempt(ctx, erasure_id)
    return erasure_id


async def _select(connection: Connection, user: CurrentUser, twin_id: UUID) -> Record:
    row = await queries.select_twin(connection, user.sub, twin_id)
    if row is None:
        raise no_twin()
    return row
