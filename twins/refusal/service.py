"""Refusals: a no takes effect at once, and stands in the way of the next yes until its author opens it."""

from uuid import UUID

from shared.auth import CurrentUser
from shared.http.paging import Pages
from shared.http.problems import NotFound, ValidationFailed
from shared.stores.postgres import Connection, Priority
from twins.context import Context
from twins.journal import service as journal
from twins.ledger import service as ledger
from twins.parent import no_twin
from twins.refusal import queries
from twins.refusal.models import Refusal, RefusalCreate, RefusalPage
from twins.refusal.problems import no_refusal
from twins.scopes import STOP

_OF_A_RECEIPT = 20


def is_operator(user: CurrentUser) -> bool:
    """Return whether this token may say no on any twin."""
    return STOP in user.scopes


async def create(ctx: Context, user: CurrentUser, twin_id: UUID, wanted: RefusalCreate) -> tuple[Refusal, bool]:
    """Refuse purposes of a twin; return the standing refusal of the account, and if it is new; raises `NotFound`."""
    purposes = wanted.purposes and sorted(wanted.purposes)
    async with ctx.postgres.transaction(Priority.HIGH) as connection:
        # An operator who is named on the twin speaks for themself.
        said = connection, user.owns, user.sub, user.client, twin_id, purposes
        row = await queries.say_no(*said, is_operator=False)
        if row["problem"] == "not_found" and is_operator(user):
            row = await queries.say_no(*said, is_operator=True)
        if row["problem"]:
            raise no_twin()
        if row["is_changed"]:
            ledger.count("refused")
        refusal = Refusal.of(await queries.select_lock(connection, twin_id, row["lock_id"]))
    await journal.attempt(ctx, twin_id)
    return refusal, row["is_made"]


async def withdraw(
    connection: Connection,
    user: CurrentUser,
    twin_id: UUID,
    consent_id: UUID,
    purposes: list[str] | None = None,
    *,
    by_operator: bool = False,
) -> None:
    """Refuse purposes of a consent, by default all of its line of renewals; raises `NotFound` or `ValidationFailed`."""
    said = connection, user.owns, user.sub, user.client, twin_id, purposes, consent_id
    row = await queries.say_no(*said, is_operator=by_operator)
    check_purposes(row["problem"])
    if row["is_changed"]:
        ledger.count("withdrawn")


def check_purposes(problem: str | None) -> None:
    """Raise the `NotFound` or `ValidationFailed` behind the problem of a withdrawal."""
    if problem == "foreign_purpose":
        raise ValidationFailed([{"pointer": "#/purposes", "detail": "must be purposes of this consent"}])
    if problem:
        raise NotFound("There is no such consent.")


async def find(ctx: Context, user: CurrentUser, twin_id: UUID, pages: Pages) -> RefusalPage:
    """Return a page of a twin's standing refusals: all to its owner and operators, else the caller's own.

    Raises `NotFound`.
    """
    pages = pages.within("refusals", twin_id)
    after = pages.start(UUID)
    operator = is_operator(user)
    async with ctx.postgres.connection() as connection:
        rows = await queries.select_locks(
            connection, user.owns, user.sub, twin_id, after, pages.fetch, is_operator=operator
        )
        if not rows and not await queries.may_refuse(connection, user.owns, user.sub, twin_id, is_operator=operator):
            raise no_twin()
    return pages.page(RefusalPage, [Refusal.of(row) for row in rows], lambda refusal: str(refusal.id))


async def get(ctx: Context, user: CurrentUser, twin_id: UUID, refusal_id: UUID) -> Refusal:
    """Return a standing refusal: any to the twin's owner and operators, else the caller's own; raises `NotFound`."""
    operator = is_operator(user)
    async with ctx.postgres.connection() as connection:
        row = await queries.select_lock_of(connection, user.owns, user.sub, twin_id, refusal_id, is_operator=operator)
    if row is None:
        raise no_refusal()
    return Refusal.of(row)


async def over(connection: Connection, twin_id: UUID, purposes: list[str]) -> list[Refusal]:
    """Return the standing refusals over any of these purposes, up to twenty."""
    rows = await queries.select_locks_over(connection, twin_id, purposes, _OF_A_RECEIPT)
    return [Refusal.of(row) for row in rows]


async def delete(ctx: Context, user: CurrentUser, twin_id: UUID, refusal_id: UUID) -> None:
    """Open a refusal, which grants and revives nothing; raises `NotFound`."""
    async with ctx.postgres.transaction() as connection:
        row = await queries.open_lock(
            connection, user.sub, user.client, twin_id, refusal_id, is_operator=is_operator(user)
        )
        if row["problem"]:
            raise no_refusal()
    if row["is_changed"]:
        ledger.count("opened")
        await journal.attempt(ctx, twin_id)
