"""A consent says whose word it is, its terms have a second edition, and what a person answered is theirs to widen.

The gate reads two rows as before: the state copies the limits and the assurance. What was stored before is `recorded`,
but for consents that this schema has seen once: their events say how they came.
"""

from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

from alembic import op
from sqlalchemy import Connection

from migrations.instances import refuse_to_run_beside
from migrations.rewriting import back, rewrite

revision = "20261129_11"
down_revision = "20261128_9"

_TABLES = (
    "DROP VIEW consent_records, ledger_consents",
    # `principal` NULL: a person without an account, whom `label` names; both NULL: a label that is erased.
    # `assurance`: 0 recorded, 1 link, 2 token. `source`: the person's own consent that a narrower one rests on.
    # `taken_by`: the person's own consent that last took a purpose of this one. `recipients`, `modalities` and
    # `territories` NULL: not limited. `details`: evidence, which decides nothing.
    """
    ALTER TABLE consents
        ALTER COLUMN principal DROP NOT NULL,
        ADD COLUMN label text CONSTRAINT consents_label_length CHECK (char_length(label) <= 200),
        -- squawk-ignore prefer-bigint-over-smallint
        ADD COLUMN assurance smallint NOT NULL DEFAULT 0
            CONSTRAINT consents_assurance CHECK (assurance BETWEEN 0 AND 2),
        ADD COLUMN source uuid,
        ADD COLUMN taken_by uuid,
        ADD COLUMN recipients jsonb,
        ADD COLUMN modalities text[],
        ADD COLUMN territories text[],
        ADD COLUMN guardian text CONSTRAINT consents_guardian_length CHECK (char_length(guardian) <= 511),
        ADD COLUMN details jsonb,
        ADD CONSTRAINT consents_one_person CHECK (principal IS NULL OR label IS NULL)
    """,
    """
    ALTER TABLE consent_states
        -- squawk-ignore prefer-bigint-over-smallint
        ADD COLUMN assurance smallint NOT NULL DEFAULT 0,
        ADD COLUMN recipients text[],
        ADD COLUMN modalities text[],
        ADD COLUMN territories text[]
    """,
    # No member of an event is a text of somebody's.
    """
    UPDATE consents c SET assurance = CASE WHEN e.event LIKE '%"assurance":"token"%' THEN 2 ELSE 1 END
    FROM consent_events e
    WHERE e.twin_id = c.twin_id AND e.seq = c.seq AND e.event LIKE '%"assurance":"%'
      AND e.event NOT LIKE '%"assurance":"recorded"%'
    """,
    """
    UPDATE consent_states s SET assurance = c.assurance FROM consents c
    WHERE c.twin_id = s.twin_id AND c.id = s.consent_id AND c.assurance > 0
    """,
    "DROP INDEX consents_actor_idx",
    "CREATE INDEX consents_actor_idx ON consents (actor, twin_id) WHERE actor IS DISTINCT FROM principal",
    "CREATE INDEX consents_guardian_idx ON consents (guardian, twin_id) WHERE guardian IS NOT NULL",
)

_READ = (
    # The recipients of a consent, in the form of the state and of a question.
    r"""
    CREATE FUNCTION recipient_keys(recipients jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE STRICT AS $$
        SELECT array_agg((r->>'type') || E'\n' || coalesce(r->>'issuer', '') || E'\n' || (r->>'id'))
        FROM jsonb_array_elements(recipients) AS r
    $$
    """,
    """
    CREATE OR REPLACE VIEW decisions AS
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
        END AS standing,
        s.assurance, s.account, s.recipients, s.modalities, s.territories
    FROM consent_states s
    """,
    "DROP FUNCTION reason_of",
    # The answer of the gate, unless a restore may have lost a no. `lowest`: the assurance from which on a yes is one.
    # `principal`: the account whose own yes is asked for. A limited term that the question leaves out is a no, but for
    # the recipient: NULL is the owner, whom each consent covers. The planner inlines it.
    """
    CREATE FUNCTION reason_of(
        is_unconfirmed boolean, stop_seq bigint, seq bigint, ended text, standing text, assurance smallint,
        lowest smallint, account text, principal text, recipients text[], recipient text, modalities text[],
        modality text, territories text[], territory text
    ) RETURNS text LANGUAGE sql IMMUTABLE AS $$
        SELECT CASE
            WHEN is_unconfirmed THEN 'unconfirmed_after_restore'
            WHEN ended IS NOT NULL THEN ended
            WHEN coalesce(seq, 0) <= stop_seq THEN 'refused'
            WHEN standing IS NULL THEN 'no_consent'
            WHEN standing <> 'granted' THEN standing
            WHEN assurance < lowest THEN 'assurance_too_low'
            WHEN principal IS NOT NULL AND account IS DISTINCT FROM principal THEN 'assurance_too_low'
            WHEN recipients IS NOT NULL AND recipient <> ALL (recipients) THEN 'recipient_not_covered'
            WHEN modalities IS NOT NULL AND (modality = ANY (modalities)) IS NOT TRUE THEN 'modality_not_covered'
            WHEN territories IS NOT NULL AND (territory = ANY (territories)) IS NOT TRUE THEN 'territory_not_covered'
            ELSE 'granted'
        END
    $$
    """,
    # `taken`: the purposes that other consents hold by now.
    """
    CREATE VIEW consent_records AS
    SELECT c.*, coalesce(n.notice, '') AS notice_text,
        coalesce(r.id, CASE WHEN x.is_taken THEN c.taken_by END) AS replaced_by,
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
                    WHEN o.is_stop AND (c.principal IS NULL OR s.account IS DISTINCT FROM c.principal) THEN 'person'
                    ELSE 'principal'
                END AS by
            ) f
            WHERE w.ended->p.purpose IS NOT NULL OR num_nonnulls(s.stopped_at, e.erased_at) > 0
        ) AS withdrawn,
        CASE
            WHEN num_nonnulls(s.stopped_at, e.erased_at) > 0 OR c.purposes <@ w.purposes THEN 'withdrawn'
            WHEN r.id IS NOT NULL OR x.is_taken THEN 'replaced'
            WHEN c.expires_at <= statement_timestamp() THEN 'expired'
            WHEN c.not_before > statement_timestamp() THEN 'not_yet_valid'
            ELSE 'granted'
        END AS standing,
        e.erased_at IS NOT NULL AS is_forgotten, x.taken
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
    LEFT JOIN LATERAL (
        SELECT array_agg(p.purpose) FILTER (WHERE h.consent_id <> c.id) AS taken,
               NOT bool_or(h.consent_id = c.id AND h.no IS NULL) AS is_taken
        FROM unnest(c.purposes) AS p (purpose) CROSS JOIN LATERAL (
            SELECT consent_id, no FROM consent_states h WHERE h.twin_id = c.twin_id AND h.purpose = p.purpose LIMIT 1
        ) h
        WHERE c.taken_by IS NOT NULL
    ) x ON true
    """,
    """
    CREATE VIEW ledger_consents AS
    SELECT c.twin_id, c.id, c.lineage, c.renews, c.seq, c.principal, c.method, c.purposes, c.notice_version,
           c.notice_language, c.notice_sha256, c.given_at, c.not_before, c.expires_at, c.actor, c.client,
           (SELECT n.notice IS NULL OR n.sha256 = sha256(convert_to(n.notice, 'UTF8')) FROM notices n
            WHERE n.twin_id = c.twin_id AND n.sha256 = c.notice_sha256) AS notice_holds,
           (SELECT r.purposes FROM consents r WHERE r.twin_id = c.twin_id AND r.id = c.lineage) AS line_purposes,
           (SELECT s.salt FROM salts s WHERE s.twin_id = c.twin_id AND s.lineage = c.lineage) AS salt,
           (SELECT s.since_seq FROM salts s WHERE s.twin_id = c.twin_id AND s.lineage = c.lineage) AS since_seq,
           c.label, c.assurance, c.source, c.taken_by, c.recipients, c.modalities, c.territories, c.guardian, c.details,
           EXISTS (
               SELECT FROM erased_accounts e WHERE e.account = c.principal AND e.erased_at >= c.given_at
           ) AS is_forgotten
    FROM consents c
    """,
    # `is_copy`: what decides is what the consent says. The erasure of its person empties the account.
    """
    CREATE OR REPLACE VIEW ledger_states AS
    SELECT s.twin_id, s.purpose, s.consent_id, s.seq, s.no, s.consent_id IS NULL OR EXISTS (
        SELECT FROM consents c
        WHERE c.twin_id = s.twin_id AND c.id = s.consent_id AND c.lineage = s.lineage AND c.seq = s.seq
          AND c.given_at = s.given_at
          AND (c.principal IS NOT DISTINCT FROM s.account OR s.account IS NULL AND s.no IS NOT NULL)
          AND (c.not_before, c.expires_at) IS NOT DISTINCT FROM (s.not_before, s.expires_at)
          AND c.assurance = s.assurance
          AND (recipient_keys(c.recipients), c.modalities, c.territories)
              IS NOT DISTINCT FROM (s.recipients, s.modalities, s.territories)
    ) AS is_copy
    FROM consent_states s
    """,
)

_GIVE_CONSENT = """
    CREATE FUNCTION give_consent(
        p_twin uuid, p_owner text, p_actor text, p_person text, p_person_digest bytea, p_method text, p_purposes text[],
        p_version text, p_language text, p_notice text, p_not_before timestamptz, p_expires_at timestamptz,
        p_renews uuid, p_client text DEFAULT NULL, p_label text DEFAULT NULL, p_recipients text DEFAULT NULL,
        p_modalities text[] DEFAULT NULL, p_territories text[] DEFAULT NULL, p_guardian text DEFAULT NULL,
        p_details text DEFAULT NULL
    ) RETURNS TABLE (problem text, consent_id uuid, purpose text)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    #variable_conflict use_column
    DECLARE
        t record;
        mine record;
        live record;
        old consents;
        made constant uuid := uuidv7();
        line uuid := made;
        is_listed boolean;
        is_own boolean;
        is_for_owner boolean;
        is_owners_word boolean;
        is_narrower boolean := false;
        is_second boolean;
        rank smallint;
        source uuid;
        opened text[];
        dropped text[];
        moment timestamptz;
        digest constant bytea := sha256(convert_to(p_notice, 'UTF8'));
        given_to constant jsonb := p_recipients;
        given_details constant jsonb := p_details;
        keys constant text[] := recipient_keys(p_recipients::jsonb);
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
        is_own := p_person IS NOT DISTINCT FROM p_actor;
        is_for_owner := t.owner IS NOT DISTINCT FROM p_owner;
        IF NOT is_for_owner AND NOT is_listed AND NOT is_named(p_twin, p_actor) THEN
            RETURN QUERY SELECT 'not_found', NULL::uuid, NULL::text;
            RETURN;
        END IF;
        IF p_renews IS NOT NULL THEN
            SELECT * INTO old FROM consents c WHERE c.twin_id = p_twin AND c.id = p_renews;
        END IF;
        IF NOT is_for_owner AND NOT is_own THEN
            RETURN QUERY SELECT 'not_yourself', NULL::uuid, NULL::text;
            RETURN;
        END IF;
        PERFORM pg_advisory_xact_lock_shared(account_key(p_person));  -- after the twin's: no deadlock
        moment := greatest(clock_timestamp(), t.ledger_at);
        is_owners_word := is_for_owner AND NOT (is_listed AND is_own);
        rank := CASE WHEN is_listed AND is_own THEN 2 ELSE 0 END;
        IF is_owners_word AND NOT is_own AND EXISTS (
            SELECT FROM erased_accounts e WHERE e.digest = p_person_digest
        ) THEN
            RETURN QUERY SELECT 'person_must_consent', NULL::uuid, NULL::text;
            RETURN;
        END IF;
        -- A renewal that allows less than the old consent did, and nothing more.
        IF old.id IS NOT NULL THEN
            dropped := ARRAY(
                SELECT asked FROM unnest(old.purposes) AS asked CROSS JOIN LATERAL (
                    SELECT * FROM consent_states WHERE twin_id = p_twin AND purpose = asked LIMIT 1
                ) s
                WHERE asked <> ALL (p_purposes) AND s.consent_id = p_renews AND s.no IS NULL
            );
            is_narrower := (
                    dropped <> '{}' OR p_not_before > greatest(old.not_before, moment)
                    OR (given_to, p_modalities, p_territories, p_expires_at)
                        IS DISTINCT FROM (old.recipients, old.modalities, old.territories, old.expires_at)
                )
                AND p_purposes <@ old.purposes
                AND (old.recipients IS NULL OR coalesce(given_to <@ old.recipients, false))
                AND (old.modalities IS NULL OR coalesce(p_modalities <@ old.modalities, false))
                AND (old.territories IS NULL OR coalesce(p_territories <@ old.territories, false))
                AND coalesce(p_expires_at, 'infinity') <= coalesce(old.expires_at, 'infinity')
                AND coalesce(p_not_before, moment) >= coalesce(old.not_before, old.given_at)
                AND p_method = old.method AND p_version = old.notice_version AND p_language = old.notice_language
                AND digest = old.notice_sha256 AND p_guardian IS NOT DISTINCT FROM old.guardian
                AND coalesce(given_details, '{}') - 'uses' = coalesce(old.details, '{}') - 'uses'
                AND coalesce(given_details->'uses', '[]') = (
                    SELECT coalesce(jsonb_agg(u.use ORDER BY u.place), '[]')
                    FROM jsonb_array_elements(coalesce(old.details->'uses', '[]')) WITH ORDINALITY AS u (use, place)
                    WHERE u.use->>'purpose' = ANY (p_purposes)
                );
        END IF;
        IF (is_owners_word AND t.spoken > 0 OR rank < 2 AND t.spoken = 2) AND is_narrower IS NOT TRUE THEN
            RETURN QUERY SELECT 'person_must_consent', NULL::uuid, NULL::text;
            RETURN;
        END IF;
        -- What rests on a person's own word keeps it, and cites it.
        IF is_narrower AND (rank < old.assurance OR NOT is_own) THEN
            rank := greatest(rank, old.assurance);
            source := coalesce(old.source, CASE
                WHEN old.assurance > 0 OR old.actor = old.principal THEN old.id
            END);
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
          AND is_own AND NOT account_erased(l.opener, l.refused_at);
        IF EXISTS (
            SELECT FROM locks l
            WHERE l.twin_id = p_twin AND l.opened_at IS NULL AND l.id IS DISTINCT FROM mine.id
              AND (l.purposes && p_purposes OR l.purposes IS NULL AND NOT p_purposes <@ l.exceptions)
        ) THEN
            RETURN QUERY SELECT 'locked', NULL::uuid, NULL::text;
            RETURN;
        END IF;
        IF p_renews IS NULL THEN
            -- A person's own yes takes the place of what is not, and never of a higher assurance.
            SELECT s.consent_id, s.purpose INTO live
            FROM unnest(p_purposes) AS asked CROSS JOIN LATERAL (
                SELECT * FROM consent_states WHERE twin_id = p_twin AND purpose = asked LIMIT 1
            ) s
            WHERE s.no IS NULL AND s.consent_id IS NOT NULL AND s.seq > coalesce(t.stop_seq, 0)
              AND (s.expires_at IS NULL OR s.expires_at > moment) AND NOT account_erased(s.account, s.given_at)
              AND (is_owners_word OR s.assurance > least(rank, 1))
            LIMIT 1;
            IF FOUND THEN
                RETURN QUERY SELECT 'consent_active', live.consent_id, live.purpose;
                RETURN;
            END IF;
        ELSE
            IF old.id IS NULL OR old.principal IS DISTINCT FROM p_person OR old.label IS DISTINCT FROM p_label
               OR NOT p_purposes <@ old.purposes
               OR EXISTS (SELECT FROM consents r WHERE r.twin_id = p_twin AND r.renews = p_renews)
               OR account_erased(old.principal, old.given_at)
               OR cardinality(p_purposes) <> (
                   SELECT count(*) FROM unnest(p_purposes) AS asked CROSS JOIN LATERAL (
                       SELECT * FROM consent_states WHERE twin_id = p_twin AND purpose = asked LIMIT 1
                   ) s
                   WHERE s.consent_id = p_renews AND s.no IS NULL AND s.seq > coalesce(t.stop_seq, 0)
               ) THEN
                RETURN QUERY SELECT 'consent_ended', p_renews, NULL::text;
                RETURN;
            END IF;
            line := old.lineage;
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
                                 p_purposes => sealed_list(line_salt, opened), p_client => p_client);
            t.ledger_seq := t.ledger_seq + 1;
        END IF;

        line_salt := salt_of(p_twin, line, t.ledger_seq + 1);
        IF p_renews IS NULL AND NOT is_owners_word THEN
            -- Under the salt of the new line, which goes with the person who acts.
            FOR live IN
                SELECT s.consent_id AS taken, array_agg(s.purpose) AS purposes
                FROM unnest(p_purposes) AS asked CROSS JOIN LATERAL (
                    SELECT * FROM consent_states WHERE twin_id = p_twin AND purpose = asked LIMIT 1
                ) s
                WHERE s.no IS NULL AND s.consent_id IS NOT NULL AND s.seq > coalesce(t.stop_seq, 0)
                  AND (s.expires_at IS NULL OR s.expires_at > moment) AND NOT account_erased(s.account, s.given_at)
                GROUP BY s.consent_id ORDER BY s.consent_id
            LOOP
                UPDATE consents c SET taken_by = made WHERE c.twin_id = p_twin AND c.id = live.taken;
                PERFORM append_event(p_twin, 'replaced', p_actor, line_salt, moment, p_by => 'person',
                                     p_consent => live.taken, p_purposes => sealed_list(line_salt, live.purposes),
                                     p_client => p_client, p_replaced_by => made);
                t.ledger_seq := t.ledger_seq + 1;
            END LOOP;
        END IF;
        INSERT INTO notices AS n (twin_id, sha256, notice) VALUES (p_twin, digest, p_notice)
        ON CONFLICT (twin_id, sha256) DO UPDATE SET notice = EXCLUDED.notice WHERE n.notice IS NULL;
        IF p_person IS NOT NULL THEN
            INSERT INTO named_accounts (twin_id, account, named_at) VALUES (p_twin, p_person, moment)
            ON CONFLICT (twin_id, account) DO NOTHING;
            IF NOT FOUND AND NOT is_named(p_twin, p_person) THEN
                UPDATE named_accounts n SET named_at = moment WHERE n.twin_id = p_twin AND n.account = p_person;
            END IF;
        END IF;
        INSERT INTO consents (id, twin_id, lineage, renews, seq, principal, label, method, purposes, notice_version,
                              notice_language, notice_sha256, given_at, not_before, expires_at, actor, client,
                              assurance, source, recipients, modalities, territories, guardian, details)
        VALUES (made, p_twin, line, p_renews, t.ledger_seq + 1, p_person, p_label, p_method, p_purposes, p_version,
                p_language, digest, moment, p_not_before, p_expires_at, p_actor, p_client,
                rank, source, given_to, p_modalities, p_territories, p_guardian, given_details);
        IF p_renews IS NOT NULL THEN
            -- What a renewal leaves out has ended.
            INSERT INTO withdrawals (twin_id, lineage, purpose, withdrawn_at, withdrawn_by, actor, client)
            SELECT p_twin, line, asked, moment, CASE WHEN is_own THEN 'principal' ELSE 'owner' END, p_actor, p_client
            FROM unnest(dropped) AS asked
            ON CONFLICT (twin_id, lineage, purpose) DO NOTHING;
            UPDATE consent_states s SET no = 'withdrawn'
            FROM unnest(dropped) AS asked WHERE s.twin_id = p_twin AND s.purpose = asked;
        END IF;
        INSERT INTO consent_states (twin_id, purpose, consent_id, lineage, seq, account, given_at, not_before,
                                    expires_at, assurance, recipients, modalities, territories)
        SELECT p_twin, asked, made, line, t.ledger_seq + 1, p_person, moment, p_not_before, p_expires_at,
               rank, keys, p_modalities, p_territories
        FROM unnest(p_purposes) AS asked
        ON CONFLICT (twin_id, purpose) DO UPDATE SET
            consent_id = EXCLUDED.consent_id, lineage = EXCLUDED.lineage, seq = EXCLUDED.seq, no = NULL,
            account = EXCLUDED.account, given_at = EXCLUDED.given_at, not_before = EXCLUDED.not_before,
            expires_at = EXCLUDED.expires_at, assurance = EXCLUDED.assurance, recipients = EXCLUDED.recipients,
            modalities = EXCLUDED.modalities, territories = EXCLUDED.territories;
        -- Without a member of the second edition the recipe stays that of the first.
        is_second := num_nonnulls(
            p_label, p_recipients, p_modalities, p_territories, p_guardian, p_details, source
        ) > 0;
        terms := CASE WHEN is_second THEN '{"details":' || coalesce(p_details, 'null') || ',' ELSE '{' END
            || '"expires_at":' || coalesce('"' || moment_text(p_expires_at) || '"', 'null')
            || CASE WHEN is_second THEN ',"guardian":' || coalesce(to_json(p_guardian)::text, 'null')
                                     || ',"label":' || coalesce(to_json(p_label)::text, 'null') ELSE '' END
            || ',"method":' || to_json(p_method)
            || CASE WHEN is_second THEN ',"modalities":' || coalesce(to_json(p_modalities)::text, 'null') ELSE '' END
            || ',"not_before":' || coalesce('"' || moment_text(p_not_before) || '"', 'null')
            || ',"notice_language":' || to_json(p_language)
            || ',"notice_sha256":"' || encode(digest, 'hex')
            || '","notice_version":' || to_json(p_version)
            || ',"principal":' || coalesce(to_json(p_person)::text, 'null')
            || ',"purposes":' || to_json(p_purposes)
            || CASE WHEN is_second THEN ',"recipients":' || coalesce(p_recipients, 'null')
                                     || ',"source":' || coalesce('"' || source || '"', 'null')
                                     || ',"territories":' || coalesce(to_json(p_territories)::text, 'null')
                                     || ',"v":2}' ELSE '}' END;
        PERFORM append_event(p_twin, CASE WHEN p_renews IS NULL THEN 'given' ELSE 'renewed' END, p_actor, line_salt,
                             moment, p_consent => made, p_renews => p_renews, p_terms => seal(line_salt, terms),
                             p_client => p_client,
                             p_assurance => (ARRAY['recorded', 'link', 'token'])[rank + 1]);
        number := CASE WHEN is_owners_word THEN 0 WHEN is_listed THEN 2 ELSE 1 END;
        IF number > t.spoken THEN
            UPDATE twins SET spoken = number WHERE id = p_twin;
        END IF;
        RETURN QUERY SELECT NULL::text, made, NULL::text;
    END $$
"""

_APPEND_EVENT = """
    CREATE FUNCTION append_event(
        p_twin uuid, p_kind text, p_actor text, p_salt bytea, p_at timestamptz, p_by text DEFAULT NULL,
        p_consent uuid DEFAULT NULL, p_erasure uuid DEFAULT NULL, p_lock uuid DEFAULT NULL,
        p_purposes text DEFAULT NULL, p_renews uuid DEFAULT NULL, p_terms text DEFAULT NULL,
        p_client text DEFAULT NULL, p_assurance text DEFAULT NULL, p_replaced_by uuid DEFAULT NULL
    ) RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE
        head record;
        event text;
        digest bytea;
    BEGIN
        SELECT ledger_seq, ledger_hash INTO head FROM twins WHERE id = p_twin;
        event := format('{"actor":"%s"', seal(p_salt, p_actor))
            || coalesce(',"assurance":"' || p_assurance || '"', '')
            || ',"at":"' || moment_text(p_at) || '"'
            || coalesce(',"by":"' || p_by || '"', '')
            || coalesce(',"client":"' || seal(p_salt, p_client) || '"', '')
            || coalesce(',"consent_id":"' || p_consent || '"', '')
            || coalesce(',"erasure_id":"' || p_erasure || '"', '')
            || coalesce(',"lock_id":"' || p_lock || '"', '')
            || ',"prev_hash":"' || encode(head.ledger_hash, 'hex') || '"'
            || coalesce(',"purposes":' || p_purposes, '')
            || coalesce(',"renews":"' || p_renews || '"', '')
            || coalesce(',"replaced_by":"' || p_replaced_by || '"', '')
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
"""

# A renewal takes something away where it ends earlier, begins later, or is limited where the old consent was not. Every
# further term that can limit a consent belongs here.
_IS_NARROWER = """
    CREATE OR REPLACE FUNCTION is_narrower(old consents, new consents) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
        SELECT coalesce(new.expires_at, 'infinity') < coalesce(old.expires_at, 'infinity')
            OR coalesce(new.not_before, '-infinity') > greatest(old.not_before, new.given_at)
            OR new.recipients IS NOT NULL AND NOT coalesce(old.recipients <@ new.recipients, false)
            OR new.modalities IS NOT NULL AND NOT coalesce(old.modalities <@ new.modalities, false)
            OR new.territories IS NOT NULL AND NOT coalesce(old.territories <@ new.territories, false)
    $$
"""

# Of these functions the rest stays, whatever revision wrote it.
_CHANGED: dict[str, dict[str, str]] = {
    "say_no": {"AND given_principal <> p_actor\n": "AND given_principal IS DISTINCT FROM p_actor\n"},
    "note_event": {
        """
            IF NOT is_narrower(renewed, given) THEN
                RETURN NULL;
            END IF;
            line := given.lineage;
            purposes := given.purposes;
""": """
            line := given.lineage;
            -- What the renewal has left out has ended, and an earlier no has an entry of its own.
            purposes := ARRAY(
                SELECT w.purpose FROM withdrawals w
                WHERE w.twin_id = NEW.twin_id AND w.lineage = line AND w.withdrawn_at = given.given_at
                  AND w.purpose = ANY (renewed.purposes) AND w.purpose <> ALL (given.purposes)
            );
            IF is_narrower(renewed, given) THEN
                purposes := given.purposes || purposes;
            END IF;
            IF purposes = '{}' THEN
                RETURN NULL;
            END IF;
""",
        "s.lineage = coalesce(line, '00000000-0000-0000-0000-000000000000');": (
            "s.lineage = coalesce((event->>'replaced_by')::uuid, line, '00000000-0000-0000-0000-000000000000');"
        ),
    },
    "repeat_event": {
        "ELSIF kind IN ('withdrawn', 'renewed') AND": "ELSIF kind IN ('withdrawn', 'renewed', 'replaced') AND"
    },
    # --- Erasure ---------------------------------------------------------------------------------------
    "erase_account": {
        "WHERE actor = p_account AND actor <> principal AND given_at > since\n           )": (
            """WHERE actor = p_account AND actor IS DISTINCT FROM principal AND given_at > since
           )
           AND NOT EXISTS (SELECT 1 FROM consents WHERE guardian = p_account AND given_at > since)"""
        )
    },
    "naming_twins": {
        "c.actor <> c.principal AND c.given_at <= a.erased_at LIMIT p_limit)": (
            """c.actor IS DISTINCT FROM c.principal AND c.given_at <= a.erased_at LIMIT p_limit)
            UNION ALL
            (SELECT c.twin_id, NULL FROM consents c
             WHERE c.guardian = a.account AND c.given_at <= a.erased_at LIMIT p_limit)"""
        )
    },
    # Terms, times and states stay; evidence goes.
    "forget_person": {
        "client = CASE WHEN c.actor <> who.account THEN c.client END\n": (
            """client = CASE WHEN c.actor <> who.account THEN c.client END,
                guardian = NULL, details = NULL
"""
        ),
        "AND c.principal COLLATE \"C\" >= ' '\n        );": (
            """AND c.principal COLLATE "C" >= ' '
        ) AND NOT EXISTS (
            SELECT FROM consents c
            WHERE c.twin_id = p_twin AND c.notice_sha256 = n.sha256 AND c.principal IS NULL
        );"""
        ),
        "a.actor <> a.principal\n": "a.actor IS DISTINCT FROM a.principal\n",
        """
            RETURNING w.lineage
        )
        DELETE FROM salts s
        WHERE s.twin_id = p_twin AND s.lineage IN (SELECT lineage FROM given UNION SELECT lineage FROM ended);
""": """
            RETURNING w.lineage
        ), guarded AS (
            UPDATE consents c SET guardian = NULL, details = nullif(details - 'relation', '{}')
            WHERE c.twin_id = p_twin AND c.id = ANY (ARRAY(
                SELECT id FROM consents a
                WHERE a.guardian = who.account AND a.twin_id = p_twin AND a.given_at <= who.erased_at LIMIT 1000
            ))
            RETURNING c.lineage
        )
        DELETE FROM salts s
        WHERE s.twin_id = p_twin AND s.lineage IN (
            SELECT lineage FROM given UNION SELECT lineage FROM ended UNION SELECT lineage FROM guarded
        );
""",
    },
}

_NEW_GIVE = (
    "give_consent(uuid, text, text, text, bytea, text, text[], text, text, text, timestamptz, timestamptz, uuid, "
    "text, text, text, text[], text[], text, text)"
)
_NEW_APPEND = (
    "append_event(uuid, text, text, bytea, timestamptz, text, uuid, uuid, uuid, text, uuid, text, text, text, uuid)"
)
_NEW_REASON = (
    "reason_of(boolean, bigint, bigint, text, text, smallint, smallint, text, text, text[], text, text[], text, "
    "text[], text)"
)

_PRIVILEGES = (
    *(f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC" for name in (_NEW_GIVE, _NEW_APPEND, _NEW_REASON)),
    "REVOKE ALL ON FUNCTION recipient_keys(jsonb) FROM PUBLIC",
    *(f"GRANT EXECUTE ON FUNCTION {name} TO twins_serving" for name in (_NEW_GIVE, _NEW_REASON)),
    # Views call functions as whoever reads them.
    "GRANT EXECUTE ON FUNCTION recipient_keys(jsonb) TO twins_serving",
    "GRANT SELECT ON decisions, consent_records, ledger_consents, ledger_states TO twins_serving",
)

_CANNOT_SAY = """
    SELECT 'consents with terms of the second edition' AS what, count(*) AS number FROM consents
        WHERE num_nonnulls(label, source, recipients, modalities, territories, guardian, details) > 0
           OR principal IS NULL
    UNION ALL SELECT 'consents that a person''s own took the place of', count(*) FROM consents
        WHERE taken_by IS NOT NULL
    UNION ALL SELECT 'purposes that a renewal left out', count(*) FROM withdrawals w JOIN consents c
        ON c.twin_id = w.twin_id AND c.lineage = w.lineage AND c.given_at = w.withdrawn_at AND c.renews IS NOT NULL
"""


def _statement(module: ModuleType, names: tuple[str, ...], what: str) -> str:
    """Return the statement of a revision that makes something."""
    texts: Iterator[str] = (text for name in names for text in getattr(module, name))
    return next(text for text in texts if what in text)


def _before(connection: Connection) -> None:
    """Make the functions and views of the revisions before."""
    six, seven, ten, nine = (
        import_module(f"migrations.versions.{name}")
        for name in ("20261128_6_no", "20261128_7_actor", "20261128_10_shards", "20261128_9_journal")
    )

    def statements() -> Iterator[str]:
        yield _statement(ten, ("_VIEWS",), "CREATE VIEW decisions AS")
        yield _statement(nine, ("_TABLES",), "CREATE FUNCTION reason_of(")
        yield _statement(ten, ("_VIEWS",), "CREATE VIEW consent_records AS")
        yield _statement(seven, ("_VIEWS",), "CREATE VIEW ledger_consents AS")
        yield _statement(six, ("_READ",), "CREATE VIEW ledger_states AS")
        yield _statement(nine, ("_WRITE",), "CREATE FUNCTION is_narrower(").replace(
            "CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"
        )
        for name in ("append_event", "give_consent"):
            yield _statement(six, ("_WRITE",), f"CREATE FUNCTION {name}(")

    for statement in statements():
        connection.exec_driver_sql(statement)
    for change in seven._CHANGES:  # noqa: SLF001 - its SQL
        if change.function.startswith(("append_event(", "give_consent(")):
            seven._change(connection, change, back=False)  # noqa: SLF001
    rewrite(connection, "give_consent", ten._CHANGED["give_consent"])  # noqa: SLF001 - its SQL


def upgrade() -> None:
    connection = op.get_bind()
    refuse_to_run_beside(connection)
    for statement in (*_TABLES, *_READ):
        connection.exec_driver_sql(statement)
    for name, parts in _CHANGED.items():
        rewrite(connection, name, parts)
    connection.exec_driver_sql("DROP FUNCTION give_consent, append_event")
    for statement in (_APPEND_EVENT, _GIVE_CONSENT, _IS_NARROWER, *_PRIVILEGES):
        connection.exec_driver_sql(statement)


_DOWN = (
    "DROP VIEW consent_records, ledger_consents, ledger_states, decisions",
    "DROP FUNCTION reason_of, give_consent, append_event, recipient_keys",
    "DROP INDEX consents_actor_idx, consents_guardian_idx",
    """
    ALTER TABLE consents
        ALTER COLUMN principal SET NOT NULL,
        DROP CONSTRAINT consents_one_person,
        DROP COLUMN label, DROP COLUMN assurance, DROP COLUMN source, DROP COLUMN taken_by, DROP COLUMN recipients,
        DROP COLUMN modalities, DROP COLUMN territories, DROP COLUMN guardian, DROP COLUMN details
    """,
    """
    ALTER TABLE consent_states
        DROP COLUMN assurance, DROP COLUMN recipients, DROP COLUMN modalities, DROP COLUMN territories
    """,
    "CREATE INDEX consents_actor_idx ON consents (actor, twin_id) WHERE actor <> principal",
)
_PRIVILEGES_BEFORE = (
    "REVOKE ALL ON FUNCTION reason_of FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION reason_of TO twins_serving",
    "GRANT SELECT ON decisions, consent_records, ledger_consents, ledger_states TO twins_serving",
)


def downgrade() -> None:
    connection = op.get_bind()
    refuse_to_run_beside(connection)
    stands = [f"{number} {what}" for what, number in connection.exec_driver_sql(_CANNOT_SAY) if number]
    if stands:
        raise SystemExit(f"The schema before {revision} cannot express: {'; '.join(stands)}.")
    for name, parts in _CHANGED.items():
        rewrite(connection, name, back(parts))
    for statement in _DOWN:
        connection.exec_driver_sql(statement)
    _before(connection)
    for statement in _PRIVILEGES_BEFORE:
        connection.exec_driver_sql(statement)
