"""A no is a lock, history costs nothing, and the database guards consents, their states and the ledger itself.

The serving role changes them only through the functions below, each of which writes state and event in one.
"""

import logging
from collections.abc import Sequence
from typing import Any

from alembic import op
from sqlalchemy import Connection

from migrations.instances import refuse_to_run_beside

revision = "20261128_6"
down_revision = "20261128_5"

logger = logging.getLogger(__name__)

_TABLES = (
    "DROP FUNCTION decision_of",
    "DROP VIEW decisions, consent_records, live_twins, ledger_heads",
    # --- Twins ---------------------------------------------------------------------------------------
    """
    ALTER TABLE twins
        ADD COLUMN principals text[] NOT NULL DEFAULT '{}'
            CONSTRAINT twins_principals_few CHECK (cardinality(principals) <= 20),
        -- The ledger number of the last no to everything: each yes up to it has ended.
        ADD COLUMN stop_seq bigint,
        -- 0: nobody; 1: a person; 2: an account of `principals`, with a yes by its own token.
        -- squawk-ignore prefer-bigint-over-smallint
        ADD COLUMN spoken smallint NOT NULL DEFAULT 0,
        ADD COLUMN ledger_at timestamptz NOT NULL DEFAULT '-infinity',
        DROP CONSTRAINT twins_owner_length,
        ADD CONSTRAINT twins_owner_length CHECK (char_length(owner) BETWEEN 1 AND 511)
    """,
    # These tables have no foreign keys: only functions write them, with the twin locked.
    # The accounts that may say no, for ever: each one that `principals` or a consent ever named.
    """
    CREATE TABLE named_accounts (
        twin_id uuid NOT NULL,
        account text NOT NULL CONSTRAINT named_accounts_account_length CHECK (char_length(account) <= 511),
        named_at timestamptz NOT NULL,
        CONSTRAINT named_accounts_pkey PRIMARY KEY (twin_id, account)
    )
    """,
    "CREATE INDEX named_accounts_account_idx ON named_accounts (account, named_at)",
    # A salt for each line of renewals, so that it can be destroyed with it; for other events the twin's own, which
    # has the line of zeros. `since_seq`: the first event that it may have sealed.
    """
    CREATE TABLE salts (
        twin_id uuid NOT NULL,
        lineage uuid NOT NULL,
        salt bytea NOT NULL DEFAULT uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()),
        since_seq bigint NOT NULL,
        CONSTRAINT salts_pkey PRIMARY KEY (twin_id, lineage)
    )
    """,
    """
    INSERT INTO salts SELECT id, '00000000-0000-0000-0000-000000000000', salt, 1
    FROM twins WHERE ledger_seq > 0 AND salt IS NOT NULL
    """,
    """
    ALTER TABLE twins
        DROP CONSTRAINT twins_erased,
        DROP COLUMN salt,
        ADD CONSTRAINT twins_erased CHECK (
            CASE WHEN erased_at IS NULL
            THEN num_nulls(owner, twin_name, use_case, tone) = 0
            ELSE num_nonnulls(owner, twin_name, use_case, tone) = 0 AND principals = '{}' END
        )
    """,
    # --- Consents ------------------------------------------------------------------------------------
    # The text goes with the last line of renewals that shows it; its digest stays.
    """
    CREATE TABLE notices (
        twin_id uuid NOT NULL,
        sha256 bytea NOT NULL,
        notice text,
        CONSTRAINT notices_pkey PRIMARY KEY (twin_id, sha256),
        CONSTRAINT notices_sha256 CHECK (sha256 = sha256(convert_to(notice, 'UTF8')))
    )
    """,
    "INSERT INTO notices SELECT DISTINCT ON (twin_id, notice_sha256) twin_id, notice_sha256, notice_text FROM consents",
    # What has ended of a line of renewals, and by whom; a no to everything stands in `stops`.
    """
    CREATE TABLE withdrawals (
        twin_id uuid NOT NULL,
        lineage uuid NOT NULL,
        purpose text NOT NULL,
        withdrawn_at timestamptz NOT NULL,
        withdrawn_by text NOT NULL
            CONSTRAINT withdrawals_by CHECK (withdrawn_by IN ('principal', 'person', 'operator', 'owner')),
        CONSTRAINT withdrawals_pkey PRIMARY KEY (twin_id, lineage, purpose)
    )
    """,
    """
    INSERT INTO withdrawals
    SELECT twin_id, lineage, purpose, min(withdrawn_at), CASE WHEN bool_or(revoked) THEN 'owner' ELSE 'principal' END
    FROM consents, unnest(purposes) AS purpose WHERE withdrawn_at IS NOT NULL
    GROUP BY twin_id, lineage, purpose
    """,
    """
    CREATE TABLE stops (
        twin_id uuid NOT NULL,
        seq bigint NOT NULL,
        stopped_at timestamptz NOT NULL,
        account text,
        by_operator boolean NOT NULL,
        CONSTRAINT stops_pkey PRIMARY KEY (twin_id, seq)
    )
    """,
    """
    ALTER TABLE consents
        ADD COLUMN seq bigint,
        DROP CONSTRAINT consents_principal_length,
        ADD CONSTRAINT consents_principal_length CHECK (char_length(principal) <= 511)
    """,
    """
    UPDATE consents c SET seq = e.seq
    FROM (
        SELECT twin_id, seq, (event::json->>'consent_id')::uuid AS consent_id
        FROM consent_events WHERE event::json->>'type' IN ('given', 'renewed')
    ) e
    WHERE e.twin_id = c.twin_id AND e.consent_id = c.id
    """,
    # The state copies what decides, so that the gate joins nothing. `no`: what ended it last.
    """
    ALTER TABLE consent_states
        DROP CONSTRAINT consent_states_consent_id_fkey,
        ALTER COLUMN consent_id DROP NOT NULL,
        ADD COLUMN lineage uuid,
        ADD COLUMN seq bigint,
        ADD COLUMN no text CONSTRAINT consent_states_no CHECK (no IN ('withdrawn', 'refused')),
        ADD COLUMN account text,
        ADD COLUMN given_at timestamptz,
        ADD COLUMN not_before timestamptz,
        ADD COLUMN expires_at timestamptz
    """,
    """
    UPDATE consent_states s
    SET lineage = c.lineage, seq = c.seq, no = CASE WHEN c.withdrawn_at IS NOT NULL THEN 'withdrawn' END,
        account = c.principal, given_at = c.given_at, not_before = c.not_before, expires_at = c.expires_at
    FROM consents c WHERE c.id = s.consent_id
    """,
    # U+0001 is in no `sub`: what begins with it is the pseudonym of an erased person, one for each line of renewals.
    r"""
    UPDATE consents c SET principal = p.pseudonym
    FROM (
        SELECT twin_id, lineage, E'\x01erased:' || gen_random_uuid() AS pseudonym FROM consents
        WHERE principal ~ '^erased:[0-9a-f]{16}$' GROUP BY twin_id, lineage
    ) p
    WHERE p.twin_id = c.twin_id AND p.lineage = c.lineage
    """,
    """
    UPDATE consent_states s SET account = c.principal FROM consents c
    WHERE c.twin_id = s.twin_id AND c.id = s.consent_id AND c.principal <> s.account
    """,
    """
    INSERT INTO named_accounts
    SELECT twin_id, principal, min(given_at) FROM consents WHERE principal COLLATE "C" >= ' '
    GROUP BY twin_id, principal
    """,
    # --- A no ----------------------------------------------------------------------------------------
    # `purposes` NULL: everything, but for `exceptions`, the purposes that the opener has granted since.
    """
    CREATE TABLE locks (
        twin_id uuid NOT NULL,
        id uuid NOT NULL DEFAULT uuidv7(),
        opener text,
        opener_kind text NOT NULL CONSTRAINT locks_opener_kind CHECK (opener_kind IN ('account', 'operator', 'none')),
        purposes text[],
        exceptions text[] NOT NULL DEFAULT '{}',
        refused_at timestamptz NOT NULL,
        opened_at timestamptz,
        CONSTRAINT locks_pkey PRIMARY KEY (twin_id, id),
        CONSTRAINT locks_opener CHECK ((opener IS NOT NULL) = (opener_kind = 'account')),
        CONSTRAINT locks_purposes_few CHECK (cardinality(purposes) <= 100),
        CONSTRAINT locks_exceptions_few CHECK (cardinality(exceptions) <= 1000)
    )
    """,
    """
    CREATE UNIQUE INDEX locks_one_an_opener_idx ON locks (twin_id, opener_kind, opener) NULLS NOT DISTINCT
    WHERE opened_at IS NULL AND opener_kind <> 'none'
    """,
    "CREATE INDEX locks_standing_idx ON locks (twin_id, id) WHERE opened_at IS NULL",
    "CREATE INDEX locks_opener_idx ON locks (opener, refused_at) WHERE opener IS NOT NULL",
    # In plain text until the job is complete, which reads it; then only the keyed digest.
    """
    CREATE TABLE erased_accounts (
        id uuid NOT NULL DEFAULT uuidv7() CONSTRAINT erased_accounts_pkey PRIMARY KEY,
        account text,
        actor text,
        digest bytea NOT NULL,
        erased_at timestamptz NOT NULL,
        erasure_id uuid NOT NULL CONSTRAINT erased_accounts_erasure_id_fkey REFERENCES erasures
    )
    """,
    "CREATE INDEX erased_accounts_account_idx ON erased_accounts (account, erased_at) WHERE account IS NOT NULL",
    "CREATE INDEX erased_accounts_digest_idx ON erased_accounts (digest, erased_at)",
    "CREATE UNIQUE INDEX erased_accounts_erasure_id_idx ON erased_accounts (erasure_id)",
    # The steps of an erasure, in this order, and the last twin that the present one has done.
    """
    ALTER TABLE erasures
        ADD COLUMN step text NOT NULL DEFAULT 'rows' CONSTRAINT erasures_step
            CHECK (step IN ('twins', 'rows', 'person', 'documents', 'proof', 'complete')),
        ADD COLUMN after uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000'
    """,
    """
    UPDATE erasures
    SET step = CASE WHEN completed_at IS NOT NULL THEN 'complete' WHEN sweeps > 0 THEN 'proof' ELSE 'rows' END
    """,
    """
    ALTER TABLE erasures
        DROP COLUMN sweeps,
        ADD CONSTRAINT erasures_step_complete CHECK ((step = 'complete') = (completed_at IS NOT NULL))
    """,
    "CREATE INDEX erasures_owner_digest_idx ON erasures (owner_digest, id)",
    "DROP INDEX erased_twins_erasure_id_idx",
    "CREATE INDEX erased_twins_erasure_id_twin_id_idx ON erased_twins (erasure_id, twin_id)",
    # The tree over the ledgers of an erasure's twins, by pieces of 1,024 leaves.
    """
    CREATE TABLE erased_ledgers (
        erasure_id uuid NOT NULL CONSTRAINT erased_ledgers_erasure_id_fkey REFERENCES erasures,
        piece bigint NOT NULL,
        after uuid NOT NULL,
        last uuid NOT NULL,
        leaves bigint NOT NULL,
        root bytea NOT NULL,
        CONSTRAINT erased_ledgers_pkey PRIMARY KEY (erasure_id, piece)
    )
    """,
    # --- The end of what is copied -------------------------------------------------------------------
    """
    ALTER TABLE consents
        DROP COLUMN notice_text, DROP COLUMN replaced_by, DROP COLUMN withdrawn_at, DROP COLUMN revoked,
        DROP CONSTRAINT consents_pkey,
        ADD CONSTRAINT consents_pkey PRIMARY KEY (twin_id, id),
        ALTER COLUMN seq SET NOT NULL
    """,
    "DROP INDEX consents_twin_id_id_idx, consents_lineage_idx, consent_states_consent_id_idx",
    # Not with twin_id first: where twins have one consent each, all such indexes cost the planner the same, and a
    # consent was found by its twin and id through one of these, which reads every consent of the twin.
    "CREATE INDEX consents_lineage_id_idx ON consents (lineage, id)",
    "CREATE UNIQUE INDEX consents_renews_idx ON consents (renews, twin_id) WHERE renews IS NOT NULL",
    # Of the consents with a notice, those of people who are not erased come last: no `sub` begins below U+0020.
    'CREATE INDEX consents_notice_idx ON consents (notice_sha256, twin_id, principal COLLATE "C")',
    # --- The ledger ----------------------------------------------------------------------------------
    """
    ALTER TABLE consent_events
        ADD CONSTRAINT consent_events_twin_id_fkey FOREIGN KEY (twin_id) REFERENCES twins,
        ADD CONSTRAINT consent_events_hash CHECK (hash = sha256(convert_to(event, 'UTF8')))
    """,
    "ALTER TABLE consent_events ENABLE ALWAYS TRIGGER consent_events_append_only",
    "ALTER TABLE consent_events ENABLE ALWAYS TRIGGER consent_events_keep",
    # The verification of all ledgers: `after` is the last twin of the running round, NULL between two.
    """
    CREATE TABLE ledger_rounds (
        one boolean NOT NULL DEFAULT true
            CONSTRAINT ledger_rounds_pkey PRIMARY KEY CONSTRAINT ledger_rounds_one CHECK (one),
        begun_at timestamptz NOT NULL DEFAULT now(),
        ended_at timestamptz NOT NULL DEFAULT now(),
        leased_until timestamptz NOT NULL DEFAULT now(),
        after uuid,
        verified bigint NOT NULL DEFAULT 0,
        skipped bigint NOT NULL DEFAULT 0,
        broken bigint NOT NULL DEFAULT 0,
        last_broken bigint NOT NULL DEFAULT 0
    )
    """,
    "INSERT INTO ledger_rounds DEFAULT VALUES",
    """
    UPDATE twins t SET ledger_at = (e.event::json->>'at')::timestamptz
    FROM consent_events e WHERE e.twin_id = t.id AND e.seq = t.ledger_seq
    """,
)

_READ = (
    # --- The meaning of what is stored ----------------------------------------------------------------
    # For functions; the planner inlines no function with a subquery into a view.
    """
    CREATE FUNCTION account_erased(p_account text, p_since timestamptz) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
    BEGIN
        RETURN EXISTS (SELECT FROM erased_accounts e WHERE e.account = p_account AND e.erased_at >= p_since);
    END $$
    """,
    # Whoever gets an erased account's name is somebody else.
    """
    CREATE FUNCTION is_named(twin uuid, account text) RETURNS boolean LANGUAGE sql STABLE AS $$
        SELECT EXISTS (
            SELECT FROM named_accounts n
            WHERE n.twin_id = $1 AND n.account = $2 AND NOT account_erased(n.account, n.named_at)
        )
    $$
    """,
    # The erasure that has, or soon will have, each twin that is gone.
    """
    CREATE VIEW twin_erasures AS
    SELECT twin_id, erasure_id FROM erased_twins
    UNION ALL
    SELECT t.id, a.erasure_id FROM twins t JOIN erased_accounts a ON a.account = t.owner AND a.erased_at >= t.created_at
    """,
    """
    CREATE VIEW live_twins AS
    SELECT id, owner, twin_name, use_case, tone, principals, stop_seq, spoken, version, persona_version, created_at,
           updated_at
    FROM twins t WHERE erased_at IS NULL AND NOT EXISTS (
        SELECT FROM erased_accounts e WHERE e.account = t.owner AND e.erased_at >= t.created_at
    )
    """,
    # Erased twins have a ledger too.
    """
    CREATE VIEW ledger_heads AS
    SELECT t.id AS twin_id, l.owner, t.ledger_seq AS seq, t.ledger_hash AS hash, t.stop_seq, t.spoken,
           t.erased_at IS NOT NULL AS is_erased
    FROM twins t LEFT JOIN live_twins l ON l.id = t.id
    """,
    # The rule. By the clock at the start of the statement: now() would be that of the transaction, which may have
    # waited for a lock while consent was withdrawn. The planner inlines this function. The limit changes no answer,
    # and keeps the planner from reading all purposes of a twin that has many.
    """
    CREATE FUNCTION decision_of(twin uuid, stop_seq bigint, asked text)
    RETURNS TABLE (consent_id uuid, expires_at timestamptz, reason text) LANGUAGE sql STABLE AS $$
        SELECT s.consent_id, s.expires_at,
            CASE
                WHEN s.no IS NOT NULL THEN s.no
                WHEN EXISTS (
                    SELECT FROM erased_accounts e WHERE e.account = s.account AND e.erased_at >= s.given_at
                ) THEN 'withdrawn'
                WHEN coalesce(s.seq, 0) <= stop_seq THEN 'refused'
                WHEN s.consent_id IS NULL THEN 'no_consent'
                WHEN s.expires_at <= statement_timestamp() THEN 'expired'
                WHEN s.not_before > statement_timestamp() THEN 'not_yet_valid'
                ELSE 'granted'
            END
        FROM (VALUES (true)) one LEFT JOIN LATERAL (
            SELECT * FROM consent_states WHERE twin_id = twin AND purpose = asked LIMIT 1
        ) s ON true
    $$
    """,
    """
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
        SELECT ended_at, ended_by FROM (
            (SELECT s.stopped_at AS ended_at,
                    CASE WHEN s.by_operator THEN 'operator' WHEN s.account = c.principal THEN 'principal'
                    ELSE 'person' END AS ended_by
             FROM stops s WHERE s.twin_id = c.twin_id AND s.seq > c.seq ORDER BY s.seq LIMIT 1)
            UNION ALL
            (SELECT e.erased_at, 'principal' FROM erased_accounts e
             WHERE e.account = c.principal AND e.erased_at >= c.given_at ORDER BY e.erased_at LIMIT 1)
        ) f ORDER BY ended_at LIMIT 1
    ) s ON true
    CROSS JOIN LATERAL (
        SELECT count(*) AS number, coalesce(json_agg(json_build_object(
            'purpose', p.purpose, 'at', coalesce(w.withdrawn_at, s.ended_at),
            'by', coalesce(w.withdrawn_by, s.ended_by)) ORDER BY p.place), '[]') AS withdrawn
        FROM unnest(c.purposes) WITH ORDINALITY AS p (purpose, place)
        LEFT JOIN LATERAL (
            SELECT withdrawn_at, withdrawn_by FROM withdrawals w
            WHERE w.twin_id = c.twin_id AND w.lineage = c.lineage AND w.purpose = p.purpose LIMIT 1
        ) w ON true
        WHERE w.withdrawn_at IS NOT NULL OR s.ended_at IS NOT NULL
    ) w
    """,
    # Whoever said it stays with the table.
    """
    CREATE VIEW standing_locks AS
    SELECT twin_id, id, purposes, exceptions, refused_at,
           CASE WHEN is_gone THEN 'none' ELSE opener_kind END AS opener_kind,
           CASE WHEN NOT is_gone THEN opener END AS opener
    FROM locks CROSS JOIN LATERAL (SELECT opener IS NOT NULL AND account_erased(opener, refused_at) AS is_gone) e
    WHERE opened_at IS NULL
    """,
    # --- What verification compares with the events ----------------------------------------------------
    """
    CREATE VIEW ledger_consents AS
    SELECT c.twin_id, c.id, c.lineage, c.renews, c.seq, c.principal, c.method, c.purposes, c.notice_version,
           c.notice_language, c.notice_sha256, c.given_at, c.not_before, c.expires_at,
           (SELECT n.notice IS NULL OR n.sha256 = sha256(convert_to(n.notice, 'UTF8')) FROM notices n
            WHERE n.twin_id = c.twin_id AND n.sha256 = c.notice_sha256) AS notice_holds,
           (SELECT r.purposes FROM consents r WHERE r.twin_id = c.twin_id AND r.id = c.lineage) AS line_purposes,
           (SELECT s.salt FROM salts s WHERE s.twin_id = c.twin_id AND s.lineage = c.lineage) AS salt,
           (SELECT s.since_seq FROM salts s WHERE s.twin_id = c.twin_id AND s.lineage = c.lineage) AS since_seq
    FROM consents c
    """,
    """
    CREATE VIEW ledger_salts AS
    SELECT twin_id, salt, since_seq FROM salts WHERE lineage = '00000000-0000-0000-0000-000000000000'
    """,
    # `is_copy`: what decides is what the consent says. The erasure of its person empties the account.
    """
    CREATE VIEW ledger_states AS
    SELECT s.twin_id, s.purpose, s.consent_id, s.seq, s.no, s.consent_id IS NULL OR EXISTS (
        SELECT FROM consents c
        WHERE c.twin_id = s.twin_id AND c.id = s.consent_id AND c.lineage = s.lineage AND c.seq = s.seq
          AND c.given_at = s.given_at AND (c.principal = s.account OR s.account IS NULL AND s.no IS NOT NULL)
          AND (c.not_before, c.expires_at) IS NOT DISTINCT FROM (s.not_before, s.expires_at)
    ) AS is_copy
    FROM consent_states s
    """,
    "CREATE VIEW ledger_withdrawals AS SELECT twin_id, lineage, purpose, withdrawn_at, withdrawn_by FROM withdrawals",
    "CREATE VIEW ledger_stops AS SELECT twin_id, seq, stopped_at, by_operator FROM stops",
    """
    CREATE VIEW ledger_locks AS
    SELECT twin_id, id, opener, opener_kind, purposes, exceptions, refused_at, opened_at FROM locks
    """,
)

_WRITE = (
    # --- Digests -------------------------------------------------------------------------------------
    # HMAC-SHA-256 (RFC 2104) with a key of 32 bytes; there is none in the server without an extension.
    """
    CREATE FUNCTION seal(salt bytea, message text) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT AS $$
    DECLARE
        inner_pad constant bigint := x'3636363636363636'::bigint;
        outer_pad constant bigint := x'5c5c5c5c5c5c5c5c'::bigint;
        a constant bigint := substr(salt, 1, 8)::bigint;
        b constant bigint := substr(salt, 9, 8)::bigint;
        c constant bigint := substr(salt, 17, 8)::bigint;
        d constant bigint := substr(salt, 25, 8)::bigint;
    BEGIN
        RETURN encode(sha256(
            (a # outer_pad)::bytea || (b # outer_pad)::bytea || (c # outer_pad)::bytea || (d # outer_pad)::bytea
            || decode(repeat('5c', 32), 'hex') || sha256(
                (a # inner_pad)::bytea || (b # inner_pad)::bytea || (c # inner_pad)::bytea || (d # inner_pad)::bytea
                || decode(repeat('36', 32), 'hex') || convert_to(message, 'UTF8'))), 'hex');
    END $$
    """,
    """
    CREATE FUNCTION moment_text(moment timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
        SELECT to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
    $$
    """,
    """
    CREATE FUNCTION sealed_list(salt bytea, texts text[]) RETURNS text LANGUAGE sql STABLE AS $$
        SELECT '[' || coalesce(string_agg('"' || seal(salt, t) || '"', ',' ORDER BY t COLLATE "C"), '') || ']'
        FROM unnest(texts) AS t
    $$
    """,
    """
    CREATE FUNCTION account_key(account text) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
        SELECT hashtextextended(account, 7823917)
    $$
    """,
    """
    CREATE FUNCTION salt_of(p_twin uuid, p_lineage uuid, p_seq bigint) RETURNS bytea LANGUAGE plpgsql AS $$
    DECLARE found bytea;
    BEGIN
        SELECT salt INTO found FROM salts WHERE twin_id = p_twin AND lineage = p_lineage;
        IF found IS NULL THEN
            INSERT INTO salts (twin_id, lineage, since_seq) VALUES (p_twin, p_lineage, p_seq)
            RETURNING salt INTO found;
        END IF;
        RETURN found;
    END $$
    """,
    # The members stand in the order of RFC 8785. jsonb would order them by length.
    """
    CREATE FUNCTION append_event(
        p_twin uuid, p_kind text, p_actor text, p_salt bytea, p_at timestamptz, p_by text DEFAULT NULL,
        p_consent uuid DEFAULT NULL, p_erasure uuid DEFAULT NULL, p_lock uuid DEFAULT NULL,
        p_purposes text DEFAULT NULL, p_renews uuid DEFAULT NULL, p_terms text DEFAULT NULL
    ) RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE
        head record;
        event text;
        digest bytea;
    BEGIN
        SELECT ledger_seq, ledger_hash INTO head FROM twins WHERE id = p_twin;
        event := format('{"actor":"%s","at":"%s"', seal(p_salt, p_actor), moment_text(p_at))
            || coalesce(',"by":"' || p_by || '"', '')
            || coalesce(',"consent_id":"' || p_consent || '"', '')
            || coalesce(',"erasure_id":"' || p_erasure || '"', '')
            || coalesce(',"lock_id":"' || p_lock || '"', '')
            || ',"prev_hash":"' || encode(head.ledger_hash, 'hex') || '"'
            || coalesce(',"purposes":' || p_purposes, '')
            || coalesce(',"renews":"' || p_renews || '"', '')
            || ',"seq":' || head.ledger_seq + 1
            || coalesce(',"terms":"' || p_terms || '"', '')
            || format(',"twin_id":"%s","type":"%s","v":2}', p_twin, p_kind);
        digest := sha256(convert_to(event, 'UTF8'));
        INSERT INTO consent_events (twin_id, seq, event, hash) VALUES (p_twin, head.ledger_seq + 1, event, digest);
        UPDATE twins SET ledger_seq = head.ledger_seq + 1, ledger_hash = digest, ledger_at = p_at,
                         version = version + 1, updated_at = greatest(p_at, updated_at)
        WHERE id = p_twin;
        RETURN head.ledger_seq + 1;
    END $$
    """,
    # --- Twins ---------------------------------------------------------------------------------------
    # Behind the account's lock: an erasure of the account is either before the twin, or sees it.
    """
    CREATE FUNCTION time_twin() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock_shared(account_key(NEW.owner));
        NEW.created_at := clock_timestamp();
        NEW.updated_at := NEW.created_at;
        RETURN NEW;
    END $$
    """,
    "CREATE TRIGGER twins_time BEFORE INSERT ON twins FOR EACH ROW EXECUTE FUNCTION time_twin()",
    "ALTER TABLE twins ENABLE ALWAYS TRIGGER twins_time",
    """
    CREATE FUNCTION name_principals() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DECLARE
        -- Those that were listed before stay so: an erasure of the account takes them.
        listed constant text[] := ARRAY(
            SELECT p FROM unnest(NEW.principals) AS p WHERE TG_OP = 'INSERT' OR p <> ALL (OLD.principals) ORDER BY p
        );
        one text;
    BEGIN
        FOREACH one IN ARRAY listed LOOP
            PERFORM pg_advisory_xact_lock_shared(account_key(one));
        END LOOP;
        INSERT INTO named_accounts (twin_id, account, named_at)
        SELECT NEW.id, p, clock_timestamp() FROM unnest(listed) AS p
        ON CONFLICT (twin_id, account) DO UPDATE SET named_at = EXCLUDED.named_at;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER twins_principals AFTER INSERT OR UPDATE OF principals ON twins
    FOR EACH ROW WHEN (NEW.principals <> '{}') EXECUTE FUNCTION name_principals()
    """,
    "ALTER TABLE twins ENABLE ALWAYS TRIGGER twins_principals",
    # The owner is the account for which the actor acts: the actor's own, that of an organisation, or NULL.
    # --- A yes ---------------------------------------------------------------------------------------
    """
    CREATE FUNCTION give_consent(
        p_twin uuid, p_owner text, p_actor text, p_person text, p_person_digest bytea, p_method text, p_purposes text[],
        p_version text, p_language text, p_notice text, p_not_before timestamptz, p_expires_at timestamptz,
        p_renews uuid
    ) RETURNS TABLE (problem text, consent_id uuid, purpose text)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    #variable_conflict use_column
    DECLARE
        t record;
        mine record;
        live record;
        made constant uuid := uuidv7();
        line uuid := made;
        is_listed boolean;
        is_for_owner boolean;
        is_owners_word boolean;
        opened text[];
        moment timestamptz;
        digest constant bytea := sha256(convert_to(p_notice, 'UTF8'));
        line_salt bytea;
        terms text;
        number bigint;
    BEGIN
        SELECT owner, principals, stop_seq, spoken, created_at, ledger_seq, ledger_at INTO t
        FROM twins WHERE id = p_twin AND erased_at IS NULL FOR NO KEY UPDATE;
        IF NOT FOUND OR account_erased(t.owner, t.created_at) THEN
            RETURN QUERY SELECT 'not_found', NULL::uuid, NULL::text;
            RETURN;
        END IF;
        is_listed := p_actor = ANY (t.principals);
        is_for_owner := t.owner IS NOT DISTINCT FROM p_owner;
        IF NOT is_for_owner AND NOT is_listed AND NOT is_named(p_twin, p_actor) THEN
            RETURN QUERY SELECT 'not_found', NULL::uuid, NULL::text;
            RETURN;
        END IF;
        IF NOT is_for_owner AND p_person <> p_actor THEN
            RETURN QUERY SELECT 'not_yourself', NULL::uuid, NULL::text;
            RETURN;
        END IF;
        PERFORM pg_advisory_xact_lock_shared(account_key(p_person));  -- after the twin's: no deadlock
        is_owners_word := is_for_owner AND NOT (is_listed AND p_person = p_actor);
        IF is_owners_word AND (t.spoken > 0 OR p_person <> p_actor AND EXISTS (
            SELECT FROM erased_accounts e WHERE e.digest = p_person_digest
        )) THEN
            RETURN QUERY SELECT 'person_must_consent', NULL::uuid, NULL::text;
            RETURN;
        END IF;
        -- The erasure of an account that the twin names is a no, of which its job has yet to write what it covers.
        IF EXISTS (
            SELECT FROM erased_accounts e JOIN named_accounts n ON n.twin_id = p_twin AND n.account = e.account
            WHERE e.account IS NOT NULL AND e.account <> p_actor AND e.erased_at >= n.named_at
        ) THEN
            RETURN QUERY SELECT 'locked', NULL::uuid, NULL::text;
            RETURN;
        END IF;
        SELECT l.id, l.purposes, l.exceptions INTO mine FROM locks l
        WHERE l.twin_id = p_twin AND l.opened_at IS NULL AND l.opener_kind = 'account' AND l.opener = p_actor
          AND p_person = p_actor AND NOT account_erased(l.opener, l.refused_at);
        IF EXISTS (
            SELECT FROM locks l
            WHERE l.twin_id = p_twin AND l.opened_at IS NULL AND l.id IS DISTINCT FROM mine.id
              AND (l.purposes && p_purposes OR l.purposes IS NULL AND NOT p_purposes <@ l.exceptions)
        ) THEN
            RETURN QUERY SELECT 'locked', NULL::uuid, NULL::text;
            RETURN;
        END IF;
        moment := greatest(clock_timestamp(), t.ledger_at);
        IF p_renews IS NULL THEN
            SELECT s.consent_id, s.purpose INTO live
            FROM unnest(p_purposes) AS asked CROSS JOIN LATERAL (
                SELECT * FROM consent_states WHERE twin_id = p_twin AND purpose = asked LIMIT 1
            ) s
            WHERE s.no IS NULL AND s.consent_id IS NOT NULL AND s.seq > coalesce(t.stop_seq, 0)
              AND (s.expires_at IS NULL OR s.expires_at > moment) AND NOT account_erased(s.account, s.given_at)
            LIMIT 1;
            IF FOUND THEN
                RETURN QUERY SELECT 'consent_active', live.consent_id, live.purpose;
                RETURN;
            END IF;
        ELSE
            SELECT c.lineage INTO line FROM consents c
            WHERE c.twin_id = p_twin AND c.id = p_renews AND c.principal = p_person AND p_purposes <@ c.purposes
              AND NOT EXISTS (SELECT FROM consents r WHERE r.twin_id = p_twin AND r.renews = p_renews)
              AND NOT account_erased(c.principal, c.given_at)
              AND cardinality(p_purposes) = (
                  SELECT count(*) FROM unnest(p_purposes) AS asked CROSS JOIN LATERAL (
                      SELECT * FROM consent_states WHERE twin_id = p_twin AND purpose = asked LIMIT 1
                  ) s
                  WHERE s.consent_id = p_renews AND s.no IS NULL AND s.seq > coalesce(t.stop_seq, 0)
              );
            IF NOT FOUND THEN
                RETURN QUERY SELECT 'consent_ended', p_renews, NULL::text;
                RETURN;
            END IF;
        END IF;
        IF p_expires_at <= greatest(moment, p_not_before) THEN
            RETURN QUERY SELECT 'expires_too_early', NULL::uuid, NULL::text;
            RETURN;
        END IF;

        -- A lock whose opener says yes opens for what the yes grants, and for no more.
        IF mine.id IS NOT NULL THEN
            SELECT array_agg(asked) INTO opened FROM unnest(p_purposes) AS asked
            WHERE CASE WHEN mine.purposes IS NULL THEN asked <> ALL (mine.exceptions)
                  ELSE asked = ANY (mine.purposes) END;
        END IF;
        IF opened IS NOT NULL THEN
            IF mine.purposes IS NULL AND cardinality(mine.exceptions || opened) > 1000 THEN
                RETURN QUERY SELECT 'too_many_exceptions', NULL::uuid, NULL::text;
                RETURN;
            END IF;
            UPDATE locks l
            SET exceptions = CASE WHEN l.purposes IS NULL THEN l.exceptions || opened ELSE '{}' END,
                purposes = (SELECT array_agg(p) FROM unnest(l.purposes) AS p WHERE p <> ALL (opened))
            WHERE l.twin_id = p_twin AND l.id = mine.id AND (l.purposes IS NULL OR NOT l.purposes <@ opened);
            UPDATE locks l SET opened_at = moment
            WHERE l.twin_id = p_twin AND l.id = mine.id AND l.purposes <@ opened;
            line_salt := salt_of(p_twin, '00000000-0000-0000-0000-000000000000', t.ledger_seq + 1);
            PERFORM append_event(p_twin, 'opened', p_actor, line_salt, moment, p_by => 'person', p_lock => mine.id,
                                 p_purposes => sealed_list(line_salt, opened));
            t.ledger_seq := t.ledger_seq + 1;
        END IF;

        INSERT INTO notices AS n (twin_id, sha256, notice) VALUES (p_twin, digest, p_notice)
        ON CONFLICT (twin_id, sha256) DO UPDATE SET notice = EXCLUDED.notice WHERE n.notice IS NULL;
        INSERT INTO named_accounts AS n (twin_id, account, named_at) VALUES (p_twin, p_person, moment)
        ON CONFLICT (twin_id, account) DO UPDATE SET named_at = EXCLUDED.named_at
        WHERE account_erased(n.account, n.named_at);
        line_salt := salt_of(p_twin, line, t.ledger_seq + 1);
        INSERT INTO consents (id, twin_id, lineage, renews, seq, principal, method, purposes, notice_version,
                              notice_language, notice_sha256, given_at, not_before, expires_at)
        VALUES (made, p_twin, line, p_renews, t.ledger_seq + 1, p_person, p_method, p_purposes, p_version,
                p_language, digest, moment, p_not_before, p_expires_at);
        INSERT INTO consent_states (twin_id, purpose, consent_id, lineage, seq, account, given_at, not_before,
                                    expires_at)
        SELECT p_twin, asked, made, line, t.ledger_seq + 1, p_person, moment, p_not_before, p_expires_at
        FROM unnest(p_purposes) AS asked
        ON CONFLICT (twin_id, purpose) DO UPDATE SET
            consent_id = EXCLUDED.consent_id, lineage = EXCLUDED.lineage, seq = EXCLUDED.seq, no = NULL,
            account = EXCLUDED.account, given_at = EXCLUDED.given_at, not_before = EXCLUDED.not_before,
            expires_at = EXCLUDED.expires_at;
        terms := '{"expires_at":' || coalesce('"' || moment_text(p_expires_at) || '"', 'null')
            || ',"method":' || to_json(p_method)
            || ',"not_before":' || coalesce('"' || moment_text(p_not_before) || '"', 'null')
            || ',"notice_language":' || to_json(p_language)
            || ',"notice_sha256":"' || encode(digest, 'hex')
            || '","notice_version":' || to_json(p_version)
            || ',"principal":' || to_json(p_person)
            || ',"purposes":' || to_json(p_purposes) || '}';
        PERFORM append_event(p_twin, CASE WHEN p_renews IS NULL THEN 'given' ELSE 'renewed' END, p_actor, line_salt,
                             moment, p_consent => made, p_renews => p_renews, p_terms => seal(line_salt, terms));
        number := CASE WHEN is_owners_word THEN 0 WHEN is_listed THEN 2 ELSE 1 END;
        IF number > t.spoken THEN
            UPDATE twins SET spoken = number WHERE id = p_twin;
        END IF;
        RETURN QUERY SELECT NULL::text, made, NULL::text;
    END $$
    """,
    # --- A no ----------------------------------------------------------------------------------------
    # With the twin locked, and the right of the actor known.
    """
    CREATE FUNCTION place_lock(
        p_twin uuid, p_actor text, p_kind text, p_purposes text[], p_consent uuid, p_lineage uuid,
        OUT lock_id uuid, OUT is_made boolean, OUT said_at timestamptz
    ) LANGUAGE plpgsql AS $$
    #variable_conflict use_column
    DECLARE
        t record;
        held record;
        wanted text[] := p_purposes;
        moment timestamptz;
        salt bytea;
        number bigint;
        speaker constant text := CASE WHEN p_kind = 'operator' THEN 'operator' ELSE 'person' END;
    BEGIN
        SELECT ledger_seq, ledger_at INTO t FROM twins WHERE id = p_twin;
        moment := greatest(clock_timestamp(), t.ledger_at);
        is_made := false;
        SELECT l.id, l.purposes, l.exceptions INTO held FROM locks l
        WHERE l.twin_id = p_twin AND l.opened_at IS NULL AND l.opener_kind = p_kind AND p_kind <> 'none'
          AND l.opener IS NOT DISTINCT FROM CASE WHEN p_kind = 'account' THEN p_actor END;
        lock_id := held.id;
        IF held.id IS NULL THEN
            lock_id := uuidv7();
            is_made := true;
            INSERT INTO locks (twin_id, id, opener, opener_kind, purposes, refused_at)
            VALUES (p_twin, lock_id, CASE WHEN p_kind = 'account' THEN p_actor END, p_kind, wanted, moment);
        ELSIF held.purposes IS NULL THEN
            IF held.exceptions = '{}' OR NOT held.exceptions && wanted THEN
                RETURN;  -- the same no again
            END IF;
            -- The rest is refused already. A withdrawal goes on to name all that it ends of its line.
            IF p_consent IS NULL AND wanted IS NOT NULL THEN
                wanted := ARRAY(SELECT e FROM unnest(held.exceptions) AS e WHERE e = ANY (wanted));
            END IF;
            UPDATE locks l SET exceptions = (
                SELECT coalesce(array_agg(e), '{}') FROM unnest(l.exceptions) AS e WHERE e <> ALL (wanted)
            ) WHERE l.twin_id = p_twin AND l.id = held.id;
        ELSIF wanted <@ held.purposes THEN
            RETURN;
        ELSE
            IF cardinality(ARRAY(SELECT unnest(held.purposes) UNION SELECT unnest(wanted))) > 100 THEN
                wanted := NULL;
            END IF;
            UPDATE locks l
            SET purposes = CASE WHEN wanted IS NOT NULL THEN
                ARRAY(SELECT unnest(held.purposes) UNION SELECT unnest(wanted)) END
            WHERE l.twin_id = p_twin AND l.id = held.id;
        END IF;

        said_at := moment;
        IF p_lineage IS NULL THEN
            salt := salt_of(p_twin, '00000000-0000-0000-0000-000000000000', t.ledger_seq + 1);
        ELSE
            salt := salt_of(p_twin, p_lineage, t.ledger_seq + 1);
        END IF;
        number := append_event(
            p_twin, CASE WHEN p_consent IS NULL THEN 'refused' ELSE 'withdrawn' END, p_actor, salt, moment,
            p_by => speaker, p_consent => p_consent, p_lock => lock_id,
            p_purposes => CASE WHEN wanted IS NULL THEN 'null' ELSE sealed_list(salt, wanted) END
        );
        IF wanted IS NULL THEN
            INSERT INTO stops (twin_id, seq, stopped_at, account, by_operator)
            VALUES (p_twin, number, moment, CASE WHEN p_kind <> 'operator' THEN p_actor END, p_kind = 'operator');
            UPDATE twins SET stop_seq = number, spoken = greatest(spoken, 1) WHERE id = p_twin;
        ELSE
            UPDATE twins SET spoken = 1 WHERE id = p_twin AND spoken = 0;
        END IF;
        INSERT INTO withdrawals (twin_id, lineage, purpose, withdrawn_at, withdrawn_by)
        SELECT p_twin, s.lineage, s.purpose, moment,
               CASE WHEN p_kind <> 'operator' AND s.account = p_actor THEN 'principal' ELSE speaker END
        FROM unnest(wanted) AS asked CROSS JOIN LATERAL (
            SELECT * FROM consent_states WHERE twin_id = p_twin AND purpose = asked LIMIT 1
        ) s WHERE s.lineage IS NOT NULL
        ON CONFLICT (twin_id, lineage, purpose) DO NOTHING;
        INSERT INTO consent_states AS s (twin_id, purpose, no)
        SELECT p_twin, asked, 'refused' FROM unnest(wanted) AS asked
        ON CONFLICT (twin_id, purpose) DO UPDATE
        SET no = CASE WHEN s.lineage = p_lineage THEN 'withdrawn' ELSE 'refused' END;
    END $$
    """,
    """
    CREATE FUNCTION say_no(
        p_twin uuid, p_owner text, p_actor text, p_is_operator boolean, p_purposes text[], p_consent uuid
    ) RETURNS TABLE (problem text, lock_id uuid, is_made boolean, is_changed boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    #variable_conflict use_column
    DECLARE
        t record;
        given_lineage uuid;
        given_principal text;
        given_purposes text[];
        placed record;
        wanted text[] := p_purposes;
        latest uuid;
    BEGIN
        SELECT owner, principals, created_at INTO t
        FROM twins WHERE id = p_twin AND erased_at IS NULL FOR NO KEY UPDATE;
        IF NOT FOUND OR account_erased(t.owner, t.created_at) OR NOT p_is_operator
           AND NOT is_named(p_twin, p_actor) THEN
            RETURN QUERY SELECT 'not_found', NULL::uuid, NULL::boolean, NULL::boolean;
            RETURN;
        END IF;
        IF p_consent IS NOT NULL THEN
            SELECT c.lineage, c.principal, root.purposes INTO given_lineage, given_principal, given_purposes
            FROM consents c JOIN consents root ON root.twin_id = c.twin_id AND root.id = c.lineage
            WHERE c.twin_id = p_twin AND c.id = p_consent;
            IF NOT FOUND OR NOT p_is_operator AND given_principal <> p_actor
               AND NOT (t.owner IS NOT DISTINCT FROM p_owner AND p_actor = ANY (t.principals)) THEN
                RETURN QUERY SELECT 'not_found', NULL::uuid, NULL::boolean, NULL::boolean;
                RETURN;
            END IF;
            wanted := coalesce(wanted, given_purposes);
            IF NOT wanted <@ given_purposes THEN
                RETURN QUERY SELECT 'foreign_purpose', NULL::uuid, NULL::boolean, NULL::boolean;
                RETURN;
            END IF;
            SELECT id INTO latest FROM consents c WHERE c.twin_id = p_twin AND c.lineage = given_lineage
            ORDER BY c.id DESC LIMIT 1;
        END IF;
        placed := place_lock(p_twin, p_actor, CASE WHEN p_is_operator THEN 'operator' ELSE 'account' END, wanted,
                             latest, given_lineage);
        IF given_lineage IS NOT NULL AND placed.said_at IS NOT NULL THEN
            -- Of purposes too that another consent holds by now, or that an earlier no has ended.
            INSERT INTO withdrawals (twin_id, lineage, purpose, withdrawn_at, withdrawn_by)
            SELECT p_twin, given_lineage, asked, placed.said_at,
                   CASE WHEN p_is_operator THEN 'operator' WHEN given_principal = p_actor THEN 'principal'
                   ELSE 'person' END
            FROM unnest(wanted) AS asked
            ON CONFLICT (twin_id, lineage, purpose) DO NOTHING;
        END IF;
        RETURN QUERY SELECT NULL::text, placed.lock_id, placed.is_made, placed.said_at IS NOT NULL;
    END $$
    """,
    """
    CREATE FUNCTION revoke_consent(p_twin uuid, p_owner text, p_actor text, p_consent uuid, p_purposes text[])
    RETURNS TABLE (problem text, is_changed boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    #variable_conflict use_column
    DECLARE
        t record;
        given record;
        wanted text[];
        fresh text[];
        latest record;
        moment timestamptz;
        salt bytea;
    BEGIN
        SELECT owner, created_at, stop_seq, ledger_seq, ledger_at INTO t
        FROM twins WHERE id = p_twin AND erased_at IS NULL AND owner = p_owner FOR NO KEY UPDATE;
        IF NOT FOUND OR account_erased(t.owner, t.created_at) THEN
            RETURN QUERY SELECT 'not_found', NULL::boolean;
            RETURN;
        END IF;
        SELECT c.lineage, c.principal, root.purposes INTO given
        FROM consents c JOIN consents root ON root.twin_id = c.twin_id AND root.id = c.lineage
        WHERE c.twin_id = p_twin AND c.id = p_consent;
        IF NOT FOUND THEN
            RETURN QUERY SELECT 'not_found', NULL::boolean;
            RETURN;
        END IF;
        wanted := coalesce(p_purposes, given.purposes);
        IF NOT wanted <@ given.purposes THEN
            RETURN QUERY SELECT 'foreign_purpose', NULL::boolean;
            RETURN;
        END IF;
        SELECT c.id, c.seq INTO latest FROM consents c WHERE c.twin_id = p_twin AND c.lineage = given.lineage
        ORDER BY c.id DESC LIMIT 1;
        SELECT array_agg(asked) INTO fresh FROM unnest(wanted) AS asked
        WHERE latest.seq > coalesce(t.stop_seq, 0) AND NOT EXISTS (
            SELECT FROM withdrawals w WHERE w.twin_id = p_twin AND w.lineage = given.lineage AND w.purpose = asked
        );
        IF fresh IS NULL THEN
            RETURN QUERY SELECT NULL::text, false;
            RETURN;
        END IF;
        moment := greatest(clock_timestamp(), t.ledger_at);
        salt := salt_of(p_twin, given.lineage, t.ledger_seq + 1);
        PERFORM append_event(p_twin, 'withdrawn', p_actor, salt, moment, p_by => 'owner', p_consent => latest.id,
                             p_purposes => sealed_list(salt, fresh));
        INSERT INTO withdrawals (twin_id, lineage, purpose, withdrawn_at, withdrawn_by)
        SELECT p_twin, given.lineage, asked, moment,
               CASE WHEN given.principal = p_actor THEN 'principal' ELSE 'owner' END
        FROM unnest(fresh) AS asked;
        UPDATE consent_states s SET no = 'withdrawn'
        FROM unnest(fresh) AS asked
        WHERE s.twin_id = p_twin AND s.purpose = asked AND s.lineage = given.lineage;
        RETURN QUERY SELECT NULL::text, true;
    END $$
    """,
    """
    CREATE FUNCTION open_lock(p_twin uuid, p_lock uuid, p_actor text, p_is_operator boolean)
    RETURNS TABLE (problem text, is_changed boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    #variable_conflict use_column
    DECLARE
        t record;
        held record;
        moment timestamptz;
        salt bytea;
    BEGIN
        SELECT owner, created_at, ledger_seq, ledger_at INTO t
        FROM twins WHERE id = p_twin AND erased_at IS NULL FOR NO KEY UPDATE;
        IF NOT FOUND OR account_erased(t.owner, t.created_at) THEN
            RETURN QUERY SELECT 'not_found', NULL::boolean;
            RETURN;
        END IF;
        SELECT l.purposes, l.opened_at, l.opener_kind INTO held FROM locks l
        WHERE l.twin_id = p_twin AND l.id = p_lock
          AND (l.opener_kind = 'account' AND l.opener = p_actor AND NOT account_erased(l.opener, l.refused_at)
               OR l.opener_kind = 'operator' AND p_is_operator);
        IF NOT FOUND THEN
            RETURN QUERY SELECT 'not_found', NULL::boolean;
            RETURN;
        END IF;
        IF held.opened_at IS NULL THEN
            moment := greatest(clock_timestamp(), t.ledger_at);
            salt := salt_of(p_twin, '00000000-0000-0000-0000-000000000000', t.ledger_seq + 1);
            UPDATE locks SET opened_at = moment WHERE twin_id = p_twin AND id = p_lock;
            PERFORM append_event(
                p_twin, 'opened', p_actor, salt, moment, p_lock => p_lock,
                p_by => CASE WHEN held.opener_kind = 'operator' THEN 'operator' ELSE 'person' END,
                p_purposes => CASE WHEN held.purposes IS NULL THEN 'null' ELSE sealed_list(salt, held.purposes) END
            );
        END IF;
        RETURN QUERY SELECT NULL::text, held.opened_at IS NULL;
    END $$
    """,
    # --- Erasure -------------------------------------------------------------------------------------
    # The twin disappears with its names; the job removes the rest, which may be much, the salts first.
    """
    CREATE FUNCTION erase_twins(p_erasure uuid, p_owner text, p_actor text, p_twins uuid[]) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DECLARE
        t record;
        moment timestamptz;
        salt bytea;
        number bigint := 0;
    BEGIN
        FOR t IN
            SELECT id, ledger_seq, ledger_at FROM twins
            WHERE id = ANY (p_twins) AND owner = p_owner AND erased_at IS NULL ORDER BY id FOR NO KEY UPDATE
        LOOP
            moment := greatest(clock_timestamp(), t.ledger_at);
            salt := salt_of(t.id, '00000000-0000-0000-0000-000000000000', t.ledger_seq + 1);
            PERFORM append_event(t.id, 'erased', p_actor, salt, moment, p_erasure => p_erasure);
            UPDATE twins SET owner = NULL, twin_name = NULL, use_case = NULL, tone = NULL, principals = '{}',
                             erased_at = moment
            WHERE id = t.id;
            INSERT INTO erased_twins (twin_id, erasure_id) VALUES (t.id, p_erasure);
            number := number + 1;
        END LOOP;
        RETURN number;
    END $$
    """,
    # These functions search for one account's rows, and often there is none. Without statistics of that account the
    # planner may expect some and read the rows of all.
    # Behind the account's lock: what was made before has committed, and is older than the erasure; what is made later
    # is younger. Takes no other lock. Without anything since the last erasure there is no new one.
    """
    CREATE FUNCTION erase_account(p_account text, p_actor text, p_digest bytea, p_owner_digest bytea)
    RETURNS TABLE (erasure_id uuid, is_new boolean, is_complete boolean)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off AS $$
    #variable_conflict use_column
    DECLARE
        latest record;
        moment timestamptz;
        since timestamptz;
        youngest uuid := '00000000-0000-0000-0000-000000000000';
        made uuid;
    BEGIN
        PERFORM pg_advisory_xact_lock(account_key(p_account));
        moment := clock_timestamp();
        SELECT a.erasure_id, a.erased_at, a.account IS NULL AS is_complete INTO latest FROM erased_accounts a
        WHERE a.digest = p_digest ORDER BY a.erased_at DESC LIMIT 1;
        since := coalesce(latest.erased_at, '-infinity');
        IF latest.erased_at IS NOT NULL THEN
            -- Ids are in order of time, but for a wait for the lock, which is shorter; the index ends the search.
            youngest := uuidv7(latest.erased_at - moment - interval '1 minute');
        END IF;
        IF NOT EXISTS (SELECT FROM twins WHERE owner = p_account AND id > youngest AND created_at > since)
           AND NOT EXISTS (SELECT FROM consents WHERE principal = p_account AND id > youngest AND given_at > since)
           AND NOT EXISTS (SELECT FROM named_accounts WHERE account = p_account AND named_at > since)
           AND NOT EXISTS (SELECT FROM locks WHERE opener = p_account AND refused_at > since) THEN
            RETURN QUERY SELECT latest.erasure_id, false, latest.is_complete;
            RETURN;
        END IF;
        INSERT INTO erasures (owner_digest, step, requested_at) VALUES (p_owner_digest, 'twins', moment)
        RETURNING id INTO made;
        INSERT INTO erased_accounts (account, actor, digest, erased_at, erasure_id)
        VALUES (p_account, p_actor, p_digest, moment, made);
        RETURN QUERY SELECT made, true, false;
    END $$
    """,
    # The next twins of an erased account, in order of their ids; none in the end.
    """
    CREATE FUNCTION erase_account_twins(p_erasure uuid, p_limit bigint) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off AS $$
    #variable_conflict use_column
    DECLARE
        who record;
        batch uuid[];
        number bigint;
    BEGIN
        SELECT a.account, a.actor, a.erased_at, e.after INTO who
        FROM erasures e JOIN erased_accounts a ON a.erasure_id = e.id
        WHERE e.id = p_erasure AND a.account IS NOT NULL FOR UPDATE OF e;
        batch := ARRAY(
            SELECT id FROM twins WHERE owner = who.account AND created_at <= who.erased_at AND id > who.after
            ORDER BY id LIMIT p_limit
        );
        IF batch <> '{}' THEN
            number := erase_twins(p_erasure, who.account, who.actor, batch);
            UPDATE erasures SET after = batch[cardinality(batch)], removed = removed || jsonb_build_object(
                'twins', coalesce((removed->>'twins')::bigint, 0) + number
            )
            WHERE id = p_erasure;
        END IF;
        RETURN cardinality(batch);
    END $$
    """,
    # Some of the twins that name the account of an erasure, with some of the consents that it gave on each.
    """
    CREATE FUNCTION naming_twins(p_erasure uuid, p_limit bigint)
    RETURNS TABLE (twin_id uuid, consents uuid[])
    LANGUAGE sql STABLE SET enable_seqscan = off AS $$
        SELECT f.twin_id, coalesce(array_agg(f.id ORDER BY f.id) FILTER (WHERE f.id IS NOT NULL), '{}')
        FROM erased_accounts a CROSS JOIN LATERAL (
            (SELECT c.twin_id, c.id FROM consents c
             WHERE c.principal = a.account AND c.given_at <= a.erased_at ORDER BY c.id LIMIT p_limit)
            UNION ALL
            (SELECT n.twin_id, NULL FROM named_accounts n
             WHERE n.account = a.account AND n.named_at <= a.erased_at LIMIT p_limit)
            UNION ALL
            (SELECT l.twin_id, NULL FROM locks l
             WHERE l.opener = a.account AND l.refused_at <= a.erased_at LIMIT p_limit)
        ) f
        WHERE a.erasure_id = p_erasure GROUP BY f.twin_id ORDER BY f.twin_id
    $$
    """,
    # Ends the account's consents on a twin of somebody else's, and its name there; returns the number of consents.
    # These are the oldest ones that name it, so that of each line of renewals the first comes first.
    r"""
    CREATE FUNCTION forget_person(p_twin uuid, p_erasure uuid, p_consents uuid[]) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off AS $$
    #variable_conflict use_column
    DECLARE
        who record;
        t record;
        line uuid;
        root record;
        pseudonym text;
        newest uuid;
        covered text[];
        wanted text[];
        said timestamptz;
        renamed bigint;
        number bigint := 0;
    BEGIN
        SELECT a.account, a.erased_at INTO who FROM erased_accounts a
        WHERE a.erasure_id = p_erasure AND a.account IS NOT NULL;
        IF NOT FOUND THEN
            RETURN 0;
        END IF;
        SELECT erased_at IS NULL AS is_live, ledger_at INTO t FROM twins WHERE id = p_twin FOR NO KEY UPDATE;
        UPDATE locks l SET opener = NULL, opener_kind = 'none'
        WHERE l.twin_id = p_twin AND l.opener = who.account AND l.refused_at <= who.erased_at;
        -- Once, and by hash: a twin can have thousands of refusals that nobody can open.
        covered := ARRAY(
            WITH standing AS MATERIALIZED (
                SELECT l.purposes, l.exceptions FROM locks l
                WHERE l.twin_id = p_twin AND l.opened_at IS NULL AND l.opener_kind = 'none'
            ), everything AS MATERIALIZED (SELECT exceptions FROM standing WHERE purposes IS NULL)
            SELECT p.asked FROM (
                SELECT DISTINCT asked FROM consents c CROSS JOIN unnest(c.purposes) AS asked
                WHERE c.twin_id = p_twin AND c.id = ANY (p_consents)
            ) p
            WHERE p.asked IN (SELECT unnest(purposes) FROM standing)
               OR EXISTS (SELECT FROM everything e WHERE p.asked <> ALL (e.exceptions))
        );
        FOR line IN
            SELECT DISTINCT c.lineage FROM consents c
            WHERE c.twin_id = p_twin AND c.id = ANY (p_consents) AND c.principal = who.account
              AND c.given_at <= who.erased_at
            ORDER BY c.lineage DESC  -- the one in force has the event
        LOOP
            SELECT c.purposes, c.principal, c.seq INTO root FROM consents c WHERE c.twin_id = p_twin AND c.id = line;
            SELECT c.id INTO newest FROM consents c WHERE c.twin_id = p_twin AND c.lineage = line
            ORDER BY c.id DESC LIMIT 1;
            pseudonym := root.principal;
            IF pseudonym = who.account THEN
                pseudonym := E'\x01erased:' || gen_random_uuid();
                IF t.is_live THEN
                    said := NULL;
                    wanted := ARRAY(SELECT asked FROM unnest(root.purposes) AS asked WHERE asked <> ALL (covered));
                    IF wanted <> '{}' THEN
                        covered := covered || wanted;
                        SELECT p.said_at INTO said
                        FROM place_lock(p_twin, who.account, 'none', wanted, newest, line) p;
                    END IF;
                    -- What ended before, with everything, shows no more that this account ended it.
                    INSERT INTO withdrawals (twin_id, lineage, purpose, withdrawn_at, withdrawn_by)
                    SELECT p_twin, line, asked, coalesce(s.stopped_at, said, greatest(clock_timestamp(), t.ledger_at)),
                           CASE WHEN s.by_operator THEN 'operator'
                           WHEN s.seq IS NOT NULL AND s.account IS DISTINCT FROM who.account THEN 'person'
                           ELSE 'principal' END
                    FROM unnest(root.purposes) AS asked LEFT JOIN LATERAL (
                        SELECT * FROM stops WHERE twin_id = p_twin AND seq > root.seq ORDER BY seq LIMIT 1
                    ) s ON true
                    ON CONFLICT (twin_id, lineage, purpose) DO NOTHING;
                END IF;
            END IF;
            UPDATE consents c SET principal = pseudonym
            WHERE c.twin_id = p_twin AND c.id = ANY (p_consents) AND c.lineage = line AND c.principal = who.account;
            GET DIAGNOSTICS renamed = ROW_COUNT;
            number := number + renamed;
            UPDATE consent_states s SET account = pseudonym
            FROM unnest(root.purposes) AS asked
            WHERE s.twin_id = p_twin AND s.purpose = asked AND s.lineage = line AND s.account = who.account;
            DELETE FROM salts s WHERE s.twin_id = p_twin AND s.lineage = line AND EXISTS (
                SELECT FROM consents c WHERE c.twin_id = p_twin AND c.id = newest AND c.principal = pseudonym
            );
        END LOOP;
        UPDATE notices n SET notice = NULL
        WHERE n.twin_id = p_twin AND n.notice IS NOT NULL AND n.sha256 = ANY (ARRAY(
            SELECT c.notice_sha256 FROM consents c WHERE c.twin_id = p_twin AND c.id = ANY (p_consents)
        )) AND NOT EXISTS (
            SELECT FROM consents c
            WHERE c.twin_id = p_twin AND c.notice_sha256 = n.sha256 AND c.principal COLLATE "C" >= ' '
        );
        UPDATE stops s SET account = NULL
        WHERE s.twin_id = p_twin AND s.account = who.account AND s.stopped_at <= who.erased_at;
        DELETE FROM named_accounts n
        WHERE n.twin_id = p_twin AND n.account = who.account AND n.named_at <= who.erased_at;
        IF FOUND THEN
            UPDATE twins
            SET principals = array_remove(principals, who.account), version = version + 1,
                updated_at = greatest(clock_timestamp(), updated_at)
            WHERE id = p_twin AND who.account = ANY (principals);
        END IF;
        DELETE FROM salts s WHERE s.twin_id = p_twin AND s.lineage = '00000000-0000-0000-0000-000000000000';
        RETURN number;
    END $$
    """,
    # Once: whatever still stands in the account's name keeps it from its end.
    """
    CREATE FUNCTION complete_erasure(p_erasure uuid, p_certificate text, p_at timestamptz) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    BEGIN
        UPDATE erasures SET certificate = p_certificate, completed_at = p_at, step = 'complete'
        WHERE id = p_erasure AND completed_at IS NULL;
        UPDATE erased_accounts SET account = NULL, actor = NULL WHERE erasure_id = p_erasure;
    END $$
    """,
    """
    CREATE FUNCTION left_of_account(p_erasure uuid) RETURNS TABLE (twins bigint, names bigint)
    LANGUAGE sql STABLE SET enable_seqscan = off AS $$
        SELECT (SELECT count(*) FROM (
                   SELECT FROM twins t JOIN erased_accounts a ON a.account = t.owner AND a.erased_at >= t.created_at
                   WHERE a.erasure_id = p_erasure LIMIT 1
               ) o),
               (SELECT count(*) FROM naming_twins(p_erasure, 1))
    $$
    """,
    # Up to `p_limit` rows of each table; of erased twins only.
    """
    CREATE FUNCTION remove_consents(p_twins uuid[], p_limit bigint)
    RETURNS TABLE (consents bigint, consent_details bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DECLARE
        gone constant uuid[] := ARRAY(SELECT id FROM twins WHERE id = ANY (p_twins) AND erased_at IS NOT NULL);
        name text;
        number bigint;
    BEGIN
        consents := 0;
        consent_details := 0;
        FOREACH name IN ARRAY ARRAY['salts', 'consent_states', 'withdrawals', 'locks', 'stops', 'named_accounts',
                                    'notices', 'consents'] LOOP
            EXECUTE format(
                'DELETE FROM %1$I WHERE ctid = ANY (ARRAY(SELECT ctid FROM %1$I WHERE twin_id = ANY ($1) LIMIT $2))',
                name
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

_SERVING = (
    "give_consent(uuid, text, text, text, bytea, text, text[], text, text, text, timestamptz, timestamptz, uuid)",
    "say_no(uuid, text, text, boolean, text[], uuid)",
    "revoke_consent(uuid, text, text, uuid, text[])",
    "open_lock(uuid, uuid, text, boolean)",
    "erase_twins(uuid, text, text, uuid[])",
    "erase_account(text, text, bytea, bytea)",
    "erase_account_twins(uuid, bigint)",
    "naming_twins(uuid, bigint)",
    "forget_person(uuid, uuid, uuid[])",
    "left_of_account(uuid)",
    "complete_erasure(uuid, text, timestamptz)",
    "remove_consents(uuid[], bigint)",
    "is_named(uuid, text)",
    "account_erased(text, timestamptz)",
    "account_key(text)",
    "decision_of(uuid, bigint, text)",
)
"""What the serving role may call; the others write too, and check nothing."""

_INTERNAL = (
    "seal(bytea, text)",
    "moment_text(timestamptz)",
    "sealed_list(bytea, text[])",
    "salt_of(uuid, uuid, bigint)",
    "append_event(uuid, text, text, bytea, timestamptz, text, uuid, uuid, uuid, text, uuid, text)",
    "place_lock(uuid, text, text, text[], uuid, uuid)",
)

_PRIVILEGES = (
    *(f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC" for name in (*_SERVING, *_INTERNAL)),
    "REVOKE ALL ON FUNCTION name_principals(), time_twin() FROM PUBLIC",
    *(f"GRANT EXECUTE ON FUNCTION {name} TO twins_serving" for name in _SERVING),
    "REVOKE ALL ON twins, consents, consent_states, consent_events, erased_twins FROM twins_serving",
    """
    GRANT SELECT, INSERT (owner, twin_name, use_case, tone, principals),
          UPDATE (twin_name, use_case, tone, principals, version, persona_version, updated_at) ON twins TO twins_serving
    """,
    """
    GRANT SELECT ON consents, consent_states, consent_events, erased_twins, named_accounts, salts, notices,
                    withdrawals, stops, locks, erased_accounts TO twins_serving
    """,
    "GRANT SELECT ON live_twins, ledger_heads, consent_records, standing_locks, twin_erasures TO twins_serving",
    """
    GRANT SELECT ON ledger_consents, ledger_salts, ledger_states, ledger_withdrawals, ledger_stops, ledger_locks
    TO twins_serving
    """,
    "GRANT SELECT, UPDATE ON ledger_rounds TO twins_serving",
    "REVOKE ALL ON erasures FROM twins_serving",
    "GRANT SELECT, INSERT (owner_digest), UPDATE (step, after, removed) ON erasures TO twins_serving",
    "GRANT SELECT, INSERT ON erased_ledgers TO twins_serving",
    # The space of destroyed salts is given back at once.
    "GRANT MAINTAIN ON salts TO twins_serving",
)


def upgrade() -> None:
    connection = op.get_bind()
    refuse_to_run_beside(connection)
    for statement in (*_TABLES, *_READ, *_WRITE, *_PRIVILEGES):
        connection.exec_driver_sql(statement)
    _lock(connection)


def _lock(connection: Connection) -> None:
    """Lock each purpose on which a person who was not the owner ever withdrew, with that account as opener."""
    rows: Sequence[Any] = connection.exec_driver_sql(
        """
        SELECT t.id, c.principal, array_agg(DISTINCT w.purpose)
        FROM twins t JOIN withdrawals w ON w.twin_id = t.id
        JOIN consents c ON c.twin_id = w.twin_id AND c.id = w.lineage
        WHERE t.erased_at IS NULL AND w.withdrawn_by = 'principal' AND c.principal <> t.owner
        GROUP BY t.id, c.principal ORDER BY t.id, c.principal
        """
    ).all()
    live = """
        SELECT count(*) FROM consent_states
        WHERE consent_id IS NOT NULL AND no IS NULL AND (expires_at IS NULL OR expires_at > now())
    """
    before = connection.exec_driver_sql(live).scalar_one()
    for twin_id, account, purposes in rows:
        kind = "none" if account.startswith("\x01") else "account"
        connection.exec_driver_sql("SELECT place_lock($1, $2, $3, $4, NULL, NULL)", (twin_id, account, kind, purposes))
    if rows:
        closed = before - connection.exec_driver_sql(live).scalar_one()
        logger.warning("Locked after earlier withdrawals: %d; grants that this closes: %d", len(rows), closed)


_CANNOT_SAY = """
    SELECT 'standing refusals' AS what, count(*) AS number FROM locks WHERE opened_at IS NULL
    UNION ALL SELECT 'refusals of everything', count(*) FROM stops
    UNION ALL SELECT 'twins with principals', count(*) FROM twins WHERE principals <> '{}'
    UNION ALL SELECT 'consents withdrawn in part', count(*) FROM consent_records
        WHERE json_array_length(withdrawn) NOT IN (0, cardinality(purposes))
    UNION ALL SELECT 'consents withdrawn in several steps', count(*) FROM (
        SELECT FROM withdrawals GROUP BY twin_id, lineage HAVING min(withdrawn_at) < max(withdrawn_at)
    ) w
    UNION ALL SELECT 'notices without a text', count(*) FROM notices WHERE notice IS NULL
    UNION ALL SELECT 'accounts whose erasure runs', count(*) FROM erased_accounts WHERE account IS NOT NULL
    UNION ALL SELECT 'accounts longer than 255 characters', count(*) FROM consents WHERE char_length(principal) > 255
"""

_DOWN = (
    "DROP VIEW ledger_consents, ledger_salts, ledger_states, ledger_withdrawals, ledger_stops, ledger_locks",
    "DROP VIEW standing_locks, consent_records, ledger_heads, live_twins, twin_erasures",
    *(f"DROP FUNCTION {name}" for name in (*_SERVING, *_INTERNAL)),
    "DROP TRIGGER twins_principals ON twins",
    "DROP TRIGGER twins_time ON twins",
    "DROP FUNCTION name_principals(), time_twin()",
    # --- Twins ---------------------------------------------------------------------------------------
    """
    ALTER TABLE twins
        DROP CONSTRAINT twins_erased,
        ADD COLUMN salt bytea DEFAULT uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()),
        DROP COLUMN principals, DROP COLUMN stop_seq, DROP COLUMN spoken, DROP COLUMN ledger_at,
        DROP CONSTRAINT twins_owner_length,
        ADD CONSTRAINT twins_owner_length CHECK (char_length(owner) BETWEEN 1 AND 255)
    """,
    "UPDATE twins SET salt = NULL WHERE erased_at IS NOT NULL",
    """
    UPDATE twins t SET salt = s.salt FROM salts s
    WHERE s.twin_id = t.id AND s.lineage = '00000000-0000-0000-0000-000000000000' AND t.erased_at IS NULL
    """,
    """
    ALTER TABLE twins ADD CONSTRAINT twins_erased CHECK (
        CASE WHEN erased_at IS NULL
        THEN num_nulls(owner, twin_name, use_case, tone, salt) = 0
        ELSE num_nonnulls(owner, twin_name, use_case, tone, salt) = 0 END
    )
    """,
    # --- Erasures ------------------------------------------------------------------------------------
    # squawk-ignore prefer-bigint-over-smallint
    "ALTER TABLE erasures ADD COLUMN sweeps smallint NOT NULL DEFAULT 0",
    "UPDATE erasures SET sweeps = CASE step WHEN 'complete' THEN 2 WHEN 'proof' THEN 1 ELSE 0 END",
    "ALTER TABLE erasures DROP CONSTRAINT erasures_step_complete, DROP COLUMN step, DROP COLUMN after",
    "DROP INDEX erasures_owner_digest_idx, erased_twins_erasure_id_twin_id_idx",
    "CREATE INDEX erased_twins_erasure_id_idx ON erased_twins (erasure_id)",
    # --- Consents ------------------------------------------------------------------------------------
    r"""UPDATE consents SET principal = ltrim(principal, E'\x01') WHERE principal COLLATE "C" < ' '""",
    """
    ALTER TABLE consents
        ADD COLUMN notice_text text, ADD COLUMN replaced_by uuid, ADD COLUMN withdrawn_at timestamptz,
        ADD COLUMN revoked boolean NOT NULL DEFAULT false,
        DROP CONSTRAINT consents_principal_length,
        ADD CONSTRAINT consents_principal_length CHECK (char_length(principal) <= 255)
    """,
    """
    UPDATE consents c
    SET notice_text = n.notice, replaced_by = r.id, withdrawn_at = w.at, revoked = coalesce(w.revoked, false)
    FROM notices n, consents x
    LEFT JOIN consents r ON r.twin_id = x.twin_id AND r.renews = x.id
    LEFT JOIN LATERAL (
        SELECT max(withdrawn_at) AS at, bool_or(withdrawn_by = 'owner') AS revoked
        FROM withdrawals w WHERE w.twin_id = x.twin_id AND w.lineage = x.lineage
    ) w ON true
    WHERE n.twin_id = c.twin_id AND n.sha256 = c.notice_sha256 AND x.twin_id = c.twin_id AND x.id = c.id
    """,
    # A state without a consent is what is left of an opened refusal.
    "DELETE FROM consent_states WHERE consent_id IS NULL",
    "DROP INDEX consents_lineage_id_idx, consents_renews_idx, consents_notice_idx",
    """
    ALTER TABLE consents
        DROP COLUMN seq,
        DROP CONSTRAINT consents_pkey,
        ADD CONSTRAINT consents_pkey PRIMARY KEY (id),
        ALTER COLUMN notice_text SET NOT NULL,
        ADD CONSTRAINT consents_notice_sha256 CHECK (notice_sha256 = sha256(convert_to(notice_text, 'UTF8')))
    """,
    "CREATE INDEX consents_twin_id_id_idx ON consents (twin_id, id DESC)",
    "CREATE INDEX consents_lineage_idx ON consents (lineage)",
    """
    ALTER TABLE consent_states
        DROP COLUMN lineage, DROP COLUMN seq, DROP COLUMN no, DROP COLUMN account, DROP COLUMN given_at,
        DROP COLUMN not_before, DROP COLUMN expires_at,
        ALTER COLUMN consent_id SET NOT NULL,
        ADD CONSTRAINT consent_states_consent_id_fkey FOREIGN KEY (consent_id) REFERENCES consents ON DELETE CASCADE
    """,
    "CREATE INDEX consent_states_consent_id_idx ON consent_states (consent_id)",
    """
    DROP TABLE ledger_rounds, erased_ledgers, erased_accounts, locks, stops, withdrawals, notices, salts,
               named_accounts
    """,
    """
    ALTER TABLE consent_events
        DROP CONSTRAINT consent_events_twin_id_fkey, DROP CONSTRAINT consent_events_hash
    """,
    "ALTER TABLE consent_events ENABLE TRIGGER consent_events_append_only",
    "ALTER TABLE consent_events ENABLE TRIGGER consent_events_keep",
    # --- The views and privileges of the revision before -----------------------------------------------
    """
    CREATE VIEW consent_records AS
    SELECT c.*,
        CASE
            WHEN c.withdrawn_at IS NOT NULL THEN 'withdrawn'
            WHEN c.replaced_by IS NOT NULL THEN 'replaced'
            WHEN c.expires_at <= statement_timestamp() THEN 'expired'
            WHEN c.not_before > statement_timestamp() THEN 'not_yet_valid'
            ELSE 'granted'
        END AS standing
    FROM consents c
    """,
    """
    CREATE VIEW decisions AS
    SELECT s.twin_id, s.purpose, c.id AS consent_id, c.expires_at, c.standing AS reason
    FROM consent_states s JOIN consent_records c ON c.id = s.consent_id
    """,
    """
    CREATE FUNCTION decision_of(twin uuid, asked text)
    RETURNS TABLE (consent_id uuid, expires_at timestamptz, reason text) LANGUAGE sql STABLE AS $$
        SELECT consent_id, expires_at, reason FROM decisions WHERE twin_id = twin AND purpose = asked LIMIT 1
    $$
    """,
    """
    CREATE VIEW live_twins AS
    SELECT id, owner, twin_name, use_case, tone, version, persona_version, created_at, updated_at
    FROM twins WHERE erased_at IS NULL
    """,
    "CREATE VIEW ledger_heads AS SELECT id AS twin_id, owner, ledger_seq AS seq, ledger_hash AS hash FROM twins",
    "REVOKE ALL ON twins, consents, consent_states, consent_events, erased_twins, erasures FROM twins_serving",
    "GRANT SELECT, INSERT, UPDATE ON twins, erasures TO twins_serving",
    "GRANT SELECT, INSERT, DELETE, UPDATE (withdrawn_at, revoked, replaced_by, principal) ON consents TO twins_serving",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON consent_states TO twins_serving",
    "GRANT SELECT, INSERT ON consent_events, erased_twins TO twins_serving",
    "GRANT SELECT ON consent_records, decisions, live_twins, ledger_heads TO twins_serving",
)


def downgrade() -> None:
    connection = op.get_bind()
    refuse_to_run_beside(connection)
    stands = [f"{number} {what}" for what, number in connection.exec_driver_sql(_CANNOT_SAY) if number]
    if stands:
        raise SystemExit(f"The schema before {revision} cannot express: {'; '.join(stands)}.")
    for statement in _DOWN:
        connection.exec_driver_sql(statement)
