"""SQL on consents, their states, their ledger, and the gate.

The view `decisions` holds the rule of the gate: what each state row means at the start of the
statement that asks.
"""

from datetime import datetime
from uuid import UUID

from shared.postgres import Connection, Record

_STATE = """
    CASE
        WHEN c.withdrawn_at IS NOT NULL THEN 'withdrawn'
        WHEN c.replaced_by IS NOT NULL THEN 'replaced'
        WHEN c.expires_at <= statement_timestamp() THEN 'expired'
        ELSE 'given'
    END AS state
"""
_CONSENT = f"""
    c.id, c.twin_id, c.lineage, c.renews, c.replaced_by, c.principal, c.method, c.purposes, c.notice_version,
    c.notice_language, c.notice_text, c.notice_sha256, c.given_at, c.not_before, c.expires_at, c.withdrawn_at,
    CASE WHEN c.withdrawn_at IS NOT NULL THEN CASE WHEN c.revoked THEN 'owner' ELSE 'principal' END END AS withdrawn_by,
    {_STATE}
"""


async def select_decision(
    connection: Connection, twin_id: UUID, purpose: str, owner: str, any_owner: bool
) -> Record | None:
    """Return the gate's answer for a twin that the caller may ask about.

    The limit changes no answer. Without it the planner, which multiplies how common the twin and how
    common the purpose are, expects thousands of rows of a twin with many consents, and reads them all.
    """
    return await connection.fetchrow(
        """
        SELECT d.consent_id, d.expires_at, coalesce(d.reason, 'no_consent') AS reason,
               statement_timestamp() AS evaluated_at
        FROM twins t LEFT JOIN LATERAL (
            SELECT consent_id, expires_at, reason FROM decisions WHERE twin_id = t.id AND purpose = $2 LIMIT 1
        ) d ON true
        WHERE t.id = $1 AND (t.owner = $3 OR $4 AND t.erased_at IS NULL)
        """,
        twin_id,
        purpose,
        owner,
        any_owner,
    )


async def select_decisions(
    connection: Connection, twin_ids: list[UUID], purposes: list[str], owner: str, any_owner: bool
) -> list[Record]:
    """Return the gate's answers for pairs of twin and purpose, in their order."""
    rows: list[Record] = await connection.fetch(
        """
        SELECT asked.purpose, d.consent_id, d.expires_at, statement_timestamp() AS evaluated_at,
               CASE WHEN t.id IS NULL THEN 'not_found' ELSE coalesce(d.reason, 'no_consent') END AS reason
        FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS asked (twin_id, purpose, place)
        LEFT JOIN twins t ON t.id = asked.twin_id AND (t.owner = $3 OR $4 AND t.erased_at IS NULL)
        LEFT JOIN LATERAL (
            SELECT consent_id, expires_at, reason FROM decisions
            WHERE twin_id = t.id AND purpose = asked.purpose LIMIT 1
        ) d ON true
        ORDER BY asked.place
        """,
        twin_ids,
        purposes,
        owner,
        any_owner,
    )
    return rows


async def lock_twin(connection: Connection, twin_id: UUID, owner: str | None) -> Record | None:
    """Return a twin's ledger head, and let nobody else change the twin until the transaction ends.

    What else is read must be read by a later statement: this one may have waited, and sees other
    tables as they were before. `owner` is None where the caller has been judged otherwise.
    """
    return await connection.fetchrow(
        """
        SELECT id, salt, ledger_seq, ledger_hash
        FROM twins WHERE id = $1 AND (owner = $2 OR $2 IS NULL AND erased_at IS NULL) FOR NO KEY UPDATE
        """,
        twin_id,
        owner,
    )


async def lock_twins(connection: Connection, twin_ids: list[UUID], owner: str) -> list[Record]:
    """Return what `lock_twin` returns of each of these twins, and lock them."""
    rows: list[Record] = await connection.fetch(
        """
        SELECT id, salt, ledger_seq, ledger_hash
        FROM twins WHERE id = ANY($1) AND owner = $2 ORDER BY id FOR NO KEY UPDATE
        """,
        twin_ids,
        owner,
    )
    return rows


async def now(connection: Connection) -> datetime:
    """Return the database's clock."""
    moment: datetime = await connection.fetchval("SELECT statement_timestamp()")
    return moment


async def insert_consent(
    connection: Connection,
    twin_id: UUID,
    principal: str,
    method: str,
    purposes: list[str],
    notice_version: str,
    notice_language: str,
    notice_text: str,
    notice_sha256: bytes,
    not_before: datetime | None,
    expires_at: datetime | None,
    renews: UUID | None = None,
) -> Record:
    """Insert a consent, point its purposes to it, and return it.

    A renewal replaces the consent it renews, and keeps its lineage.
    """
    row = await connection.fetchrow(
        f"""
        WITH new AS (SELECT uuidv7() AS id),
        c AS (
            INSERT INTO consents (id, twin_id, lineage, renews, principal, method, purposes, notice_version,
                                  notice_language, notice_text, notice_sha256, given_at, not_before, expires_at)
            SELECT new.id, $1, coalesce((SELECT lineage FROM consents WHERE id = $11), new.id), $11,
                   $2, $3, $4, $5, $6, $7, $8, statement_timestamp(), $9, $10
            FROM new
            RETURNING *
        ),
        replaced AS (UPDATE consents SET replaced_by = (SELECT id FROM new) WHERE id = $11),
        pointed AS (
            INSERT INTO consent_states (twin_id, purpose, consent_id)
            SELECT c.twin_id, unnest(c.purposes), c.id FROM c
            ON CONFLICT (twin_id, purpose) DO UPDATE SET consent_id = EXCLUDED.consent_id
        )
        SELECT {_CONSENT} FROM c
        """,  # noqa: S608 - a constant of this file
        twin_id,
        principal,
        method,
        purposes,
        notice_version,
        notice_language,
        notice_text,
        notice_sha256,
        not_before,
        expires_at,
        renews,
    )
    assert row is not None  # noqa: S101 - one row was inserted
    return row


_APPEND = """
    WITH appended AS (INSERT INTO consent_events (twin_id, seq, event, hash) VALUES ($1, $2, $3, $4))
    UPDATE twins
    SET ledger_seq = $2, ledger_hash = $4, version = version + 1, updated_at = greatest(now(), updated_at)
    WHERE id = $1
"""


async def insert_event(connection: Connection, twin_id: UUID, seq: int, event: str, event_hash: bytes) -> None:
    """Append an event to the ledger of a locked twin, make it the head, and change the twin's version."""
    await connection.execute(_APPEND, twin_id, seq, event, event_hash)


async def insert_events(connection: Connection, events: list[tuple[UUID, int, str, bytes]]) -> None:
    """Do what `insert_event` does for many twins, in one round trip."""
    await connection.executemany(_APPEND, events)


async def select_blocking(connection: Connection, twin_id: UUID, purposes: list[str]) -> Record | None:
    """Return a grant that is live, or will be, for one of the purposes."""
    return await connection.fetchrow(
        """
        SELECT consent_id, purpose FROM decisions
        WHERE twin_id = $1 AND purpose = ANY($2) AND reason IN ('granted', 'not_yet_valid') LIMIT 1
        """,
        twin_id,
        purposes,
    )


async def select_consent(
    connection: Connection, twin_id: UUID, consent_id: UUID, sub: str, *, owner_only: bool = False
) -> Record | None:
    """Return a consent that `sub` may see: as the twin's owner, or as the principal."""
    return await connection.fetchrow(
        f"""
        SELECT {_CONSENT}, t.owner, statement_timestamp() AS at,
               (SELECT count(*) FROM consent_states s WHERE s.consent_id = c.id) = cardinality(c.purposes) AS holds
        FROM consents c JOIN twins t ON t.id = c.twin_id
        WHERE c.id = $2 AND c.twin_id = $1 AND (t.owner = $3 OR c.principal = $3 AND NOT $4)
        """,  # noqa: S608 - a constant of this file
        twin_id,
        consent_id,
        sub,
        owner_only,
    )


async def select_consents(
    connection: Connection, twin_id: UUID, owner: str, before: UUID | None, limit: int
) -> list[Record]:
    """Return up to `limit` consents of a twin older than `before`, newest first."""
    rows: list[Record] = await connection.fetch(
        f"""
        SELECT {_CONSENT} FROM consents c JOIN twins t ON t.id = c.twin_id
        WHERE c.twin_id = $1 AND t.owner = $2
          AND c.id < coalesce($3, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
        ORDER BY c.id DESC LIMIT $4
        """,  # noqa: S608 - a constant of this file
        twin_id,
        owner,
        before,
        limit,
    )
    return rows


async def select_given_by(connection: Connection, principal: str, before: UUID | None, limit: int) -> list[Record]:
    """Return up to `limit` consents that a person gave, to whomever's twins, older than `before`, newest first."""
    rows: list[Record] = await connection.fetch(
        f"""
        SELECT {_CONSENT} FROM consents c
        WHERE c.principal = $1 AND c.id < coalesce($2, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
        ORDER BY c.id DESC LIMIT $3
        """,  # noqa: S608 - a constant of this file
        principal,
        before,
        limit,
    )
    return rows


async def withdraw_lineage(connection: Connection, lineage: UUID, actor: str) -> Record | None:
    """Withdraw a consent with everything it was renewed by, and return the one that was in force.

    Returns nothing where all of it was withdrawn before.
    """
    return await connection.fetchrow(
        f"""
        WITH c AS (
            UPDATE consents SET withdrawn_at = statement_timestamp(), revoked = principal <> $2
            WHERE lineage = $1 AND withdrawn_at IS NULL RETURNING *
        )
        SELECT {_CONSENT} FROM c ORDER BY c.replaced_by IS NULL DESC LIMIT 1
        """,  # noqa: S608 - a constant of this file
        lineage,
        actor,
    )


async def select_general(connection: Connection, twin_id: UUID) -> Record | None:
    """Return the state of a twin's general consent, with the lineage it belongs to."""
    return await connection.fetchrow(
        """
        SELECT d.reason, d.consent_id, c.lineage
        FROM decisions d JOIN consents c ON c.id = d.consent_id
        WHERE d.twin_id = $1 AND d.purpose = 'general'
        """,
        twin_id,
    )


async def select_head(connection: Connection, twin_id: UUID, owner: str) -> Record | None:
    """Return the head of a twin's ledger, and the `seq` of the last entry that there is (0: none)."""
    return await connection.fetchrow(
        """
        SELECT ledger_seq, ledger_hash,
               coalesce((SELECT max(seq) FROM consent_events e WHERE e.twin_id = t.id), 0) AS last_seq
        FROM twins t WHERE id = $1 AND owner = $2
        """,
        twin_id,
        owner,
    )


async def select_events(connection: Connection, twin_id: UUID, after: int, limit: int) -> list[Record]:
    """Return up to `limit` events of a twin behind `after`, oldest first."""
    rows: list[Record] = await connection.fetch(
        """
        SELECT seq, event, hash FROM consent_events
        WHERE twin_id = $1 AND seq > $2 ORDER BY seq LIMIT $3
        """,
        twin_id,
        after,
        limit,
    )
    return rows


async def select_given_to_others(connection: Connection, principal: str, limit: int) -> list[Record]:
    """Return consents that a person gave to twins of other owners."""
    rows: list[Record] = await connection.fetch(
        """
        SELECT c.id, c.twin_id, c.lineage FROM consents c JOIN twins t ON t.id = c.twin_id
        WHERE c.principal = $1 AND t.owner <> $1 LIMIT $2
        """,
        principal,
        limit,
    )
    return rows


async def update_principal(connection: Connection, lineage: UUID, principal: str, pseudonym: str) -> None:
    """Replace a person's name in the consents of a lineage, and forget the answers that told it."""
    await connection.execute(
        """
        WITH renamed AS (
            UPDATE consents SET principal = $3 WHERE lineage = $1 AND principal = $2 RETURNING id, twin_id
        )
        UPDATE idempotency_keys k SET body = NULL, headers = '{}'
        FROM renamed r
        WHERE k.twin_id = r.twin_id
          AND k.headers->>'Location' = format('/api/v1/twins/%s/consents/%s', r.twin_id, r.id)
        """,
        lineage,
        principal,
        pseudonym,
    )
