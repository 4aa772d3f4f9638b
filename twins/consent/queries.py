"""SQL on consents and on the states that point to them.

The database's functions write them, each with the event of the ledger, and take the twin's lock. The view
`consent_records` has each consent's `standing`, which holds at the start of the statement that reads the view.
"""

from collections.abc import Sequence
from uuid import UUID

from shared.stores.postgres import Connection, Record, fetch_one
from twins import gate
from twins.consent.terms import Terms

CONSENT = """
    c.id, c.twin_id, c.renews, c.replaced_by, c.principal, c.method, c.purposes, c.notice_version, c.notice_language,
    c.notice_text, c.notice_sha256, c.given_at, c.not_before, c.expires_at, c.withdrawn, c.standing, c.actor, c.client,
    c.label, c.assurance, c.source, c.recipients, c.modalities, c.territories, c.guardian, c.details, c.taken
"""


async def give_consent(
    connection: Connection,
    owner: str | None,
    actor: str,
    twin_id: UUID,
    terms: Terms,
    digest: bytes | None,
    controller: str | None = None,
    renews: UUID | None = None,
    client: str | None = None,
) -> Record:
    """Record a consent, which may renew another, and return its `consent_id`, or the `problem` that forbids it.

    `owner` is the account for which the actor acts, `client` the software with the actor's token. `digest` is the
    keyed digest of the person's account, `controller` the JSON that the record keeps of the settings.
    """
    sql = """
        SELECT problem, consent_id, purpose FROM give_consent(
            $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
            p_controller => $21::jsonb
        )
    """
    agreement = terms.principal, digest, terms.method, terms.purposes
    notice = terms.notice.version, terms.notice.language, terms.notice.text
    texts = *agreement, *notice, *terms.period
    members = *terms.members, controller
    return await fetch_one(connection, sql, twin_id, owner, actor, *texts, renews, client, *members)


async def revoke_consent(
    connection: Connection,
    owner: str,
    actor: str,
    client: str | None,
    twin_id: UUID,
    consent_id: UUID,
    purposes: list[str] | None,
) -> Record:
    """End purposes of a consent's line of renewals, by default all, for the owner.

    Returns whether the line `is_changed`, or the `problem` that forbids it.
    """
    sql = "SELECT problem, is_changed FROM revoke_consent($1, $2, $3, $4, $5, $6)"
    return await fetch_one(connection, sql, twin_id, owner, actor, consent_id, purposes, client)


async def select_consent(
    connection: Connection,
    owner: str | None,
    sub: str,
    twin_id: UUID,
    consent_id: UUID,
    *,
    is_operator: bool = False,
) -> Record | None:
    """Return a consent that its twin's owner may see, `sub` as the principal, or an operator."""
    sql = f"""
        SELECT {CONSENT}, t.owner, $2 = ANY (t.principals) AS is_listed, statement_timestamp() AS at,
               (SELECT k.controller FROM consents k WHERE k.twin_id = c.twin_id AND k.id = c.id) AS controller
        FROM consent_records c JOIN live_twins t ON t.id = c.twin_id
        WHERE c.id = $4 AND c.twin_id = $3
          AND (t.owner = $1 OR c.principal = $2 AND NOT c.is_forgotten OR $5)
    """  # noqa: S608 - a constant of this file
    return await connection.fetchrow(sql, owner, sub, twin_id, consent_id, is_operator)


async def select_room(
    connection: Connection,
    owner: str | None,
    sub: str,
    twin_id: UUID,
    notice: str | None,
    terms: int,
    consents: int,
    size: int,
    guardian: bytes | None,
) -> Record | None:
    """Return whether a twin's owner stores at most so many consents and bytes with one more of this long notice.

    The notice may be there already; it is None where it counts nothing. `terms` are the bytes of the others.
    `no_guardian`: the account with the digest `guardian` has erased itself. None for whoever may not consent.
    """
    sql = """
        SELECT has_fewer_consents(t.owner, $3) AS for_consent,
               $2::text IS NULL AND $5::bigint = 0
               OR stores_at_most(t.owner, NULL, NULL, $4::bigint - $5 - coalesce(octet_length($2), 0))
               OR stores_at_most(t.owner, NULL, NULL, $4::bigint - $5) AND EXISTS (
                   SELECT FROM notices n WHERE n.twin_id = t.id AND n.sha256 = sha256(convert_to($2, 'UTF8'))
               ) AS for_terms,
               digest_erased($6) AS no_guardian
        FROM live_twins t WHERE t.id = $1 AND (t.owner = $7 OR EXISTS (
            SELECT FROM named_people p WHERE p.twin_id = t.id AND p.account = $8
        ))
    """
    return await connection.fetchrow(sql, twin_id, notice, consents, size, terms, guardian, owner, sub)


async def select_general(connection: Connection, owner: str, sub: str, twin_id: UUID, lowest: int) -> Record | None:
    """Return the state of a twin's general consent, and whether `principals` lists who acts for its owner.

    The state is that of the ledger also while a restore keeps the gate closed: a no takes effect then too.
    """
    sql = f"""
        SELECT {gate.general("$4", is_unconfirmed="false")} AS reason, d.consent_id,
               $2 = ANY (t.principals) AS is_listed
        FROM live_twins t {gate.state("$3", "(SELECT 'general')")}
        WHERE t.id = $3 AND t.owner = $1
    """  # noqa: S608 - constants
    return await connection.fetchrow(sql, owner, sub, twin_id, lowest)


async def may_name(connection: Connection, twin_id: UUID, accounts: Sequence[str], most: int) -> bool:
    """Return whether a twin has ever named all of these accounts, or fewer than `most` of any kind."""
    sql = """
        SELECT (SELECT count(*) FROM (SELECT FROM named_accounts WHERE twin_id = $1 LIMIT $3) named) < $3
            OR NOT EXISTS (
                SELECT FROM unnest($2::text[]) a
                WHERE NOT EXISTS (SELECT FROM named_accounts n WHERE n.twin_id = $1 AND n.account = a)
            )
    """
    may: bool = await connection.fetchval(sql, twin_id, accounts, most)
    return may


async def erase(connection: Connection, twin_ids: Sequence[UUID], limit: int) -> Record:
    """Remove up to `limit` rows of each kind of these erased twins, and return the numbers."""
    sql = "SELECT consents, consent_details FROM remove_consents($1, $2)"
    return await fetch_one(connection, sql, twin_ids, limit)


async def remaining(connection: Connection, twin_ids: Sequence[UUID]) -> Record:
    """Count the consents of these twins, and what belongs to them."""
    sql = """
        SELECT (SELECT count(*) FROM consents WHERE twin_id = ANY ($1)) AS consents,
               (SELECT count(*) FROM consent_states WHERE twin_id = ANY ($1))
             + (SELECT count(*) FROM notices WHERE twin_id = ANY ($1))
             + (SELECT count(*) FROM withdrawals WHERE twin_id = ANY ($1))
             + (SELECT count(*) FROM locks WHERE twin_id = ANY ($1))
             + (SELECT count(*) FROM stops WHERE twin_id = ANY ($1))
             + (SELECT count(*) FROM named_accounts WHERE twin_id = ANY ($1))
             + (SELECT count(*) FROM salts WHERE twin_id = ANY ($1)) AS consent_details
    """
    return await fetch_one(connection, sql, twin_ids)
