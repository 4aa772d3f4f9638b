"""External ids of twins, the record that a person keeps of an erased twin, and a count of consents.

An external id stays where a person has spoken. Only functions write these tables: the serving role can move no id that
stays, and makes and changes no record.
"""

from importlib import import_module

from alembic import op
from sqlalchemy import Connection

from migrations.instances import refuse_to_run_beside
from migrations.rewriting import back, rewrite, rewritten

revision = "20261129_13"
down_revision = "20261129_12"

_TABLES = (
    # --- External ids ------------------------------------------------------------------------------------
    # The digest is keyed, of the owner, the type and the id. Without a type the id is attached to no twin, and stays
    # that of this one: a person has spoken on it. `attached_seq`: the twin's last event by then, so that each yes with
    # a higher number was given with the id in place. No foreign key, as this is a reference table of a cluster.
    """
    CREATE TABLE external_ids (
        digest bytea NOT NULL CONSTRAINT external_ids_pkey PRIMARY KEY,
        twin_id uuid NOT NULL,
        type text CONSTRAINT external_ids_type_length CHECK (char_length(type) <= 63),
        id text CONSTRAINT external_ids_id_length CHECK (char_length(id) <= 255),
        place bigint CONSTRAINT external_ids_few CHECK (place BETWEEN 1 AND 20),
        attached_at timestamptz,
        attached_seq bigint,
        CONSTRAINT external_ids_digest CHECK (octet_length(digest) = 32),
        CONSTRAINT external_ids_attached CHECK (num_nulls(type, id, place, attached_at, attached_seq) IN (0, 5))
    )
    """,
    "CREATE INDEX external_ids_twin_id_idx ON external_ids (twin_id)",
    """
    CREATE VIEW attached_ids AS
    SELECT digest, twin_id, type, id, place, attached_at, attached_seq FROM external_ids WHERE type IS NOT NULL
    """,
    # What is left of the ids of erased twins.
    "CREATE VIEW kept_ids AS SELECT digest, twin_id FROM external_ids WHERE type IS NULL",
    # --- Records of people -------------------------------------------------------------------------------
    # What is left of a consent for its person: the digest of their account is the one by which `erased_accounts` knows
    # it, so that each way to an erased account takes the record with it.
    """
    CREATE TABLE erased_consents (
        twin_id uuid NOT NULL,
        consent_id uuid NOT NULL,
        digest bytea NOT NULL,
        erasure_id uuid NOT NULL,
        state text NOT NULL
            CONSTRAINT erased_consents_state CHECK (state IN ('given', 'withdrawn', 'expired', 'replaced')),
        given_at timestamptz NOT NULL,
        CONSTRAINT erased_consents_pkey PRIMARY KEY (twin_id, consent_id)
    )
    """,
    "CREATE INDEX erased_consents_digest_idx ON erased_consents (digest, consent_id)",
    # Whoever comes back after an erasure is somebody else.
    """
    CREATE VIEW kept_consents AS
    SELECT r.twin_id, r.consent_id, r.digest, r.erasure_id, r.state, r.given_at FROM erased_consents r
    WHERE NOT EXISTS (SELECT FROM erased_accounts e WHERE e.digest = r.digest AND e.erased_at >= r.given_at)
    """,
    # What stays of the twins of a piece, as the certificate will say.
    "ALTER TABLE erased_ledgers ADD COLUMN keeps text[] NOT NULL DEFAULT '{}'",
    # --- The number of consents --------------------------------------------------------------------------
    # Of a twin the first event counts nothing. What was stored before counts nothing either.
    "ALTER TABLE twins ADD COLUMN stored_consents bigint NOT NULL DEFAULT 0",
    # A row for each account with such a consent, beside `account_usage`, which most consents leave alone.
    """
    CREATE TABLE account_consents (
        account text NOT NULL CONSTRAINT account_consents_pkey PRIMARY KEY,
        consents bigint NOT NULL
    ) WITH (fillfactor = 50)
    """,
    # --- What a yes says of external ids -------------------------------------------------------------------
    # The number of the yes from which the assurance is: the consent's own, or that of the person's which it rests on.
    "ALTER TABLE consent_states ADD COLUMN said_seq bigint",
    """
    UPDATE consent_states s SET said_seq = coalesce(
        (SELECT y.seq FROM consents y WHERE y.twin_id = s.twin_id AND y.id = c.source), c.seq
    )
    FROM consents c WHERE c.twin_id = s.twin_id AND c.id = s.consent_id
    """,
)

_WRITE = (
    # --- External ids ------------------------------------------------------------------------------------
    # All external ids of a twin, in the order of their places. Behind the lock of the twin; the ids are locked one by
    # one in the order of their digests, and no other twin is: no deadlock. An id that moves while a person speaks on
    # the other twin has moved before. A problem is of the id at `place`; what was written before it goes with the
    # transaction.
    """
    CREATE FUNCTION erasure_waits(p_twin uuid) RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    BEGIN
        RETURN EXISTS (
            SELECT FROM named_accounts n JOIN erased_accounts e ON e.account = n.account
            WHERE n.twin_id = p_twin AND EXISTS (
                SELECT FROM consents c
                WHERE c.twin_id = p_twin AND c.principal = n.account AND c.given_at <= e.erased_at
            )
        );
    END $$
    """,
    """
    CREATE FUNCTION digest_erased(p_digest bytea) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
    BEGIN
        RETURN EXISTS (SELECT FROM erased_accounts e WHERE e.digest = p_digest);
    END $$
    """,
    """
    CREATE FUNCTION attach_ids(p_twin uuid, p_owner text, p_digests bytea[], p_types text[], p_ids text[])
    RETURNS TABLE (problem text, place bigint, is_changed boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    #variable_conflict use_column
    DECLARE
        t record;
        asked record;
        held record;
        one uuid;
        has_spoken boolean;
        is_new boolean := false;
        moment timestamptz;
        is_other boolean := false;
    BEGIN
        SELECT owner, created_at, spoken, ledger_seq, ledger_at INTO t
        FROM twins WHERE id = p_twin AND erased_at IS NULL AND owner = p_owner FOR NO KEY UPDATE;
        IF NOT FOUND OR account_erased(t.owner, t.created_at) THEN
            RETURN QUERY SELECT 'not_found', NULL::bigint, NULL::boolean;
            RETURN;
        END IF;
        moment := greatest(clock_timestamp(), t.ledger_at);
        t.spoken := greatest(t.spoken, erasure_waits(p_twin)::int);
        FOR asked IN
            WITH wanted AS (
                SELECT a.digest, a.type, a.id, a.place
                FROM unnest(p_digests, p_types, p_ids) WITH ORDINALITY AS a (digest, type, id, place)
            )
            SELECT w.digest, w.type, w.id, w.place FROM wanted w
            UNION ALL
            SELECT x.digest, NULL, NULL, NULL FROM external_ids x
            WHERE x.twin_id = p_twin AND x.type IS NOT NULL AND x.digest <> ALL (p_digests)
            ORDER BY 1
        LOOP
            LOOP
                IF asked.place IS NOT NULL THEN
                    INSERT INTO external_ids (digest, twin_id, type, id, place, attached_at, attached_seq)
                    VALUES (asked.digest, p_twin, asked.type, asked.id, asked.place, moment, t.ledger_seq)
                    ON CONFLICT (digest) DO NOTHING;
                    is_new := FOUND;
                    EXIT WHEN is_new;
                END IF;
                SELECT x.twin_id, x.type, x.place INTO held
                FROM external_ids x WHERE x.digest = asked.digest FOR UPDATE;
                EXIT WHEN FOUND OR asked.place IS NULL;
            END LOOP;
            IF is_new THEN
                is_new := false;
                is_other := true;
                CONTINUE;
            END IF;
            IF asked.place IS NULL THEN
                -- It is removed, unless another twin has taken it by now. Where a person has spoken it comes back
                -- to this twin only.
                IF held.twin_id = p_twin AND t.spoken > 0 THEN
                    UPDATE external_ids x
                    SET type = NULL, id = NULL, place = NULL, attached_at = NULL, attached_seq = NULL
                    WHERE x.digest = asked.digest;
                ELSE
                    DELETE FROM external_ids x WHERE x.digest = asked.digest AND x.twin_id = p_twin;
                END IF;
                is_other := true;
            ELSIF held.twin_id = p_twin AND held.type IS NOT NULL THEN
                IF held.place <> asked.place THEN
                    UPDATE external_ids x SET place = asked.place WHERE x.digest = asked.digest;
                    is_other := true;
                END IF;
            ELSE
                IF held.twin_id <> p_twin THEN
                    -- Erased twins are asked too: they know for good whether a person has spoken.
                    one := held.twin_id;
                    SELECT o.spoken > 0 INTO has_spoken FROM twins o WHERE o.id = one;
                    has_spoken := has_spoken OR erasure_waits(one);
                    IF has_spoken IS NOT FALSE THEN
                        RETURN QUERY SELECT 'kept', asked.place, NULL::boolean;
                        RETURN;
                    END IF;
                END IF;
                UPDATE external_ids x
                SET twin_id = p_twin, type = asked.type, id = asked.id, place = asked.place, attached_at = moment,
                    attached_seq = t.ledger_seq
                WHERE x.digest = asked.digest;
                is_other := true;
            END IF;
        END LOOP;
        IF is_other AND t.spoken > 0 AND 1000 < (
            SELECT count(*) FROM (SELECT 1 FROM external_ids x WHERE x.twin_id = p_twin LIMIT 1001) l
        ) THEN
            RETURN QUERY SELECT 'too_many', NULL::bigint, NULL::boolean;
            RETURN;
        END IF;
        RETURN QUERY SELECT NULL::text, NULL::bigint, is_other;
    END $$
    """,
    # Of erased twins. What stays is the digest, where a person has spoken.
    """
    CREATE FUNCTION remove_external_ids(p_twins uuid[]) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DECLARE
        gone constant uuid[] := ARRAY(SELECT id FROM twins WHERE id = ANY (p_twins) AND erased_at IS NOT NULL);
        silent constant uuid[] := ARRAY(SELECT id FROM twins WHERE id = ANY (gone) AND spoken = 0);
        number bigint;
        more bigint;
    BEGIN
        DELETE FROM external_ids WHERE twin_id = ANY (silent);
        GET DIAGNOSTICS number = ROW_COUNT;
        UPDATE external_ids SET type = NULL, id = NULL, place = NULL, attached_at = NULL, attached_seq = NULL
        WHERE twin_id = ANY (gone) AND type IS NOT NULL;
        GET DIAGNOSTICS more = ROW_COUNT;
        RETURN number + more;
    END $$
    """,
    # --- Records of people -------------------------------------------------------------------------------
    # What consents of erased twins were when their twin was erased, each for the person behind the digest.
    """
    CREATE FUNCTION record_consents(p_erasure uuid, p_twins uuid[], p_consents uuid[], p_digests bytea[]) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DECLARE
        number bigint;
    BEGIN
        INSERT INTO erased_consents (twin_id, consent_id, digest, erasure_id, state, given_at)
        SELECT a.twin_id, a.consent_id, a.digest, p_erasure,
               CASE WHEN c.standing IN ('granted', 'not_yet_valid')
                         OR c.standing = 'expired' AND c.expires_at > t.erased_at THEN 'given' ELSE c.standing END,
               c.given_at
        FROM unnest(p_twins, p_consents, p_digests) AS a (twin_id, consent_id, digest)
        JOIN twins t ON t.id = a.twin_id
        JOIN erased_twins g ON g.twin_id = a.twin_id AND g.erasure_id = p_erasure
        CROSS JOIN LATERAL (
            SELECT * FROM consent_records r WHERE r.twin_id = a.twin_id AND r.id = a.consent_id LIMIT 1
        ) c
        WHERE NOT EXISTS (SELECT FROM erased_accounts e WHERE e.digest = a.digest AND e.erased_at >= c.given_at)
        ON CONFLICT (twin_id, consent_id) DO NOTHING;
        GET DIAGNOSTICS number = ROW_COUNT;
        RETURN number;
    END $$
    """,
    # Of the person behind an erased account, whose name may be gone by now.
    """
    CREATE FUNCTION forget_records(p_erasure uuid, p_limit bigint) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off AS $$
    DECLARE
        who record;
        number bigint;
    BEGIN
        SELECT a.digest, a.erased_at INTO who FROM erased_accounts a WHERE a.erasure_id = p_erasure;
        DELETE FROM erased_consents WHERE (twin_id, consent_id) IN (
            SELECT twin_id, consent_id FROM erased_consents
            WHERE digest = who.digest AND given_at <= who.erased_at LIMIT p_limit
        );
        GET DIAGNOSTICS number = ROW_COUNT;
        RETURN number;
    END $$
    """,
    """
    CREATE FUNCTION left_records(p_erasure uuid) RETURNS bigint
    LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
    DECLARE
        who record;
    BEGIN
        SELECT a.digest, a.erased_at INTO who FROM erased_accounts a WHERE a.erasure_id = p_erasure;
        RETURN (SELECT count(*) FROM (
            SELECT 1 FROM erased_consents r WHERE r.digest = who.digest AND r.given_at <= who.erased_at LIMIT 1
        ) o);
    END $$
    """,
    # --- Lists over all twins of an owner ------------------------------------------------------------------
    # The next consents by twin, newest first, and of each twin newest first, behind a twin and a consent. Ends with
    # `p_most` rows, of which a twin without a consent is one, or with `p_wanted` consents.
    """
    CREATE FUNCTION consents_of_owner(
        p_owner text, p_twin uuid, p_consent uuid, p_most bigint, p_wanted bigint
    ) RETURNS TABLE (twin_id uuid, consent_id uuid) LANGUAGE plpgsql STABLE AS $$
    #variable_conflict use_column
    DECLARE
        one uuid;
        left_over bigint := p_most;
        to_find bigint := p_wanted;
        number bigint;
    BEGIN
        FOR one IN
            SELECT t.id FROM live_twins t WHERE t.owner = p_owner AND t.id <= p_twin ORDER BY t.id DESC LIMIT p_most + 1
        LOOP
            RETURN QUERY
                SELECT c.twin_id, c.id FROM consents c
                WHERE c.twin_id = one AND (one < p_twin OR c.id < p_consent)
                ORDER BY c.id DESC LIMIT least(left_over, to_find);
            GET DIAGNOSTICS number = ROW_COUNT;
            IF number = 0 AND one < p_twin THEN
                twin_id := one;
                consent_id := NULL;
                RETURN NEXT;
                left_over := left_over - 1;
            END IF;
            left_over := left_over - number;
            to_find := to_find - number;
            EXIT WHEN left_over <= 0 OR to_find <= 0;
        END LOOP;
    END $$
    """,
    # --- The number of consents ----------------------------------------------------------------------------
    """
    CREATE FUNCTION long_terms(recipients jsonb, details jsonb) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
        SELECT CASE WHEN s.size > 1024 THEN s.size ELSE 0 END FROM (
            SELECT coalesce(octet_length(recipients::text), 0)
                 + coalesce(octet_length(details::text), 0)::bigint AS size
        ) s
    $$
    """,
    """
    CREATE FUNCTION count_consent() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DECLARE
        more constant bigint := CASE WHEN TG_OP = 'INSERT' AND NEW.seq > 1 THEN 1 ELSE 0 END;
        bytes constant bigint := long_terms(NEW.recipients, NEW.details)
            - CASE WHEN TG_OP = 'INSERT' THEN 0 ELSE long_terms(OLD.recipients, OLD.details) END;
    BEGIN
        UPDATE twins SET stored_consents = stored_consents + more, stored_bytes = stored_bytes + bytes
        WHERE id = NEW.twin_id AND erased_at IS NULL;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER consents_counted AFTER INSERT ON consents
    FOR EACH ROW WHEN (NEW.seq > 1 OR num_nonnulls(NEW.recipients, NEW.details) > 0) EXECUTE FUNCTION count_consent()
    """,
    """
    CREATE TRIGGER consents_emptied AFTER UPDATE OF recipients, details ON consents
    FOR EACH ROW WHEN (NEW.details IS DISTINCT FROM OLD.details OR NEW.recipients IS DISTINCT FROM OLD.recipients)
    EXECUTE FUNCTION count_consent()
    """,
    # At the end of the transaction, after its other locks.
    """
    CREATE FUNCTION count_consents() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DECLARE
        who constant text := coalesce(NEW.owner, OLD.owner);
        more constant bigint := CASE WHEN NEW.erased_at IS NULL THEN NEW.stored_consents ELSE 0 END
                              - CASE WHEN OLD.erased_at IS NULL THEN OLD.stored_consents ELSE 0 END;
        rest bigint;
    BEGIN
        IF who IS NULL OR more = 0 THEN
            RETURN NULL;
        END IF;
        INSERT INTO account_consents AS u (account, consents) VALUES (who, more)
        ON CONFLICT (account) DO UPDATE SET consents = u.consents + EXCLUDED.consents
        RETURNING u.consents INTO rest;
        IF rest <= 0 THEN
            DELETE FROM account_consents WHERE account = who;
        END IF;
        RETURN NULL;
    END $$
    """,
    """
    CREATE CONSTRAINT TRIGGER twins_consents AFTER UPDATE OF stored_consents, erased_at ON twins
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION count_consents()
    """,
    """
    CREATE FUNCTION has_fewer_consents(p_account text, p_most bigint) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
    BEGIN
        RETURN NOT EXISTS (SELECT FROM account_consents u WHERE u.account = p_account AND u.consents >= p_most);
    END $$
    """,
)

# Of these functions the rest stays, whatever revision wrote it.
_CHANGED = {
    # What an event names is known to whoever makes it: nobody has to search for it among the states of the twin.
    "sealed_list": {
        " LANGUAGE sql\n STABLE\n": " LANGUAGE plpgsql\n",
        "        SELECT '['": (
            "BEGIN\n        PERFORM set_config('twins.named', array_to_json(texts)::text, true);\n"
            "        RETURN (SELECT '['"
        ),
        "FROM unnest(texts) AS t\n": "FROM unnest(texts) AS t);\n    END\n",
    },
    "note_event": {
        "WHERE seal(key, p) = ANY (named));\n": (
            "WHERE seal(key, p) = ANY (named));\n"
            "                IF cardinality(purposes) < cardinality(named) THEN\n"
            "                    purposes := ARRAY(\n"
            "                        SELECT p FROM jsonb_array_elements_text(\n"
            "                            coalesce(nullif(current_setting('twins.named', true), ''), '[]')::jsonb\n"
            "                        ) AS p WHERE seal(key, p) = ANY (named)\n"
            "                    );\n"
            "                END IF;\n"
        ),
    },
    "give_consent": {
        # Whoever comes back after an erasure is somebody else, and a colleague who erases themself says no too.
        "is_listed := p_actor = ANY (t.principals);": (
            "is_listed := p_actor = ANY (t.principals) AND is_named(p_twin, p_actor);"
        ),
        "e.account <> p_actor AND e.erased_at >= n.named_at\n": (
            "(e.account <> p_actor OR NOT is_own) AND (e.erased_at >= n.named_at OR EXISTS (\n"
            "                SELECT FROM consents c\n"
            "                WHERE c.twin_id = p_twin AND c.principal = e.account AND c.given_at <= e.erased_at\n"
            "            ))\n"
        ),
        "        rank smallint;\n": "        rank smallint;\n        one uuid;\n        said bigint;\n",
        "INSERT INTO consent_states (twin_id, purpose, consent_id, lineage, seq, account,": (
            "one := source;\n"
            "        SELECT y.seq INTO said FROM consents y WHERE y.twin_id = p_twin AND y.id = one;\n"
            "        said := coalesce(said, t.ledger_seq + 1);\n"
            "        INSERT INTO consent_states (twin_id, purpose, consent_id, lineage, seq, account,"
        ),
        "expires_at, assurance, recipients, modalities, territories)\n        SELECT p_twin, asked, made,": (
            "expires_at, assurance, recipients, modalities, territories, said_seq)\n        SELECT p_twin, asked, made,"
        ),
        "               rank, keys, p_modalities, p_territories\n": (
            "               rank, keys, p_modalities, p_territories, said\n"
        ),
        "modalities = EXCLUDED.modalities, territories = EXCLUDED.territories;": (
            "modalities = EXCLUDED.modalities, territories = EXCLUDED.territories, said_seq = EXCLUDED.said_seq;"
        ),
    },
    # Who has nothing but records has them removed.
    "erase_account": {
        "named_accounts WHERE account = p_account AND named_at > since)\n": (
            "named_accounts WHERE account = p_account AND named_at > since)\n"
            "           AND NOT EXISTS (\n"
            "               SELECT 1 FROM erased_consents WHERE digest = p_digest AND given_at > since\n"
            "           )\n"
        ),
    },
}

_SERVING = (
    "erasure_waits(uuid)",
    "digest_erased(bytea)",
    "attach_ids(uuid, text, bytea[], text[], text[])",
    "remove_external_ids(uuid[])",
    "record_consents(uuid, uuid[], uuid[], bytea[])",
    "forget_records(uuid, bigint)",
    "left_records(uuid)",
    "consents_of_owner(text, uuid, uuid, bigint, bigint)",
    "has_fewer_consents(text, bigint)",
)

_PRIVILEGES = (
    *(f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC" for name in (*_SERVING, "count_consent()", "count_consents()")),
    *(f"GRANT EXECUTE ON FUNCTION {name} TO twins_serving" for name in _SERVING),
    "GRANT SELECT ON external_ids, attached_ids, kept_ids, erased_consents, kept_consents TO twins_serving",
    "GRANT SELECT ON account_consents TO twins_serving",
)

_CANNOT_SAY = """
    SELECT 'external ids' AS what, count(*) AS number FROM external_ids
    UNION ALL SELECT 'records of people', count(*) FROM kept_consents
"""

_DOWN = (
    *(f"DROP FUNCTION {name}" for name in _SERVING),
    "DROP TRIGGER consents_counted ON consents",
    "DROP TRIGGER consents_emptied ON consents",
    "DROP TRIGGER twins_consents ON twins",
    "DROP FUNCTION count_consent(), count_consents(), long_terms(jsonb, jsonb)",
    "ALTER TABLE twins DROP COLUMN stored_consents",
    "ALTER TABLE erased_ledgers DROP COLUMN keeps",
    "DROP VIEW attached_ids, kept_ids, kept_consents",
    "DROP TABLE external_ids, erased_consents, account_consents",
)


# Of these views too, as the database writes them.
_VIEWS = {
    "decisions": {"    territories\n   FROM": "    territories,\n    said_seq\n   FROM"},
    "ledger_states": {
        "c.assurance = s.assurance": (
            "c.assurance = s.assurance AND s.said_seq = COALESCE(( SELECT y.seq FROM consents y"
            " WHERE y.twin_id = c.twin_id AND y.id = c.source), c.seq)"
        )
    },
}


def _change_views(connection: Connection) -> None:
    for name, parts in _VIEWS.items():
        sql = "SELECT pg_get_viewdef($1::text::regclass, true)"
        text: str = connection.exec_driver_sql(sql, (name,)).scalar_one()
        connection.exec_driver_sql(f"CREATE OR REPLACE VIEW {name} AS {rewritten(name, text, parts)}")


def _views_before(connection: Connection) -> None:
    eleven = import_module("migrations.versions.20261129_11_word")
    connection.exec_driver_sql("DROP VIEW decisions, ledger_states")
    for statement in eleven._READ:  # noqa: SLF001 - its SQL
        if "VIEW decisions AS" in statement or "VIEW ledger_states AS" in statement:
            connection.exec_driver_sql(statement)
    connection.exec_driver_sql("GRANT SELECT ON decisions, ledger_states TO twins_serving")


def upgrade() -> None:
    connection = op.get_bind()
    refuse_to_run_beside(connection)
    for statement in (*_TABLES, *_WRITE, *_PRIVILEGES):
        connection.exec_driver_sql(statement)
    for name, parts in _CHANGED.items():
        rewrite(connection, name, parts)
    _change_views(connection)


def downgrade() -> None:
    connection = op.get_bind()
    refuse_to_run_beside(connection)
    stands = [f"{number} {what}" for what, number in connection.exec_driver_sql(_CANNOT_SAY) if number]
    if stands:
        raise SystemExit(f"The schema before {revision} cannot express: {'; '.join(stands)}.")
    for name, parts in _CHANGED.items():
        rewrite(connection, name, back(parts))
    _views_before(connection)
    connection.exec_driver_sql("ALTER TABLE consent_states DROP COLUMN said_seq")
    for statement in _DOWN:
        connection.exec_driver_sql(statement)
