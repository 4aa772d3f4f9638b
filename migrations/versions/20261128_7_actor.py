"""Receipts name who acted: the account and the client behind each yes, and behind what ended a consent.

The functions of revision 6 stay as they are, but for the parts that `_CHANGES` names.
"""

from collections.abc import Mapping
from typing import NamedTuple

from alembic import op
from sqlalchemy import Connection

from migrations.instances import refuse_to_run_beside

revision = "20261128_7"
down_revision = "20261128_6"

_TABLES = (
    # Once an account is erased, its pseudonym. NULL where nobody knows any more, and where no receipt names who ended
    # a consent: another person, or an operator.
    """
    ALTER TABLE consents
        ADD COLUMN actor text CONSTRAINT consents_actor_length CHECK (char_length(actor) <= 511),
        ADD COLUMN client text CONSTRAINT consents_client_length CHECK (char_length(client) <= 255)
    """,
    """
    ALTER TABLE withdrawals
        ADD COLUMN actor text CONSTRAINT withdrawals_actor_length CHECK (char_length(actor) <= 511),
        ADD COLUMN client text CONSTRAINT withdrawals_client_length CHECK (char_length(client) <= 255)
    """,
    "ALTER TABLE stops ADD COLUMN client text CONSTRAINT stops_client_length CHECK (char_length(client) <= 255)",
    # An event has the HMAC of the account that acted. It is compared with the person's, and with an owner's who is no
    # organisation.
    r"""
    UPDATE consents c SET actor = n.account
    FROM consents x
    JOIN consent_events e ON e.twin_id = x.twin_id AND e.seq = x.seq
    JOIN twins t ON t.id = x.twin_id
    JOIN salts s ON s.twin_id = x.twin_id AND s.since_seq <= x.seq AND s.lineage = CASE e.event::json->>'v'
        WHEN '1' THEN '00000000-0000-0000-0000-000000000000' ELSE x.lineage END
    CROSS JOIN LATERAL (
        SELECT account FROM unnest(ARRAY[x.principal, t.owner]) AS account
        WHERE account !~ '\n.*\n' AND seal(s.salt, account) = e.event::json->>'actor' LIMIT 1
    ) n
    WHERE c.twin_id = x.twin_id AND c.id = x.id
    """,
    r"""
    UPDATE withdrawals w SET actor = n.account
    FROM withdrawals x
    JOIN twins t ON t.id = x.twin_id
    JOIN consents c ON c.twin_id = x.twin_id AND c.id = x.lineage
    JOIN consent_events e ON e.twin_id = x.twin_id AND e.event::json->>'at' = moment_text(x.withdrawn_at)
    LEFT JOIN consents l ON l.twin_id = e.twin_id AND e.event::json->>'v' <> '1'
        AND l.id = (e.event::json->>'consent_id')::uuid
    JOIN salts s ON s.twin_id = e.twin_id AND s.since_seq <= e.seq
        AND s.lineage = coalesce(l.lineage, '00000000-0000-0000-0000-000000000000')
    CROSS JOIN LATERAL (
        SELECT CASE x.withdrawn_by WHEN 'principal' THEN c.principal WHEN 'owner' THEN t.owner END AS account
    ) n
    WHERE w.twin_id = x.twin_id AND w.lineage = x.lineage AND w.purpose = x.purpose
      AND n.account !~ '\n.*\n' AND seal(s.salt, n.account) = e.event::json->>'actor'
    """,
    # What somebody recorded in another's name, or ended for the owner: the erasure of that account finds it here.
    "CREATE INDEX consents_actor_idx ON consents (actor, twin_id) WHERE actor <> principal",
    "CREATE INDEX withdrawals_actor_idx ON withdrawals (actor, twin_id) WHERE withdrawn_by = 'owner'",
)

_UNDONE = (
    "DROP INDEX consents_actor_idx, withdrawals_actor_idx",
    "ALTER TABLE consents DROP COLUMN actor, DROP COLUMN client",
    "ALTER TABLE withdrawals DROP COLUMN actor, DROP COLUMN client",
    "ALTER TABLE stops DROP COLUMN client",
)


class _Change(NamedTuple):
    """What changes in a function: parts of its text, each of which stands there once.

    `client` stands for a last argument that is new: then it is another function, and `serves` says if the serving role
    may call it.
    """

    function: str
    parts: Mapping[str, str]
    takes_client: bool = False
    serves: bool = False


_BY_PRINCIPAL = "CASE WHEN {} THEN p_actor END, CASE WHEN {} THEN p_client END"
_PLACED = "p_kind <> 'operator' AND s.account = p_actor"
_SAID = "NOT p_is_operator AND given_principal = p_actor"

_CHANGES = (
    _Change(
        "append_event(uuid, text, text, bytea, timestamptz, text, uuid, uuid, uuid, text, uuid, text)",
        {
            """|| coalesce(',"consent_id":"'""": """|| coalesce(',"client":"' || seal(p_salt, p_client) || '"', '')
            || coalesce(',"consent_id":"'"""
        },
        takes_client=True,
    ),
    _Change(
        "give_consent(uuid, text, text, text, bytea, text, text[], text, text, text, timestamptz, timestamptz, uuid)",
        {
            "p_purposes => sealed_list(line_salt, opened))": (
                "p_purposes => sealed_list(line_salt, opened), p_client => p_client)"
            ),
            "notice_sha256, given_at, not_before, expires_at)": (
                "notice_sha256, given_at, not_before, expires_at, actor, client)"
            ),
            "p_language, digest, moment, p_not_before, p_expires_at)": (
                "p_language, digest, moment, p_not_before, p_expires_at, p_actor, p_client)"
            ),
            "p_terms => seal(line_salt, terms))": "p_terms => seal(line_salt, terms), p_client => p_client)",
        },
        takes_client=True,
        serves=True,
    ),
    _Change(
        "place_lock(uuid, text, text, text[], uuid, uuid)",
        {
            "p_purposes => CASE WHEN wanted IS NULL THEN 'null' ELSE sealed_list(salt, wanted) END": (
                "p_purposes => CASE WHEN wanted IS NULL THEN 'null' ELSE sealed_list(salt, wanted) END,\n"
                "            p_client => p_client"
            ),
            "INSERT INTO stops (twin_id, seq, stopped_at, account, by_operator)": (
                "INSERT INTO stops (twin_id, seq, stopped_at, account, by_operator, client)"
            ),
            "THEN p_actor END, p_kind = 'operator');": (
                "THEN p_actor END, p_kind = 'operator',\n"
                "                    CASE WHEN p_kind <> 'operator' THEN p_client END);"
            ),
            "purpose, withdrawn_at, withdrawn_by)": "purpose, withdrawn_at, withdrawn_by, actor, client)",
            "THEN 'principal' ELSE speaker END": (
                f"THEN 'principal' ELSE speaker END,\n               {_BY_PRINCIPAL.format(_PLACED, _PLACED)}"
            ),
        },
        takes_client=True,
    ),
    _Change(
        "say_no(uuid, text, text, boolean, text[], uuid)",
        {
            "latest, given_lineage);": "latest, given_lineage, p_client);",
            "purpose, withdrawn_at, withdrawn_by)": "purpose, withdrawn_at, withdrawn_by, actor, client)",
            "ELSE 'person' END\n": f"ELSE 'person' END,\n                   {_BY_PRINCIPAL.format(_SAID, _SAID)}\n",
        },
        takes_client=True,
        serves=True,
    ),
    _Change(
        "revoke_consent(uuid, text, text, uuid, text[])",
        {
            "p_purposes => sealed_list(salt, fresh))": "p_purposes => sealed_list(salt, fresh), p_client => p_client)",
            "purpose, withdrawn_at, withdrawn_by)": "purpose, withdrawn_at, withdrawn_by, actor, client)",
            "THEN 'principal' ELSE 'owner' END": "THEN 'principal' ELSE 'owner' END, p_actor, p_client",
        },
        takes_client=True,
        serves=True,
    ),
    _Change(
        "open_lock(uuid, uuid, text, boolean)",
        {
            "ELSE sealed_list(salt, held.purposes) END": (
                "ELSE sealed_list(salt, held.purposes) END,\n                p_client => p_client"
            ),
        },
        takes_client=True,
        serves=True,
    ),
    # --- Erasure -------------------------------------------------------------------------------------
    _Change(
        "erase_account(text, text, bytea, bytea)",
        {
            "(SELECT FROM locks WHERE opener = p_account AND refused_at > since)": (
                """(SELECT FROM locks WHERE opener = p_account AND refused_at > since)
           AND NOT EXISTS (
               SELECT FROM consents WHERE actor = p_account AND actor <> principal AND given_at > since
           )
           AND NOT EXISTS (
               SELECT FROM withdrawals WHERE actor = p_account AND withdrawn_by = 'owner' AND withdrawn_at > since
           )"""
            ),
        },
    ),
    _Change(
        "naming_twins(uuid, bigint)",
        {
            "l.refused_at <= a.erased_at LIMIT p_limit)": """l.refused_at <= a.erased_at LIMIT p_limit)
            UNION ALL
            (SELECT c.twin_id, NULL FROM consents c
             WHERE c.actor = a.account AND c.actor <> c.principal AND c.given_at <= a.erased_at LIMIT p_limit)
            UNION ALL
            (SELECT w.twin_id, NULL FROM withdrawals w
             WHERE w.actor = a.account AND w.withdrawn_by = 'owner' AND w.withdrawn_at <= a.erased_at LIMIT p_limit)"""
        },
    ),
    _Change(
        "forget_person(uuid, uuid, uuid[])",
        {
            "purpose, withdrawn_at, withdrawn_by)": "purpose, withdrawn_at, withdrawn_by, actor)",
            "ELSE 'principal' END\n": """ELSE 'principal' END,
                           CASE WHEN s.seq IS NULL OR NOT s.by_operator AND s.account = who.account THEN pseudonym END
""",
            "UPDATE consents c SET principal = pseudonym\n": """UPDATE withdrawals w
            SET actor = pseudonym, client = NULL
            WHERE w.twin_id = p_twin AND w.lineage = line AND w.actor = who.account;
            UPDATE consents c
            SET principal = pseudonym,
                actor = CASE c.actor WHEN who.account THEN pseudonym ELSE c.actor END,
                client = CASE WHEN c.actor <> who.account THEN c.client END
""",
            "UPDATE stops s SET account = NULL\n": "UPDATE stops s SET account = NULL, client = NULL\n",
            "DELETE FROM named_accounts n\n": r"""-- What it did for an organisation: its HMACs there lose their key.
        pseudonym := E'\x01erased:' || gen_random_uuid();
        WITH given AS (
            UPDATE consents c SET actor = pseudonym, client = NULL
            WHERE c.twin_id = p_twin AND c.id = ANY (ARRAY(
                SELECT id FROM consents a
                WHERE a.actor = who.account AND a.twin_id = p_twin AND a.actor <> a.principal
                  AND a.given_at <= who.erased_at LIMIT 1000
            ))
            RETURNING c.lineage
        ), ended AS (
            UPDATE withdrawals w SET actor = pseudonym, client = NULL
            WHERE w.ctid = ANY (ARRAY(
                SELECT ctid FROM withdrawals a
                WHERE a.actor = who.account AND a.twin_id = p_twin AND a.withdrawn_by = 'owner'
                  AND a.withdrawn_at <= who.erased_at LIMIT 1000
            ))
            RETURNING w.lineage
        )
        DELETE FROM salts s
        WHERE s.twin_id = p_twin AND s.lineage IN (SELECT lineage FROM given UNION SELECT lineage FROM ended);
        DELETE FROM named_accounts n
""",
        },
    ),
)

_RECORDS = """
    CREATE VIEW consent_records AS
    SELECT c.*, coalesce(n.notice, '') AS notice_text, r.id AS replaced_by, w.withdrawn,
        CASE
            WHEN w.number = cardinality(c.purposes) THEN 'withdrawn'
            WHEN r.id IS NOT NULL THEN 'replaced'
            WHEN c.expires_at <= statement_timestamp() THEN 'expired'
            WHEN c.not_before > statement_timestamp() THEN 'not_yet_valid'
            ELSE 'granted'
        END AS standing
    FROM consents c
    JOIN notices n ON n.twin_id = c.twin_id AND n.sha256 = c.notice_sha256
    LEFT JOIN LATERAL (SELECT id FROM consents r WHERE r.twin_id = c.twin_id AND r.renews = c.id LIMIT 1) r ON true
    LEFT JOIN LATERAL (
        -- A no to everything, or the erasure of the person's account, whose job may not have come here yet.
        SELECT {ended} FROM (
            (SELECT s.stopped_at AS ended_at,
                    CASE WHEN s.by_operator THEN 'operator' WHEN s.account = c.principal THEN 'principal'
                    ELSE 'person' END AS ended_by{by}
             FROM stops s WHERE s.twin_id = c.twin_id AND s.seq > c.seq ORDER BY s.seq LIMIT 1)
            UNION ALL
            (SELECT e.erased_at, 'principal'{by_none} FROM erased_accounts e
             WHERE e.account = c.principal AND e.erased_at >= c.given_at ORDER BY e.erased_at LIMIT 1)
        ) f ORDER BY ended_at LIMIT 1
    ) s ON true
    CROSS JOIN LATERAL (
        SELECT count(*) AS number, coalesce(json_agg(json_build_object(
            'purpose', p.purpose, 'at', coalesce(w.withdrawn_at, s.ended_at),
            'by', coalesce(w.withdrawn_by, s.ended_by){acted}) ORDER BY p.place), '[]') AS withdrawn
        FROM unnest(c.purposes) WITH ORDINALITY AS p (purpose, place)
        LEFT JOIN LATERAL (
            SELECT {withdrawn} FROM withdrawals w
            WHERE w.twin_id = c.twin_id AND w.lineage = c.lineage AND w.purpose = p.purpose LIMIT 1
        ) w ON true
        WHERE w.withdrawn_at IS NOT NULL OR s.ended_at IS NOT NULL
    ) w
"""
_LEDGER_CONSENTS = """
    CREATE VIEW ledger_consents AS
    SELECT c.twin_id, c.id, c.lineage, c.renews, c.seq, c.principal, c.method, c.purposes, c.notice_version,
           c.notice_language, c.notice_sha256, c.given_at, c.not_before, c.expires_at,{acted}
           (SELECT n.notice IS NULL OR n.sha256 = sha256(convert_to(n.notice, 'UTF8')) FROM notices n
            WHERE n.twin_id = c.twin_id AND n.sha256 = c.notice_sha256) AS notice_holds,
           (SELECT r.purposes FROM consents r WHERE r.twin_id = c.twin_id AND r.id = c.lineage) AS line_purposes,
           (SELECT s.salt FROM salts s WHERE s.twin_id = c.twin_id AND s.lineage = c.lineage) AS salt,
           (SELECT s.since_seq FROM salts s WHERE s.twin_id = c.twin_id AND s.lineage = c.lineage) AS since_seq
    FROM consents c
"""
_LEDGER_WITHDRAWALS = """
    CREATE VIEW ledger_withdrawals AS
    SELECT twin_id, lineage, purpose, withdrawn_at, withdrawn_by{acted} FROM withdrawals
"""

_VIEWS = (
    _RECORDS.format(
        ended="ended_at, ended_by, ended_through",
        by=", s.client AS ended_through",
        by_none=", NULL",
        acted=""",
            'actor', CASE WHEN w.withdrawn_at IS NOT NULL THEN w.actor
                     WHEN s.ended_by = 'principal' THEN c.principal END,
            'client', CASE WHEN w.withdrawn_at IS NOT NULL THEN w.client
                      WHEN s.ended_by = 'principal' THEN s.ended_through END""",
        withdrawn="withdrawn_at, withdrawn_by, actor, client",
    ),
    _LEDGER_CONSENTS.format(acted=" c.actor, c.client,"),
    _LEDGER_WITHDRAWALS.format(acted=", actor, client"),
)
_VIEWS_BEFORE = (
    _RECORDS.format(ended="ended_at, ended_by", by="", by_none="", acted="", withdrawn="withdrawn_at, withdrawn_by"),
    _LEDGER_CONSENTS.format(acted=""),
    _LEDGER_WITHDRAWALS.format(acted=""),
)


def _change(connection: Connection, change: _Change, *, back: bool) -> None:
    """Make a function anew with the changed parts of its text, or with those from before."""
    name, arguments = change.function.rstrip(")").split("(")
    changed = f"{name}({arguments}, text)" if change.takes_client else change.function
    here, there = (changed, change.function) if back else (change.function, changed)
    text: str = connection.exec_driver_sql("SELECT pg_get_functiondef($1::regprocedure)", (here,)).scalar_one()
    parts = [*change.parts.items()]
    if change.takes_client:
        parts.append((")\n RETURNS ", ", p_client text DEFAULT NULL::text)\n RETURNS "))
    for before, after in parts:
        old, new = (after, before) if back else (before, after)
        if text.count(old) != 1:
            raise RuntimeError(f"{here} is not as this revision expects it: {old!r}")
        text = text.replace(old, new)
    if change.takes_client:
        connection.exec_driver_sql(f"DROP FUNCTION {here}")
    connection.exec_driver_sql(text)
    if change.takes_client:
        connection.exec_driver_sql(f"REVOKE ALL ON FUNCTION {there} FROM PUBLIC")
    if change.serves:
        connection.exec_driver_sql(f"GRANT EXECUTE ON FUNCTION {there} TO twins_serving")


def _make_views(connection: Connection, views: tuple[str, ...]) -> None:
    for view in views:
        connection.exec_driver_sql(view)
    names = "consent_records, ledger_consents, ledger_withdrawals"
    connection.exec_driver_sql(f"GRANT SELECT ON {names} TO twins_serving")


def upgrade() -> None:
    connection = op.get_bind()
    refuse_to_run_beside(connection)
    connection.exec_driver_sql("DROP VIEW consent_records, ledger_consents, ledger_withdrawals")
    for statement in _TABLES:
        connection.exec_driver_sql(statement)
    for change in _CHANGES:
        _change(connection, change, back=False)
    _make_views(connection, _VIEWS)


def downgrade() -> None:
    connection = op.get_bind()
    refuse_to_run_beside(connection)
    connection.exec_driver_sql("DROP VIEW consent_records, ledger_consents, ledger_withdrawals")
    for change in _CHANGES:
        _change(connection, change, back=True)
    for statement in _UNDONE:
        connection.exec_driver_sql(statement)
    _make_views(connection, _VIEWS_BEFORE)
