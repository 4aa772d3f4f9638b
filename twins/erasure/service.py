"""Erasure: twins and accounts disappear at once; a job removes them from both stores, and certifies it."""

from uuid import UUID

from shared.auth import CurrentUser
from shared.http.paging import Pages
from shared.http.problems import NotFound
from shared.stores import outbox
from shared.stores.postgres import Connection, Record
from twins.context import Context
from twins.erasure import queries
from twins.erasure.models import (
    KIND,
    ErasedConsent,
    ErasedConsentPage,
    ErasedLedger,
    ErasedLedgerPage,
    Erasure,
    ErasureEntry,
    ErasurePage,
)
from twins.erasure.people import queries as records
from twins.erasure.tree import Tree
from twins.ledger import service as ledger

_PIECES = 8
"""The most pieces of trees that one page of a person's consents reads."""


async def begin(ctx: Context, connection: Connection, user: CurrentUser, twin_id: UUID) -> UUID:
    """Make a twin of this owner disappear, and return the id of the erasure that removes what belongs to it."""
    erasure_id = await queries.insert_erasure(connection, ctx.erasure_digest(user.owner))
    await queries.erase_twins(connection, erasure_id, user.owner, user.sub, [twin_id])
    ledger.count("erased")
    await outbox.enqueue(connection, KIND, erasure_id)
    return erasure_id


async def begin_account(ctx: Context, connection: Connection, account: str, actor: str) -> tuple[UUID | None, bool]:
    """Make an account erased, with all that was there before now.

    Returns the id of the erasure that does it, or None where there never was anything, and whether it is complete.
    """
    digest = ctx.account_digest(account)
    row = await queries.erase_account(connection, account, actor, digest, ctx.erasure_digest(account))
    if row["is_new"]:
        ledger.count("erased")
        await outbox.enqueue(connection, KIND, row["erasure_id"])
    return row["erasure_id"], bool(row["is_complete"])


async def find_of(ctx: Context, connection: Connection, user: CurrentUser, twin_id: UUID) -> UUID | None:
    """Return the id of the erasure by which this owner erased a twin."""
    return await queries.select_erasure_of(connection, twin_id, ctx.erasure_digest(user.owner))


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
        tree = Tree(await queries.select_erased_ledgers(connection, erasure_id))
        found: list[ErasedLedger] = []
        start = 0
        for number, piece in enumerate(tree.pieces if erasure["completed_at"] else ()):
            wanted = range(max(first - start, 0), min(first + pages.fetch - start, piece["leaves"]))
            if wanted:
                found += tree.entries(number, await _heads(connection, erasure_id, piece), wanted)
            start += piece["leaves"]
    return pages.page(ErasedLedgerPage, found, lambda entry: entry.index + 1)


async def find_consents(ctx: Context, user: CurrentUser, pages: Pages) -> ErasedConsentPage:
    """Return a page of the consents that the caller gave for twins which their owners have erased, newest first.

    A page reads the leaves of a bounded number of pieces, and ends before the next one.
    """
    pages = pages.within("erased consents")
    before = pages.start(UUID)
    found: list[ErasedConsent] = []
    until = None
    async with ctx.postgres.connection() as connection:
        rows = await records.select_kept_consents(connection, ctx.account_digest(user.sub), before, pages.fetch)
        trees: dict[UUID, Tree] = {}
        pieces: dict[tuple[UUID, int], dict[UUID, ErasedLedger]] = {}
        for row in rows:
            entry = None
            if row["completed_at"] is not None:
                erasure_id, twin_id = row["erasure_id"], row["twin_id"]
                if erasure_id not in trees:
                    trees[erasure_id] = Tree(await queries.select_erased_ledgers(connection, erasure_id))
                tree = trees[erasure_id]
                place = erasure_id, tree.number_of(twin_id)
                if place not in pieces:
                    if len(pieces) == _PIECES:
                        until = str(found[-1].consent_id)
                        break
                    heads = await _heads(connection, erasure_id, tree.pieces[place[1]])
                    entries = tree.entries(place[1], heads, range(len(heads)))
                    pieces[place] = {entry.twin_id: entry for entry in entries}
                entry = pieces[place][twin_id]
            found.append(ErasedConsent.of({**row, "ledger": entry}))
    return pages.page(ErasedConsentPage, found, lambda consent: str(consent.consent_id), until)


async def _heads(connection: Connection, erasure_id: UUID, piece: Record) -> list[Record]:
    """Return the ends of the ledgers of a piece."""
    twin_ids = await queries.select_erased_twins(connection, erasure_id, piece["after"], piece["leaves"])
    return await ledger.heads(connection, twin_ids)


async def _select(ctx: Context, connection: Connection, user: CurrentUser, erasure_id: UUID) -> Record:
    row = await queries.select_erasure(connection, erasure_id, _digests(ctx, user))
    if row is None:
        raise NotFound("There is no such erasure.")
    return row


def _digests(ctx: Context, user: CurrentUser) -> list[bytes]:
    return [ctx.erasure_digest(owner) for owner in {user.sub, user.owns} if owner is not None]
