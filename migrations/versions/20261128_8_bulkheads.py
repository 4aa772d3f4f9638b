"""What an account stores is counted, and its twins are found by a part of their name."""

from alembic import op

from migrations.instances import refuse_to_run_beside

revision = "20261128_8"
down_revision = "20261128_7"

_UP = (
    # --- What an account stores ------------------------------------------------------------------------
    # Of personas, and of long notices; what was stored before counts from its next version on.
    "ALTER TABLE twins ADD COLUMN stored_bytes bigint NOT NULL DEFAULT 0",
    # A row for each account with a live twin; it goes with the last one, and so with the account.
    """
    CREATE TABLE account_usage (
        account text NOT NULL CONSTRAINT account_usage_pkey PRIMARY KEY,
        twins bigint NOT NULL,
        versions bigint NOT NULL,
        bytes bigint NOT NULL
    ) WITH (fillfactor = 50)
    """,
    """
    UPDATE twins t SET stored_bytes = n.bytes
    FROM (
        SELECT twin_id, sum(octet_length(notice)) AS bytes FROM notices WHERE octet_length(notice) > 1024
        GROUP BY twin_id
    ) n
    WHERE t.id = n.twin_id AND t.erased_at IS NULL
    """,
    """
    INSERT INTO account_usage
    SELECT owner, count(*), sum(persona_version), sum(stored_bytes) FROM twins WHERE owner IS NOT NULL GROUP BY owner
    """,
    # At the end of the transaction, after its other locks: of an owner's twins made at once, each waits for the commits
    # of those before, and for nothing else. Thousands in one transaction take the square of their number.
    """
    CREATE FUNCTION count_usage() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DECLARE
        who constant text := coalesce(NEW.owner, OLD.owner);
        more_twins bigint := (NEW.erased_at IS NULL)::int;
        more_versions bigint := CASE WHEN NEW.erased_at IS NULL THEN NEW.persona_version ELSE 0 END;
        more_bytes bigint := CASE WHEN NEW.erased_at IS NULL THEN NEW.stored_bytes ELSE 0 END;
        rest bigint;
    BEGIN
        IF TG_OP = 'UPDATE' AND OLD.erased_at IS NULL THEN
            more_twins := more_twins - 1;
            more_versions := more_versions - OLD.persona_version;
            more_bytes := more_bytes - OLD.stored_bytes;
        END IF;
        IF who IS NULL OR more_twins = 0 AND more_versions = 0 AND more_bytes = 0 THEN
            RETURN NULL;
        END IF;
        INSERT INTO account_usage AS u (account, twins, versions, bytes)
        VALUES (who, more_twins, more_versions, more_bytes)
        ON CONFLICT (account) DO UPDATE SET
            twins = u.twins + EXCLUDED.twins, versions = u.versions + EXCLUDED.versions,
            bytes = u.bytes + EXCLUDED.bytes
        RETURNING u.twins INTO rest;
        IF rest <= 0 THEN
            DELETE FROM account_usage WHERE account = who;
        END IF;
        RETURN NULL;
    END $$
    """,
    """
    CREATE CONSTRAINT TRIGGER twins_usage
    AFTER INSERT OR UPDATE OF persona_version, stored_bytes, erased_at ON twins
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION count_usage()
    """,
    # Long ones alone: most consents have a notice of a sentence, and write no row more.
    """
    CREATE FUNCTION count_notice() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = public, pg_temp AS $$
    BEGIN
        UPDATE twins SET stored_bytes = stored_bytes
            + CASE WHEN octet_length(NEW.notice) > 1024 THEN octet_length(NEW.notice) ELSE 0 END
            - CASE WHEN TG_OP = 'UPDATE' AND octet_length(OLD.notice) > 1024 THEN octet_length(OLD.notice) ELSE 0 END
        WHERE id = NEW.twin_id AND erased_at IS NULL;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER notices_made AFTER INSERT ON notices
    FOR EACH ROW WHEN (octet_length(NEW.notice) > 1024) EXECUTE FUNCTION count_notice()
    """,
    """
    CREATE TRIGGER notices_changed AFTER UPDATE OF notice ON notices
    FOR EACH ROW WHEN (NEW.notice IS DISTINCT FROM OLD.notice) EXECUTE FUNCTION count_notice()
    """,
    # Without a lock: what commits at the same time may go beyond by as much as is under way. Not in SQL, which would be
    # inlined.
    """
    CREATE FUNCTION stores_at_most(p_account text, p_twins bigint, p_versions bigint, p_bytes bigint) RETURNS boolean
    LANGUAGE plpgsql STABLE AS $$
    BEGIN
        RETURN NOT EXISTS (
            SELECT FROM account_usage u
            WHERE u.account = p_account AND (u.twins > p_twins OR u.versions > p_versions OR u.bytes > p_bytes)
        );
    END $$
    """,
    # --- Twins by a part of their name -------------------------------------------------------------------
    # Both are trusted: the owner of the database may make them.
    "CREATE EXTENSION IF NOT EXISTS btree_gin",
    "CREATE EXTENSION IF NOT EXISTS pg_trgm",
    # With the owner in the index: what others call their twins costs an owner nothing. The list of pending entries is
    # short, since each search reads all of it, and who fills it sorts it in.
    """
    CREATE INDEX twins_owner_name_idx ON twins
    USING gin (owner, casefold(twin_name COLLATE pg_unicode_fast) gin_trgm_ops)
    WITH (gin_pending_list_limit = 256) WHERE owner IS NOT NULL
    """,
    # In no order, and by that index alone: without the settings the planner may read all twins of the owner.
    """
    CREATE FUNCTION twins_named(p_owner text, p_pattern text, p_before uuid, p_limit bigint) RETURNS SETOF uuid
    LANGUAGE plpgsql STABLE
    SET enable_seqscan = off SET enable_indexscan = off SET enable_indexonlyscan = off
    SET plan_cache_mode = force_custom_plan AS $$
    BEGIN
        RETURN QUERY SELECT f.id FROM (
            SELECT id FROM twins
            WHERE owner = p_owner AND casefold(twin_name COLLATE pg_unicode_fast) LIKE p_pattern OFFSET 0
        ) f WHERE f.id < p_before LIMIT p_limit;
    END $$
    """,
    # --- Privileges --------------------------------------------------------------------------------------
    "REVOKE ALL ON FUNCTION count_usage(), count_notice() FROM PUBLIC",
    """
    REVOKE ALL ON FUNCTION stores_at_most(text, bigint, bigint, bigint), twins_named(text, text, uuid, bigint)
    FROM PUBLIC
    """,
    """
    GRANT EXECUTE ON FUNCTION stores_at_most(text, bigint, bigint, bigint), twins_named(text, text, uuid, bigint)
    TO twins_serving
    """,
    "GRANT SELECT ON account_usage TO twins_serving",
    "GRANT UPDATE (stored_bytes) ON twins TO twins_serving",
)

_DOWN = (
    "DROP FUNCTION twins_named(text, text, uuid, bigint)",
    "DROP INDEX twins_owner_name_idx",
    "DROP EXTENSION pg_trgm",
    "DROP EXTENSION btree_gin",
    "DROP FUNCTION stores_at_most(text, bigint, bigint, bigint)",
    "DROP TRIGGER notices_made ON notices",
    "DROP TRIGGER notices_changed ON notices",
    "DROP TRIGGER twins_usage ON twins",
    "DROP FUNCTION count_usage(), count_notice()",
    "DROP TABLE account_usage",
    "ALTER TABLE twins DROP COLUMN stored_bytes",
)


def upgrade() -> None:
    connection = op.get_bind()
    refuse_to_run_beside(connection)
    for statement in _UP:
        connection.exec_driver_sql(statement)


def downgrade() -> None:
    connection = op.get_bind()
    refuse_to_run_beside(connection)
    for statement in _DOWN:
        connection.exec_driver_sql(statement)
