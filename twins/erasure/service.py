"""Erasure: twins and accounts disappear at once; a job removes them from both stores, and certifies it."""

from uuid import UUID

from shared.auth import CurrentUser
from shared.http.paging import Pages
from shared.http.problems import NotFound
from shared.stores import outbox
from shared.stores.postgres import Connection, Record
from twins.context import Context
from twins.erasure import certificate, merkle, queries
from twins.erasure.models import KIND, ErasedLedger, ErasedLedgerPage, Erasure, ErasureEntry, ErasurePage
from twins.ledger import service as ledger


async def begin(ctx: Context, connection: Connection, user: CurrentUser, twin_id: UUID) -> UUID:
    """Make a twin of this owner disappear, and return the id of the erasure that removes what belongs to it."""
    erasure_id = await queries.insert_erasure(connection, _digest(ctx, user.owner))
    await queries.erase_twins(connection, erasure_id, user.owner, user.sub, [twin_id])
    ledger.count("erased")
    await outbox.enqueue(connection, KIND, erasure_id)
    return erasure_id


async def begin_account(ctx: Context, connection: Connection, account: str, actor: str) -> tuple[UUID | None, bool]:
    """Make an account erased, with all that was there before now.

    Returns the id of the erasure that does it, or None where there never was anything, and whether it is complete.
    """
    digest = ctx.account_digest(account)
    row = await queries.erase_account(connection, account, actor, digest, _digest(ctx, account))
    if row["is_new"]:
        ledger.count("erased")
        await outbox.enqueue(connection, KIND, row["erasure_id"])
    return row["erasure_id"], bool(row["is_complete"])


async def find_of(ctx: Context, connection: Connection, user: CurrentUser, twin_id: UUID) -> UUID | None:
    """Return the id of the erasure by which this owner erased a twin."""
    return await queries.select_erasure_of(connection, twin_id, _digest(ctx, user.owner))


async def get(ctx: Context, user: CurrentUser, erasure_id: UUID) -> Erasure:
    """Return the progress of an erasure of this account or its organisation; raises `NotFound`."""
    async with ctx.postgres.connection() as connection:
        return Erasure.of(await _select(ctx, connection, user, erasure_id))


async def find(ctx: Context, user: CurrentUser, pages: Pages) -> ErasurePage:
    """Return a page of the erasures of this account and its organisation, newest first."""
    pages = pages.within("erasures")
    before = pages.start(UUID)
    async with ctx.postgres.connection() as connection:
        rows = await queries.select_erasures(connection, _digests(ctx, user), before, pages.fetch)
    return pages.page(ErasurePage, [ErasureEntry.of(row) for row in rows], lambda erasure: str(erasure.id))


async def find_ledgers(ctx: Context, user: CurrentUser, erasure_id: UUID, pages: Pages) -> ErasedLedgerPage:
    """Return a page of the ledgers of an erasure's twins, with their proofs; raises `NotFound`.

    There are none before the erasure is complete, when the tree is. A page costs the leaves of one or two pieces,
    and the roots of all.
    """
    pages = pages.within("erased ledgers", erasure_id)
    first = pages.start(int) or 0
    async with ctx.postgres.connection() as connection:
        erasure = await _select(ctx, connection, user, erasure_id)
        pieces = await queries.select_erased_ledgers(connection, erasure_id)
        roots = merkle.levels([piece["root"] for piece in pieces])
        found: list[ErasedLedger] = []
        start = 0
        for piece in pieces if erasure["completed_at"] else ():
            wanted = range(max(first - start, 0), min(first + pages.fetch - start, piece["leaves"]))
            if wanted:
                twin_ids = await queries.select_erased_twins(connection, erasure_id, piece["after"], piece["leaves"])
                heads = await ledger.heads(connection, twin_ids)
                leaves = merkle.levels([certificate.leaf(head) for head in heads])
                upper = merkle.path(roots, piece["piece"])
                for place in wanted:
                    proof = [step.hex() for step in (*merkle.path(leaves, place), *upper)]
                    found.append(ErasedLedger(index=start + place, proof=proof, **certificate.entry(heads[place])))
            start += piece["leaves"]
    return pages.page(ErasedLedgerPage, found, lambda entry: entry.index + 1)


async def _select(ctx: Context, connection: Connection, user: CurrentUser, erasure_id: UUID) -> Record:
    row = await queries.select_erasure(connection, erasure_id, _digests(ctx, user))
    if row is None:
        raise NotFound("There is no such erasure.")
    return row


def _digests(ctx: Context, user: CurrentUser) -> list[bytes]:
    return [_digest(ctx, owner) for owner in {user.sub, user.owns} if owner is not None]


def _digest(ctx: Context, owner: str) -> bytes:
    """Return the keyed digest that identifies an erasure's owner after the name is removed."""
    return ctx.digests.digest("erasure", owner.encode())
