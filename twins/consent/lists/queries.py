"""SQL of lists of consents. A page is found in two steps: the places to look at, and what passes the filters there."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from shared.stores.postgres import Connection, Record
from twins.consent.lists.filters import Filters
from twins.consent.queries import CONSENT

_LAST = "'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid"


class Place(NamedTuple):
    """Where a consent is; None: the twin has none."""

    twin_id: UUID
    consent_id: UUID | None


async def select_consents(
    connection: Connection, owner: str, twin_id: UUID, before: UUID | None, limit: int
) -> list[Record]:
    """Return up to `limit` consents of a twin older than `before`, newest first."""
    sql = f"""
        SELECT {CONSENT} FROM consent_records c JOIN live_twins t ON t.id = c.twin_id
        WHERE c.twin_id = $2 AND t.owner = $1 AND c.id < coalesce($3, {_LAST})
        ORDER BY c.id DESC LIMIT $4
    """  # noqa: S608 - constants of this file
    return await connection.fetch(sql, owner, twin_id, before, limit)


async def scan_given(connection: Connection, principal: str, before: UUID, most: int) -> list[Place]:
    """Return the places of up to `most` consents older than `before` that a person gave, newest first."""
    sql = "SELECT twin_id, id FROM consents WHERE principal = $1 AND id < $2 ORDER BY id DESC LIMIT $3"
    return [Place(*row) for row in await connection.fetch(sql, principal, before, most)]


async def scan_of_person(
    connection: Connection, owner: str, principal: str, before: tuple[UUID, UUID], most: int
) -> list[Place] | None:
    """Return the places of all consents behind `before` that a person gave for twins of this owner.

    Returns None where the person gave more than `most` to anybody.
    """
    sql = """
        SELECT f.twin_id, f.id, t.id IS NOT NULL AS is_of_owner
        FROM (SELECT c.twin_id, c.id FROM consents c WHERE c.principal = $2 LIMIT $3) f
        LEFT JOIN LATERAL (SELECT t.id FROM live_twins t WHERE t.id = f.twin_id AND t.owner = $1 LIMIT 1) t ON true
    """
    rows = await connection.fetch(sql, owner, principal, most + 1)
    if len(rows) > most:
        return None
    places = (Place(row["twin_id"], row["id"]) for row in rows if row["is_of_owner"])
    return sorted((place for place in places if place < before), reverse=True)


async def scan_owned(
    connection: Connection, owner: str, before: tuple[UUID, UUID], most: int, wanted: int
) -> list[Place]:
    """Return the places behind `before` of up to `wanted` consents of this owner's twins.

    They are by twin, newest first, and of each newest first. Twins without a consent have a place too, and `most` is
    the number of all.
    """
    sql = "SELECT twin_id, consent_id FROM consents_of_owner($1, $2, $3, $4, $5)"
    return [Place(*row) for row in await connection.fetch(sql, owner, *before, most, wanted)]


async def select_places(
    connection: Connection, places: Sequence[Place], limit: int, filters: Filters, *, given: bool
) -> list[Record]:
    """Return up to `limit` of the consents at these places that pass the filters, in their order.

    `given` is for the person who gave them, who has none from before an erasure of their account.
    """
    sql = f"""
        SELECT {CONSENT} FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS s (twin_id, id, place)
        CROSS JOIN LATERAL (
            SELECT c.* FROM consent_records c JOIN live_twins t ON t.id = c.twin_id
            WHERE c.twin_id = s.twin_id AND c.id = s.id AND NOT ($4 AND c.is_forgotten)
              AND ($5::text IS NULL OR $5 = CASE WHEN c.standing IN ('granted', 'not_yet_valid') THEN 'given'
                                            ELSE c.standing END)
              AND ($6::text IS NULL OR $6 = ANY (c.purposes))
              AND ($7::text IS NULL OR c.principal = $7)
              AND ($8::timestamptz IS NULL OR c.expires_at < $8)
              AND ($9::smallint IS NULL OR c.assurance = $9)
            LIMIT 1
        ) c
        ORDER BY s.place LIMIT $3
    """  # noqa: S608 - a constant of this file
    found = [place for place in places if place.consent_id is not None]
    twin_ids, ids = [place.twin_id for place in found], [place.consent_id for place in found]
    return await connection.fetch(sql, twin_ids, ids, limit, given, *filters)


async def select_people(
    connection: Connection, twin_ids: Sequence[UUID], after: tuple[UUID, UUID], but: str | None, limit: int
) -> list[Record]:
    """Return up to `limit` consents of these twins behind `after`, with their people, `but` one, without pseudonyms."""
    sql = """
        SELECT c.twin_id, c.id, c.principal FROM consents c
        WHERE c.twin_id = ANY ($1) AND (c.twin_id, c.id) > ($2, $3) AND c.principal COLLATE "C" >= ' '
          AND c.principal IS DISTINCT FROM $5
        ORDER BY c.twin_id, c.id LIMIT $4
    """
    return await connection.fetch(sql, twin_ids, *after, limit, but)
