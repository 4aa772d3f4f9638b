"""Lists of consents: of a twin, of an owner, of a person."""

from collections.abc import Sequence
from uuid import UUID

from shared.auth import CurrentUser
from shared.http.paging import Pages
from shared.stores.postgres import Connection, Record
from twins.consent.lists import queries
from twins.consent.lists.filters import Filters
from twins.consent.models import Consent, ConsentPage
from twins.context import Context
from twins.ledger import service as ledger
from twins.parent import no_twin

_SCANNED = 2000
"""The most consents, and twins without one, that one page looks at."""
_FIRST, _LAST = UUID(int=0), UUID(int=2**128 - 1)


async def find(ctx: Context, user: CurrentUser, twin_id: UUID, pages: Pages) -> ConsentPage:
    """Return a page of a twin's consents, newest first; raises `NotFound`."""
    pages = pages.within("consents", twin_id)
    before = pages.start(UUID)
    async with ctx.postgres.connection() as connection:
        rows = await queries.select_consents(connection, user.owner, twin_id, before, pages.fetch)
        if not rows and not await ledger.exists(connection, user.owner, twin_id):
            raise no_twin()
    return _page(pages, rows)


async def find_given(ctx: Context, user: CurrentUser, filters: Filters, pages: Pages) -> ConsentPage:
    """Return a page of the consents that the caller gave, newest first."""
    pages = pages.within("consents given", filters)
    before = pages.start(UUID) or _LAST
    async with ctx.postgres.connection() as connection:
        places = await queries.scan_given(connection, user.sub, before, _SCANNED)
        rows = await queries.select_places(connection, places, pages.fetch, filters, given=True)
    until = str(places[-1].consent_id) if len(places) == _SCANNED else None
    return _page(pages, rows, until)


async def find_owned(ctx: Context, user: CurrentUser, filters: Filters, pages: Pages) -> ConsentPage:
    """Return a page of the consents on all twins of the owner: by twin, newest first, and of each newest first.

    Those of a person with few consents are found by the person. Otherwise twins are looked at one after another.
    """
    pages = pages.within("consents owned", filters)
    before = pages.start(_parsed) or (_LAST, _LAST)
    until = None
    async with ctx.postgres.connection() as connection:
        places = None
        if filters.principal is not None:
            places = await queries.scan_of_person(connection, user.owner, filters.principal, before, _SCANNED)
        if places is None:
            wanted = _SCANNED if any(filters) else pages.fetch
            places = await queries.scan_owned(connection, user.owner, before, _SCANNED, wanted)
            if len(places) == _SCANNED:
                last = places[-1]
                until = f"{last.twin_id}/{last.consent_id or _FIRST}"
        rows = await queries.select_places(connection, places, pages.fetch, filters, given=False)
    return pages.page(
        ConsentPage, [Consent.of(row) for row in rows], lambda consent: f"{consent.twin_id}/{consent.id}", until
    )


async def people_of(
    connection: Connection, twin_ids: Sequence[UUID], after: tuple[UUID, UUID], but: str | None, limit: int
) -> list[Record]:
    """Return up to `limit` consents of erased twins behind `after`, with the people who gave them.

    Without those of one account, and those whose person has become a pseudonym.
    """
    return await queries.select_people(connection, twin_ids, after, but, limit)


def _parsed(place: str) -> tuple[UUID, UUID]:
    twin_id, _, consent_id = place.partition("/")
    return UUID(twin_id), UUID(consent_id)


def _page(pages: Pages, rows: list[Record], until: str | None = None) -> ConsentPage:
    return pages.page(ConsentPage, [Consent.of(row) for row in rows], lambda consent: str(consent.id), until)
