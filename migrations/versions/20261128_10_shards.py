"""A twin's tables can be distributed by twin_id: each of their keys has it, and each statement names it.

Functions that read such a table are in PL/pgSQL: one in SQL is inlined into the statement around it, and a cluster has
distributed that one by then. The gate's rule is therefore a view over the states, and a function that reads nothing.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module

from alembic import op
from sqlalchemy import Connection

from migrations.instances import refuse_to_run_beside

revision = "20261128_10"
down_revision = "20261128_8"

_VIEWS = (
    # The rule: what a state means, by the clock at the start of the statement. now() would be that of the transaction,
    # which may have waited for a lock while consent was withdrawn. `ended`: by what it ended, whatever the twin says.
    """
    CREATE VIEW decisions AS
    SELECT s.twin_id, s.purpose, s.consent_id, s.expires_at, s.seq,
        CASE
            WHEN s.no IS NOT NULL THEN s.no
            WHEN EXISTS (
                SELECT FROM erased_accounts e WHERE e.account = s.account AND e.erased_at >= s.given_at
            ) THEN 'withdrawn'
        END AS ended,
        CASE
            WHEN s.consent_id IS NULL THEN 'no_consent'
            WHEN s.expires_at <= statement_timestamp() THEN 'expired'
            WHEN s.not_before > statement_timestamp() THEN 'not_yet_valid'
            ELSE 'granted'
        END AS standing
    FROM consent_states s
    """,
    # And the rest of it, with what the twin says. Without a state all but the first is NULL. The planner inlines it.
    """
    CREATE FUNCTION reason_of(stop_seq bigint, seq bigint, ended text, standing text) RETURNS text
    LANGUAGE sql IMMUTABLE AS $$
        SELECT coalesce(ended, CASE WHEN coalesce(seq, 0) <= stop_seq THEN 'refused' END, standing, 'no_consent')
    $$
    """,
    "GRANT SELECT ON decisions TO twins_serving",
    "REVOKE ALL ON FUNCTION reason_of(bigint, bigint, text, text) FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION reason_of(bigint, bigint, text, text) TO twins_serving",
    # Whoever gets an erased account's name is somebody else.
    """
    CREATE VIEW named_people AS
    SELECT n.twin_id, n.account FROM named_accounts n WHERE NOT EXISTS (
        SELECT FROM erased_accounts e WHERE e.account = n.account AND e.erased_at >= n.named_at
    )
    """,
    "GRANT SELECT ON named_people TO twins_serving",
    "DROP VIEW consent_records",
    """
    CREATE VIEW consent_records AS
    SELECT c.*, coalesce(n.notice, '') AS notice_text, r.id AS replaced_by,
        (
            SELECT coalesce(json_agg(coalesce(w.ended->p.purpose, jsonb_build_object(
                'purpose', p.purpose, 'at', least(s.stopped_at, e.erased_at), 'by', f.by,
                'actor', CASE WHEN f.by = 'principal' THEN c.principal END,
                'client', CASE WHEN f.by = 'principal' AND f.is_stop THEN s.client END)) ORDER BY p.place), '[]')
            FROM unnest(c.purposes) WITH ORDINALITY AS p (purpose, place)
            CROSS JOIN LATERAL (SELECT s.stopped_at <= coalesce(e.erased_at, 'infinity') AS is_stop) o
            CROSS JOIN LATERAL (
                SELECT o.is_stop, CASE
                    WHEN o.is_stop AND s.by_operator THEN 'operator'
                    WHEN o.is_stop AND s.account IS DISTINCT FROM c.principal THEN 'person'
                    ELSE 'principal'
                END AS by
            ) f
            WHERE w.ended->p.purpose IS NOT NULL OR num_nonnulls(s.stopped_at, e.erased_at) > 0
        ) AS withdrawn,
        CASE
            WHEN num_nonnulls(s.stopped_at, e.erased_at) > 0 OR c.purposes <@ w.purposes THEN 'withdrawn'
            WHEN r.id IS NOT NULL THEN 'replaced'
            WHEN c.expires_at <= statement_timestamp() THEN 'expired'
            WHEN c.not_before > statement_timestamp() THEN 'not_yet_valid'
            ELSE 'granted'
        END AS standing,
        e.erased_at IS NOT NULL AS is_forgotten
    FROM consents c
    JOIN notices n ON n.twin_id = c.twin_id AND n.sha256 = c.notice_sha256
    LEFT JOIN LATERAL (SELECT id FROM consents r WHERE r.twin_id = c.twin_id AND r.renews = c.id LIMIT 1) r ON true
    -- A no to everything, and the erasure of the person's account, whose job may not have come here yet.
    LEFT JOIN LATERAL (
        SELECT * FROM stops s WHERE s.twin_id = c.twin_id AND s.seq > c.seq ORDER BY s.seq LIMIT 1
    ) s ON true
    LEFT JOIN LATERAL (
        SELECT e.erased_at FROM erased_accounts e
        WHERE e.account = c.principal AND e.erased_at >= c.given_at ORDER BY e.erased_at LIMIT 1
    ) e ON true
    LEFT JOIN LATERAL (
        SELECT array_agg(w.purpose) AS purposes, jsonb_object_agg(w.purpose, jsonb_build_object(
            'purpose', w.purpose, 'at', w.withdrawn_at, 'by', w.withdrawn_by,
            'actor', w.actor, 'client', w.client)) AS ended
        FROM withdrawals w WHERE w.twin_id = c.twin_id AND w.lineage = c.lineage
    ) w ON true
    """,
    "GRANT SELECT ON consent_records TO twins_serving",
    # Whoever said it stays with the table.
    """
    CREATE OR REPLACE VIEW standing_locks AS
    SELECT l.twin_id, l.id, l.purposes, l.exceptions, l.refused_at,
           CASE WHEN g.erased_at IS NULL THEN l.opener_kind ELSE 'none' END AS opener_kind,
           CASE WHEN g.erased_at IS NULL THEN l.opener END AS opener
    FROM locks l LEFT JOIN LATERAL (
        SELECT e.erased_at FROM erased_accounts e WHERE e.account = l.opener AND e.erased_at >= l.refused_at LIMIT 1
    ) g ON true
    WHERE l.opened_at IS NULL
    """,
)

_FUNCTIONS = (
    """
    CREATE OR REPLACE FUNCTION is_named(twin uuid, account text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
    BEGIN
        RETURN EXISTS (SELECT FROM named_people n WHERE n.twin_id = twin AND n.account = $2);
    END $$
    """,
    """
    CREATE OR REPLACE FUNCTION left_of_account(p_erasure uuid) RETURNS TABLE (twins bigint, names bigint)
    LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
    #variable_conflict use_column
    DECLARE
        who record;
    BEGIN
        SELECT a.account, a.erased_at INTO who FROM erased_accounts a WHERE a.erasure_id = p_erasure;
        twins := (SELECT count(*) FROM (
            SELECT 1 FROM twins t WHERE t.owner = who.account AND t.created_at <= who.erased_at LIMIT 1
        ) o);
        names := (SELECT count(*) FROM naming_twins(p_erasure, 1));
        RETURN NEXT;
    END $$
    """,
    # Up to `p_limit` rows of each table; of erased twins only. By their keys: each shard counts its own `ctid`.
    """
    CREATE OR REPLACE FUNCTION remove_consents(p_twins uuid[], p_limit bigint)
    RETURNS TABLE (consents bigint, consent_details bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DECLARE
        gone constant uuid[] := ARRAY(SELECT id FROM twins WHERE id = ANY (p_twins) AND erased_at IS NOT NULL);
        name text;
        key text;
        number bigint;
    BEGIN
        consents := 0;
        consent_details := 0;
        FOR name, key IN VALUES
            ('salts', 'lineage'), ('consent_states', 'purpose'), ('withdrawals', 'lineage, purpose'), ('locks', 'id'),
            ('stops', 'seq'), ('named_accounts', 'account'), ('notices', 'sha256'), ('consents', 'id')
        LOOP
            EXECUTE format(
                'DELETE FROM %1$I WHERE twin_id = ANY ($1) AND (twin_id, %2$s) IN (
                     SELECT twin_id, %2$s FROM %1$I WHERE twin_id = ANY ($1) LIMIT $2
                 )', name, key
            ) USING gone, p_limit;
            GET DIAGNOSTICS number = ROW_COUNT;
            IF name = 'consents' THEN
                consents := number;
            ELSE
                consent_details := consent_details + number;
            END IF;
        END LOOP;
        RETURN NEXT;
    END $$
    """,
)

# Of these functions the rest stays, whatever revision wrote it.
_CHANGED: dict[str, dict[str, str]] = {
    # A row can be locked where its twin is named.
    "erase_twins": {
        """
        t record;
""": """
        one uuid;
        t record;
""",
        """
        FOR t IN
            SELECT id, ledger_seq, ledger_at FROM twins
            WHERE id = ANY (p_twins) AND owner = p_owner AND erased_at IS NULL ORDER BY id FOR NO KEY UPDATE
        LOOP
""": """
        FOR one IN SELECT p FROM unnest(p_twins) AS p ORDER BY p LOOP
            SELECT id, ledger_seq, ledger_at INTO t FROM twins
            WHERE id = one AND owner = p_owner AND erased_at IS NULL FOR NO KEY UPDATE;
            CONTINUE WHEN NOT FOUND;
""",
        "WHERE id = t.id;": "WHERE id = one;",
    },
    # What a shard answers has a column.
    "erase_account": {"SELECT FROM ": "SELECT 1 FROM "},
    # What a shard is sent is no expression of PL/pgSQL, and no function whose answer changes.
    "erase_account_twins": {
        "UPDATE erasures SET after = batch[cardinality(batch)], ": """who.after := batch[cardinality(batch)];
            UPDATE erasures SET after = who.after, """
    },
    "forget_person": {
        """
            UPDATE twins
            SET principals = array_remove(principals, who.account), version = version + 1,
                updated_at = greatest(clock_timestamp(), updated_at)
""": """
            said := clock_timestamp();
            UPDATE twins
            SET principals = array_remove(principals, who.account), version = version + 1,
                updated_at = greatest(said, updated_at)
""",
        "CASE c.actor WHEN who.account THEN": "CASE WHEN c.actor = who.account THEN",
        "WHERE w.ctid = ANY (ARRAY(": "WHERE w.twin_id = p_twin AND w.ctid = ANY (ARRAY(",
    },
    # The account's row comes first, and its columns are variables.
    "naming_twins": {
        " LANGUAGE sql\n": " LANGUAGE plpgsql\n",
        """
        SELECT f.twin_id,""": """
    #variable_conflict use_column
    DECLARE
        a record;
    BEGIN
        SELECT account, erased_at INTO a FROM erased_accounts WHERE erasure_id = p_erasure;
        RETURN QUERY
        SELECT f.twin_id,""",
        "FROM erased_accounts a CROSS JOIN LATERAL (\n": "FROM (\n",
        """
        WHERE a.erasure_id = p_erasure GROUP BY f.twin_id ORDER BY f.twin_id
""": """
        GROUP BY f.twin_id ORDER BY f.twin_id;
    END
""",
    },
    # On a shard the action of ON CONFLICT knows the two rows, and neither a variable nor a function that reads.
    "give_consent": {
        """
        INSERT INTO named_accounts AS n (twin_id, account, named_at) VALUES (p_twin, p_person, moment)
        ON CONFLICT (twin_id, account) DO UPDATE SET named_at = EXCLUDED.named_at
        WHERE account_erased(n.account, n.named_at);
""": """
        INSERT INTO named_accounts (twin_id, account, named_at) VALUES (p_twin, p_person, moment)
        ON CONFLICT (twin_id, account) DO NOTHING;
        IF NOT FOUND AND NOT is_named(p_twin, p_person) THEN
            UPDATE named_accounts n SET named_at = moment WHERE n.twin_id = p_twin AND n.account = p_person;
        END IF;
"""
    },
    "place_lock": {
        """
        INSERT INTO consent_states AS s (twin_id, purpose, no)
        SELECT p_twin, asked, 'refused' FROM unnest(wanted) AS asked
        ON CONFLICT (twin_id, purpose) DO UPDATE
        SET no = CASE WHEN s.lineage = p_lineage THEN 'withdrawn' ELSE 'refused' END;
""": """
        UPDATE consent_states s SET no = CASE WHEN s.lineage = p_lineage THEN 'withdrawn' ELSE 'refused' END
        FROM unnest(wanted) AS asked WHERE s.twin_id = p_twin AND s.purpose = asked;
        INSERT INTO consent_states (twin_id, purpose, no)
        SELECT p_twin, asked, 'refused' FROM unnest(wanted) AS asked
        ON CONFLICT (twin_id, purpose) DO NOTHING;
"""
    },
}

# No CREATE STATISTICS (twin_id, purpose): each look-up of a state goes by the whole primary key. Where the twin is an
# argument, the statement hides the purpose from the planner, which then expects a row at most.
_UP = (
    """
    ALTER TABLE persona_versions
        DROP CONSTRAINT persona_versions_document_id_key,
        ADD CONSTRAINT persona_versions_twin_id_document_id_key UNIQUE (twin_id, document_id)
    """,
    *_VIEWS,
    *_FUNCTIONS,
    "DROP FUNCTION decision_of",
)

_DOWN = (
    "DROP FUNCTION reason_of",
    "DROP VIEW decisions, consent_records, standing_locks",
    """
    ALTER TABLE persona_versions
        DROP CONSTRAINT persona_versions_twin_id_document_id_key,
        ADD CONSTRAINT persona_versions_document_id_key UNIQUE (document_id)
    """,
)
_AS_BEFORE = (
    "FUNCTION decision_of",
    "VIEW standing_locks",
    "FUNCTION is_named",
    "FUNCTION left_of_account",
    "FUNCTION remove_consents",
)


def _before() -> Iterator[str]:
    """Yield the definitions of before, in their order."""
    six = import_module("migrations.versions.20261128_6_no")
    for statement in (*six._READ, *six._WRITE):  # noqa: SLF001 - its SQL
        if any(f"CREATE {name}" in statement for name in _AS_BEFORE):
            yield statement.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
    yield import_module("migrations.versions.20261128_7_actor")._VIEWS[0]  # noqa: SLF001 - its SQL


def _change(connection: Connection, name: str, parts: Mapping[str, str]) -> None:
    """Make a function anew with other parts of its text."""
    sql = "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proname = $1"
    text: str = connection.exec_driver_sql(sql, (name,)).scalar_one()
    for old, new in parts.items():
        if old not in text:
            raise RuntimeError(f"{name} is not as this revision expects it: {old!r}")
        text = text.replace(old, new)
    connection.exec_driver_sql(text)


def upgrade() -> None:
    connection = op.get_bind()
    refuse_to_run_beside(connection)
    for statement in _UP:
        connection.exec_driver_sql(statement)
    for name, parts in _CHANGED.items():
        _change(connection, name, parts)


def downgrade() -> None:
    connection = op.get_bind()
    refuse_to_run_beside(connection)
    for name, parts in _CHANGED.items():
        _change(connection, name, {new: old for old, new in parts.items()})
    for statement in (*_DOWN, *_before()):
        connection.exec_driver_sql(statement)
    connection.exec_driver_sql("DROP VIEW named_people")
    connection.exec_driver_sql("REVOKE ALL ON FUNCTION decision_of FROM PUBLIC")
    connection.exec_driver_sql("GRANT EXECUTE ON FUNCTION decision_of TO twins_serving")
    connection.exec_driver_sql("GRANT SELECT ON consent_records, standing_locks TO twins_serving")
