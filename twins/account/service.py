"""Accounts: counted and erased."""

from uuid import UUID

from shared.auth import CurrentUser
from shared.stores.postgres import Priority
from twins.account import queries
from twins.account.models import Account
from twins.context import Context
from twins.erasure import service as erasure
from twins.journal import service as journal

_COUNTED = 10_000
"""As far as anything is counted: beyond, the counts say that there is more."""
_BOUND = ("twins", "consents", "idempotency_answers", "scanned")


async def get(ctx: Context, user: CurrentUser) -> Account:
    """Return who the caller is, and the amount of stored data of the owner for which it acts."""
    async with ctx.postgres.connection() as connection:
        counts = dict(await queries.select_account(connection, user.owns, user.sub, _COUNTED))
    is_exact = max(counts[name] for name in _BOUND) < _COUNTED
    return Account(
        sub=user.subject,
        issuer=user.issuer,
        subject=user.subject,
        owner=user.owns,
        actor=user.sub,
        client=user.client,
        scopes=sorted(user.scopes),
        counts="exact" if is_exact else "at_least",
        **counts,
    )


async def erase(ctx: Context, user: CurrentUser) -> tuple[UUID | None, bool]:
    """Erase all data of the caller's own account, and never what an organisation owns.

    Returns the id of the erasure, or None where there never was anything, and whether it is complete.
    """
    return await _erase(ctx, user.sub, user.sub)


async def erase_organization(ctx: Context, user: CurrentUser) -> tuple[UUID | None, bool]:
    """Erase all that the caller's organisation owns, and return the same; raises `NoOwner`."""
    return await _erase(ctx, user.organization, user.sub)


async def _erase(ctx: Context, account: str, actor: str) -> tuple[UUID | None, bool]:
    async with ctx.postgres.transaction(Priority.HIGH) as connection:
        erased = await erasure.begin_account(ctx, connection, account, actor)
    await journal.attempt_account(ctx, account)
    return erased
