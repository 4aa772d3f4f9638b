"""SQL of the gate. After a restore, which may have lost a no, the answer is no."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from shared.stores.postgres import Connection, Record
from twins import gate
from twins.assurance import RECORDED


class Asked(NamedTuple):
    """A question about a twin, in the form of the database."""

    purpose: str
    recipient: str
    """The key of whom the answer is for."""
    lowest: int = RECORDED
    """The rank of the lowest assurance that is a yes."""
    is_named: bool = False
    """Whether the question itself names the recipient: then a consent has to name it too, were it the owner."""
    modality: str | None = None
    territory: str | None = None
    principal: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it names a purpose alone, as most do: then the statement asks about nothing else."""
        return not (self.is_named or self.modality or self.territory or self.principal)


# A person that the twin names may ask too, and a service with the scope about any twin.
_PLAIN = gate.reason("CASE WHEN t.owner IS DISTINCT FROM $1 THEN $4 END", lowest="$5")
_WHOLE = gate.reason(
    "CASE WHEN $6 OR t.owner IS DISTINCT FROM $1 THEN $4 END",
    lowest="$5",
    modality="$7",
    territory="$8",
    principal="$9",
)
_ONE = """
    SELECT d.consent_id, d.expires_at, d.assurance, statement_timestamp() AS evaluated_at,
"""
_OF = f"""
    AS reason FROM live_twins t {gate.state("$2", "(SELECT $3::text)")} WHERE t.id = $2
"""
_NAMED = "EXISTS (SELECT FROM named_people n WHERE n.twin_id = t.id AND n.account = "

_QUESTION = {
    (True, True): f"{_ONE} {_PLAIN} {_OF}",
    (True, False): f"{_ONE} {_PLAIN} {_OF} AND (t.owner = $1 OR {_NAMED} $6))",
    (False, True): f"{_ONE} {_WHOLE} {_OF}",
    (False, False): f"{_ONE} {_WHOLE} {_OF} AND (t.owner = $1 OR {_NAMED} $10))",
}
"""The statement by whether the question is plain, and whether it may be about any twin."""


async def select_decision(
    connection: Connection, owner: str | None, sub: str, twin_id: UUID, asked: Asked, *, any_owner: bool
) -> Record | None:
    """Return the gate's answer for a twin of this owner, or that names `sub`, or with `any_owner` for any twin."""
    is_plain = asked.is_plain
    values: Sequence[Any] = asked[:3] if is_plain else asked
    if not any_owner:
        values = (*values, sub)
    return await connection.fetchrow(_QUESTION[is_plain, any_owner], owner, twin_id, *values)


# One row at least, which has the time.
_MANY = """
    SELECT f.*, statement_timestamp() AS evaluated_at FROM (VALUES (true)) one LEFT JOIN (
        SELECT a.place, d.consent_id, d.expires_at, d.assurance,
"""
_OF_MANY = f"""
    JOIN live_twins t ON t.id = a.twin_id {gate.state("t.id", "a.purpose")}
"""
_QUESTIONS = f"""
    {_MANY} {_PLAIN} AS reason
    FROM unnest($2::uuid[], $3::text[]) WITH ORDINALITY AS a (twin_id, purpose, place) {_OF_MANY}
    WHERE t.owner = $1 OR $6 OR {_NAMED} $7)) f ON true
"""
_EACH = gate.reason(
    "CASE WHEN a.is_named OR t.owner IS DISTINCT FROM $1 THEN a.recipient END",
    lowest="a.lowest",
    modality="a.modality",
    territory="a.territory",
    principal="a.principal",
)
_WHOLE_QUESTIONS = f"""
    {_MANY} {_EACH} AS reason
    FROM unnest($2::uuid[], $3::text[], $4::text[], $5::smallint[], $6::boolean[], $7::text[], $8::text[], $9::text[])
        WITH ORDINALITY AS a (twin_id, purpose, recipient, lowest, is_named, modality, territory, principal, place)
    {_OF_MANY}
    WHERE t.owner = $1 OR $10 OR {_NAMED} $11)) f ON true
"""


# An id that was attached after the yes, or after the person's own yes that it rests on, makes it no more than recorded.
_CAPPED = f"CASE WHEN x.attached_seq >= d.said_seq THEN {RECORDED}::smallint ELSE d.assurance END"
_EACH_CALLED = gate.reason(
    "CASE WHEN a.is_named OR t.owner IS DISTINCT FROM $1 THEN a.recipient END",
    lowest="a.lowest",
    modality="a.modality",
    territory="a.territory",
    principal="a.principal",
    assurance=_CAPPED,
)
# Row by row: the planner does not know how many twins the owner has.
_CALLED_QUESTIONS = f"""
    SELECT f.*, statement_timestamp() AS evaluated_at FROM (VALUES (true)) one LEFT JOIN (
        SELECT a.place, t.id AS twin_id, d.consent_id, d.expires_at, {_CAPPED} AS assurance, {_EACH_CALLED} AS reason
        FROM unnest($2::uuid[], $3::text[], $4::text[], $5::smallint[], $6::boolean[], $7::text[], $8::text[],
                    $9::text[], $12::bytea[]) WITH ORDINALITY
            AS a (twin_id, purpose, recipient, lowest, is_named, modality, territory, principal, digest, place)
        LEFT JOIN LATERAL (
            SELECT x.twin_id, x.attached_seq FROM attached_ids x WHERE x.digest = a.digest LIMIT 1
        ) x ON true
        CROSS JOIN LATERAL (SELECT * FROM live_twins WHERE id = coalesce(a.twin_id, x.twin_id) LIMIT 1) t
        {gate.state("t.id", "a.purpose")}
        WHERE t.owner = $1 OR $10 OR {_NAMED} $11)
    ) f ON true
"""  # noqa: S608 - parts of a statement


async def select_decisions(
    connection: Connection,
    owner: str | None,
    sub: str,
    any_owner: bool,
    twin_ids: list[UUID | None],
    purposes: list[str],
    recipient: str,
    lowest: int,
) -> tuple[dict[int, Record], datetime]:
    """Return the gate's answers about pairs of twin and purpose by their place, and the time.

    Where there is no such twin, there is no answer.
    """
    rows = await connection.fetch(_QUESTIONS, owner, twin_ids, purposes, recipient, lowest, any_owner, sub)
    return _placed(rows)


async def select_answers(
    connection: Connection,
    owner: str | None,
    sub: str,
    any_owner: bool,
    twin_ids: list[UUID | None],
    digests: list[bytes | None],
    asked: list[Asked],
) -> tuple[dict[int, Record], datetime]:
    """Return the same of questions that name more than a purpose, or a twin by an external id.

    Where `twin_ids` has none, the twin is the one that has the external id behind the digest.
    """
    values: list[Any] = [list(column) for column in zip(*asked, strict=True)]
    values += [any_owner, sub]
    if any(digests):
        return _placed(await connection.fetch(_CALLED_QUESTIONS, owner, twin_ids, *values, digests))
    return _placed(await connection.fetch(_WHOLE_QUESTIONS, owner, twin_ids, *values))


def _placed(rows: list[Record]) -> tuple[dict[int, Record], datetime]:
    return {row["place"] - 1: row for row in rows if row["place"] is not None}, rows[0]["evaluated_at"]
