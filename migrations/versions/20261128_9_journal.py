"""Every no is journalled in MongoDB too, and after a restore the gate is closed until nothing is missing.

Triggers on the ledger and on erased accounts note what has to be journalled, so that no path can forget it.
"""

from alembic import op

from migrations.instances import refuse_to_run_beside

revision = "20261128_9"
down_revision = "20261128_10"

_TABLES = (
    # --- What is to be journalled ----------------------------------------------------------------------
    # Ids, purposes and times, and no account: who opens a refusal is read from `locks` when the entry is written to
    # MongoDB, so that an erasure of the person until then takes it. Rows go when they are written.
    """
    CREATE TABLE journal_entries (
        subject uuid NOT NULL,
        hash bytea NOT NULL,
        seq bigint NOT NULL,
        at timestamptz NOT NULL,
        entry jsonb NOT NULL,
        CONSTRAINT journal_entries_pkey PRIMARY KEY (subject, hash)
    )
    """,
    "CREATE INDEX outbox_subject_idx ON outbox (subject)",
    # --- After a restore -------------------------------------------------------------------------------
    # One row, which each question to the gate reads and hardly anything writes.
    """
    CREATE TABLE restore_state (
        one boolean NOT NULL DEFAULT true
            CONSTRAINT restore_state_pkey PRIMARY KEY CONSTRAINT restore_state_one CHECK (one),
        epoch bigint NOT NULL
    )
    """,
    "INSERT INTO restore_state (epoch) VALUES (0)",
    # Each closing of the gate: by whom, which journal counts (an operator's word), and how far the replay has come.
    # The serving role decides neither. `compared_to`: the ledgers have all that was journalled up to this moment.
    # `seen_to`: the newest entry that was seen; a journal without it is older.
    """
    CREATE TABLE restores (
        epoch bigint NOT NULL CONSTRAINT restores_pkey PRIMARY KEY,
        closed_at timestamptz NOT NULL DEFAULT now(),
        closed_by text NOT NULL CONSTRAINT restores_closed_by CHECK (closed_by IN ('nobody', 'app', 'operator')),
        journal text CONSTRAINT restores_journal CHECK (journal IN ('running', 'named', 'lost')),
        decided_at timestamptz,
        are_accounts_erased boolean NOT NULL DEFAULT false,
        after uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
        leased_until timestamptz NOT NULL DEFAULT now(),
        confirmed bigint NOT NULL DEFAULT 0,
        -- Twins that an operator has opened by name.
        opened_unconfirmed uuid[] NOT NULL DEFAULT '{}',
        ended_at timestamptz,
        compared_to timestamptz NOT NULL DEFAULT '2000-01-01Z',
        seen_to timestamptz
    )
    """,
    "INSERT INTO restores (epoch, closed_by, ended_at) VALUES (0, 'nobody', now())",
    # What the journal has and the ledger has lost. `as_seq`: the event that repeats it.
    """
    CREATE TABLE lost_events (
        subject uuid NOT NULL,
        hash bytea NOT NULL,
        seq bigint NOT NULL,
        at timestamptz NOT NULL,
        entry jsonb NOT NULL,
        origin bytea,
        replayed_at timestamptz,
        as_seq bigint,
        outcome text,
        CONSTRAINT lost_events_pkey PRIMARY KEY (subject, hash)
    )
    """,
    "CREATE INDEX lost_events_waiting_idx ON lost_events (subject, at) WHERE replayed_at IS NULL",
    "CREATE INDEX lost_events_at_idx ON lost_events (at) WHERE replayed_at IS NOT NULL",
    # The entry that an event repeats, for the journal.
    """
    CREATE VIEW repeated_events AS
    SELECT subject, as_seq, hash FROM lost_events WHERE as_seq IS NOT NULL
    """,
    # Twins that a restore has left closed.
    """
    CREATE TABLE unconfirmed_twins (
        twin_id uuid NOT NULL CONSTRAINT unconfirmed_twins_pkey PRIMARY KEY,
        reason text NOT NULL,
        found_at timestamptz NOT NULL DEFAULT now(),
        tried_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    # --- The gate --------------------------------------------------------------------------------------
    "CREATE FUNCTION present_epoch() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT epoch FROM restore_state'",
    "ALTER TABLE twins ADD COLUMN epoch bigint NOT NULL DEFAULT 0",
    "ALTER TABLE twins ALTER COLUMN epoch SET DEFAULT present_epoch()",
    # One look-up for a statement, whatever the number of its twins.
    """
    CREATE OR REPLACE VIEW live_twins AS
    SELECT id, owner, twin_name, use_case, tone, principals, stop_seq, spoken, version, persona_version, created_at,
           updated_at, epoch < (SELECT r.epoch FROM restore_state r) AS is_unconfirmed
    FROM twins t WHERE erased_at IS NULL AND NOT EXISTS (
        SELECT FROM erased_accounts e WHERE e.account = t.owner AND e.erased_at >= t.created_at
    )
    """,
    # The answer of the gate, unless a restore may have lost a no. The planner inlines it.
    "DROP FUNCTION reason_of(bigint, bigint, text, text)",
    """
    CREATE FUNCTION reason_of(is_unconfirmed boolean, stop_seq bigint, seq bigint, ended text, standing text)
    RETURNS text LANGUAGE sql IMMUTABLE AS $$
        SELECT CASE WHEN is_unconfirmed THEN 'unconfirmed_after_restore' ELSE
            coalesce(ended, CASE WHEN coalesce(seq, 0) <= stop_seq THEN 'refused' END, standing, 'no_consent')
        END
    $$
    """,
)

_WRITE = (
    # --- Noting ------------------------------------------------------------------------------------------
    # A renewal that ends earlier or begins later than what it renews takes something away. Every further term that
    # can limit a consent belongs here.
    """
    CREATE FUNCTION is_narrower(old consents, new consents) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
        SELECT coalesce(new.expires_at, 'infinity') < coalesce(old.expires_at, 'infinity')
            OR coalesce(new.not_before, '-infinity') > greatest(old.not_before, new.given_at)
    $$
    """,
    # What the events name by HMACs stands in the entry by name: these purposes of the refusal or of the consent are
    # the ones. Behind the lock of the twin, like every event.
    """
    CREATE FUNCTION note_event() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = public, pg_temp AS $$
    #variable_conflict use_column
    DECLARE
        event constant jsonb := NEW.event::jsonb;
        kind constant text := event->>'type';
        of_consent constant uuid := (event->>'consent_id')::uuid;
        of_lock constant uuid := (event->>'lock_id')::uuid;
        of_erasure constant uuid := (event->>'erasure_id')::uuid;
        given consents;
        renewed consents;
        line uuid;
        key bytea;
        named text[];
        candidates text[];
        purposes text[];
        owner_digest bytea;
    BEGIN
        IF kind = 'erased' THEN
            IF EXISTS (SELECT FROM erased_accounts a WHERE a.erasure_id = of_erasure) THEN
                RETURN NULL;  -- with its account, which has an entry
            END IF;
            SELECT e.owner_digest INTO owner_digest FROM erasures e WHERE e.id = of_erasure;
        ELSIF kind = 'renewed' THEN
            SELECT * INTO given FROM consents c WHERE c.twin_id = NEW.twin_id AND c.id = of_consent;
            SELECT * INTO renewed FROM consents c WHERE c.twin_id = NEW.twin_id AND c.id = given.renews;
            IF NOT is_narrower(renewed, given) THEN
                RETURN NULL;
            END IF;
            line := given.lineage;
            purposes := given.purposes;
        ELSE
            IF of_consent IS NOT NULL THEN
                SELECT c.lineage INTO line FROM consents c WHERE c.twin_id = NEW.twin_id AND c.id = of_consent;
                SELECT c.purposes INTO candidates FROM consents c WHERE c.twin_id = NEW.twin_id AND c.id = line;
            ELSE
                SELECT coalesce(l.purposes, '{}') || l.exceptions INTO candidates FROM locks l
                WHERE l.twin_id = NEW.twin_id AND l.id = of_lock;
            END IF;
            IF jsonb_typeof(event->'purposes') = 'array' THEN
                named := ARRAY(SELECT jsonb_array_elements_text(event->'purposes'));
                SELECT s.salt INTO key FROM salts s
                WHERE s.twin_id = NEW.twin_id AND s.lineage = coalesce(line, '00000000-0000-0000-0000-000000000000');
                purposes := ARRAY(SELECT p FROM unnest(candidates) AS p WHERE seal(key, p) = ANY (named));
                IF cardinality(purposes) < cardinality(named) THEN
                    -- An exception of a refusal that ends, or a purpose that its author opens.
                    purposes := ARRAY(
                        SELECT s.purpose FROM consent_states s
                        WHERE s.twin_id = NEW.twin_id AND seal(key, s.purpose) = ANY (named)
                    );
                END IF;
                IF cardinality(purposes) < cardinality(named) THEN
                    RAISE EXCEPTION 'the purposes of an event have no name';
                END IF;
            END IF;
        END IF;
        INSERT INTO journal_entries (subject, hash, seq, at, entry)
        VALUES (NEW.twin_id, NEW.hash, NEW.seq, (event->>'at')::timestamptz, jsonb_build_object(
            'type', kind, 'by', event->>'by', 'lock_id', of_lock, 'lineage', line, 'purposes', to_jsonb(purposes),
            'erasure_id', of_erasure, 'owner_digest', encode(owner_digest, 'hex')
        ));
        INSERT INTO outbox (kind, subject) VALUES ('journal', NEW.twin_id);
        RETURN NULL;
    END $$
    """,
    # An event ends with its type and version, and no other member can.
    """
    CREATE TRIGGER consent_events_journal AFTER INSERT ON consent_events
    FOR EACH ROW WHEN (NEW.event NOT LIKE '%"type":"given","v":2}') EXECUTE FUNCTION note_event()
    """,
    "ALTER TABLE consent_events ENABLE ALWAYS TRIGGER consent_events_journal",
    # The subject is the beginning of the account's keyed digest, which stays in `erased_accounts` for good.
    """
    CREATE FUNCTION note_account() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DECLARE
        whom constant uuid := encode(substr(NEW.digest, 1, 16), 'hex')::uuid;
    BEGIN
        INSERT INTO journal_entries (subject, hash, seq, at, entry)
        SELECT whom, sha256(uuid_send(NEW.erasure_id)), 0, NEW.erased_at, jsonb_build_object(
            'type', 'account_erased', 'erasure_id', NEW.erasure_id, 'digest', encode(NEW.digest, 'hex'),
            'owner_digest', encode(e.owner_digest, 'hex')
        )
        FROM erasures e WHERE e.id = NEW.erasure_id;
        INSERT INTO outbox (kind, subject) VALUES ('journal', whom);
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER erased_accounts_journal AFTER INSERT ON erased_accounts
    FOR EACH ROW EXECUTE FUNCTION note_account()
    """,
    "ALTER TABLE erased_accounts ENABLE ALWAYS TRIGGER erased_accounts_journal",
    # These entries are in MongoDB. A job that comes later finds nothing to do.
    """
    CREATE FUNCTION forget_entries(p_subject uuid, p_hashes bytea[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    BEGIN
        DELETE FROM journal_entries WHERE subject = p_subject AND hash = ANY (p_hashes);
        DELETE FROM outbox o
        WHERE o.subject = p_subject AND o.kind = 'journal'
          AND NOT EXISTS (SELECT FROM journal_entries e WHERE e.subject = p_subject);
    END $$
    """,
    # --- Comparing ---------------------------------------------------------------------------------------
    # Which of these entries of the journal are neither in the ledgers nor known to be lost. Each is looked up by its
    # keys: a join would read all events.
    """
    CREATE FUNCTION lost_of(p_subjects uuid[], p_seqs bigint[], p_hashes bytea[], p_erasures uuid[])
    RETURNS SETOF bytea LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    BEGIN
        RETURN QUERY SELECT a.hash
        FROM unnest(p_subjects, p_seqs, p_hashes, p_erasures) AS a (subject, seq, hash, erasure)
        WHERE (SELECT true FROM consent_events e
               WHERE e.twin_id = a.subject AND e.seq = a.seq AND e.hash = a.hash LIMIT 1) IS NULL
          AND (SELECT true FROM erased_accounts e WHERE e.erasure_id = a.erasure LIMIT 1) IS NULL
          AND (SELECT true FROM lost_events l WHERE l.subject = a.subject AND l.hash = a.hash LIMIT 1) IS NULL;
    END $$
    """,
    # --- Closing and opening -----------------------------------------------------------------------------
    """
    CREATE FUNCTION begin_restore(p_by text) RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE number bigint;
    BEGIN
        UPDATE restore_state SET epoch = epoch + 1 RETURNING epoch INTO number;
        UPDATE restores SET ended_at = now() WHERE ended_at IS NULL;
        INSERT INTO restores (epoch, closed_by, compared_to, seen_to)
        SELECT number, p_by, r.compared_to, r.seen_to FROM restores r ORDER BY r.epoch DESC LIMIT 1;
        RETURN number;
    END $$
    """,
    # For the app; NULL where the gate is closed and waits for an operator already.
    """
    CREATE FUNCTION close_gate() RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    BEGIN
        PERFORM FROM restore_state FOR UPDATE;
        IF EXISTS (SELECT FROM restores WHERE ended_at IS NULL AND journal IS NULL) THEN
            RETURN NULL;
        END IF;
        RETURN begin_restore('app');
    END $$
    """,
    # Opens the gate for a twin, once nothing that it lost waits to be repeated. What is left of the openers that
    # nobody could name any more are refusals that nobody can open.
    r"""
    CREATE FUNCTION confirm_twin(p_twin uuid, p_epoch bigint) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    BEGIN
        IF NOT EXISTS (SELECT FROM restores WHERE epoch = p_epoch AND journal IS NOT NULL)
           OR p_epoch <> present_epoch()
           OR EXISTS (SELECT FROM lost_events WHERE subject = p_twin AND replayed_at IS NULL) THEN
            RETURN false;
        END IF;
        UPDATE locks SET opener = NULL, opener_kind = 'none'
        WHERE twin_id = p_twin AND opener LIKE E'\x01lost:%';
        UPDATE twins SET epoch = p_epoch WHERE id = p_twin AND epoch < p_epoch;
        DELETE FROM unconfirmed_twins WHERE twin_id = p_twin;
        RETURN true;
    END $$
    """,
    # --- Repeating ---------------------------------------------------------------------------------------
    # The accounts that may be those behind the digests of a twin's entries.
    """
    CREATE FUNCTION accounts_on(p_twin uuid) RETURNS SETOF text LANGUAGE plpgsql STABLE AS $$
    BEGIN
        RETURN QUERY SELECT account FROM named_accounts WHERE twin_id = p_twin;
    END $$
    """,
    """
    CREATE FUNCTION restorable_twins(p_after uuid, p_limit bigint)
    RETURNS TABLE (id uuid, epoch bigint, erased_at timestamptz) LANGUAGE plpgsql STABLE AS $$
    BEGIN
        RETURN QUERY SELECT t.id, t.epoch, t.erased_at FROM twins t WHERE t.id > p_after ORDER BY t.id LIMIT p_limit;
    END $$
    """,
    # All accounts, in order: each by its own look-up, since one account can have a million twins.
    """
    CREATE FUNCTION accounts_after(p_after text, p_limit bigint) RETURNS SETOF text LANGUAGE plpgsql STABLE AS $$
    DECLARE one text := p_after;
    BEGIN
        FOR _ IN 1..p_limit LOOP
            one := least(
                (SELECT owner FROM twins WHERE owner > one ORDER BY owner LIMIT 1),
                (SELECT account FROM named_accounts WHERE account > one ORDER BY account LIMIT 1)
            );
            EXIT WHEN one IS NULL;
            RETURN NEXT one;
        END LOOP;
    END $$
    """,
    # With its own time: what is younger is not erased. Without an account there is nothing of it in this database.
    """
    CREATE FUNCTION repeat_account(p_subject uuid, p_hash bytea, p_account text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DECLARE
        l record;
        of_erasure uuid;
    BEGIN
        SELECT at, entry INTO l FROM lost_events
        WHERE subject = p_subject AND hash = p_hash AND replayed_at IS NULL FOR UPDATE;
        IF NOT FOUND THEN
            RETURN;
        END IF;
        IF p_account IS NOT NULL THEN
            PERFORM pg_advisory_xact_lock(account_key(p_account));
        END IF;
        of_erasure := (l.entry->>'erasure_id')::uuid;
        INSERT INTO erasures (id, owner_digest, step, requested_at)
        VALUES (of_erasure, decode(l.entry->>'owner_digest', 'hex'), 'twins', l.at) ON CONFLICT (id) DO NOTHING;
        INSERT INTO erased_accounts (account, actor, digest, erased_at, erasure_id)
        VALUES (p_account, p_account, decode(l.entry->>'digest', 'hex'), l.at, of_erasure)
        ON CONFLICT (erasure_id) DO NOTHING;
        INSERT INTO outbox (kind, subject) VALUES ('erasure', of_erasure);
        UPDATE lost_events
        SET replayed_at = now(), outcome = CASE WHEN p_account IS NULL THEN 'nothing is left' ELSE 'repeated' END
        WHERE subject = p_subject AND hash = p_hash;
    END $$
    """,
    # One event that a twin has lost, by the functions that wrote it first. `p_opener`: the account behind the digest;
    # where it is not known, the refusal keeps its id, and nobody can open it.
    r"""
    CREATE FUNCTION repeat_event(p_twin uuid, p_hash bytea, p_opener text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    #variable_conflict use_column
    DECLARE
        t record;
        l record;
        held record;
        placed record;
        kind text;
        of_lock uuid;
        line uuid;
        latest uuid;
        role text;
        actor text;
        wanted text[];
        given text[];
        opened text[];
        key bytea;
        is_early boolean := false;
        result text := 'repeated';
    BEGIN
        SELECT owner, created_at, erased_at, ledger_seq, ledger_at INTO t
        FROM twins WHERE id = p_twin FOR NO KEY UPDATE;
        SELECT seq, at, entry INTO l FROM lost_events
        WHERE subject = p_twin AND hash = p_hash AND replayed_at IS NULL FOR UPDATE;
        IF l.entry IS NULL THEN
            RETURN NULL;
        END IF;
        kind := l.entry->>'type';
        of_lock := (l.entry->>'lock_id')::uuid;
        line := (l.entry->>'lineage')::uuid;
        wanted := CASE WHEN jsonb_typeof(l.entry->'purposes') = 'array'
                  THEN ARRAY(SELECT jsonb_array_elements_text(l.entry->'purposes')) END;
        role := CASE WHEN l.entry->>'opener_kind' = 'operator' THEN 'operator' ELSE 'account' END;
        actor := p_opener;
        IF actor IS NULL OR EXISTS (
            SELECT FROM erased_accounts e
            WHERE e.digest = decode(l.entry->>'opener', 'hex') AND e.erased_at >= l.at
        ) THEN
            actor := E'\x01lost:' || of_lock;  -- in no token
        END IF;
        IF line IS NOT NULL THEN
            SELECT purposes INTO given FROM consents c WHERE c.twin_id = p_twin AND c.id = line;
            SELECT id INTO latest FROM consents c WHERE c.twin_id = p_twin AND c.lineage = line
            ORDER BY c.id DESC LIMIT 1;
        END IF;

        IF t.owner IS NULL OR t.erased_at IS NOT NULL OR account_erased(t.owner, t.created_at) THEN
            result := 'the twin is erased';
        ELSIF kind = 'erased' THEN
            INSERT INTO erasures (id, owner_digest, requested_at, removed)
            VALUES ((l.entry->>'erasure_id')::uuid, decode(l.entry->>'owner_digest', 'hex'), l.at, '{"twins": 1}')
            ON CONFLICT (id) DO NOTHING;
            PERFORM erase_twins((l.entry->>'erasure_id')::uuid, t.owner, t.owner, ARRAY[p_twin]);
            INSERT INTO outbox (kind, subject) VALUES ('erasure', (l.entry->>'erasure_id')::uuid);
        ELSIF kind IN ('withdrawn', 'renewed') AND of_lock IS NULL THEN
            IF given IS NULL THEN
                result := 'the consent is not here';
            ELSE
                wanted := ARRAY(SELECT p FROM unnest(coalesce(wanted, given)) AS p WHERE p = ANY (given));
                PERFORM revoke_consent(p_twin, t.owner, t.owner, line, wanted);
            END IF;
        ELSIF kind IN ('withdrawn', 'refused') THEN
            -- An empty refusal with the id of the lost one, where none stands in its way: the no widens it.
            IF NOT EXISTS (
                SELECT FROM locks k
                WHERE k.twin_id = p_twin AND (k.id = of_lock OR k.opened_at IS NULL AND k.opener_kind = role
                      AND k.opener IS NOT DISTINCT FROM CASE WHEN role = 'account' THEN actor END)
            ) THEN
                INSERT INTO locks (twin_id, id, opener, opener_kind, purposes, refused_at)
                VALUES (p_twin, of_lock, CASE WHEN role = 'account' THEN actor END, role, '{}', now());
                is_early := true;
            END IF;
            SELECT * INTO placed FROM place_lock(p_twin, actor, role, wanted, latest,
                                                 CASE WHEN latest IS NOT NULL THEN line END);
            IF is_early THEN
                UPDATE locks SET refused_at = placed.said_at WHERE twin_id = p_twin AND id = of_lock;
            END IF;
            IF latest IS NOT NULL AND placed.said_at IS NOT NULL THEN
                INSERT INTO withdrawals (twin_id, lineage, purpose, withdrawn_at, withdrawn_by)
                SELECT p_twin, line, asked, placed.said_at,
                       CASE WHEN role = 'operator' THEN 'operator' ELSE 'person' END
                FROM unnest(wanted) AS asked
                ON CONFLICT (twin_id, lineage, purpose) DO NOTHING;
            END IF;
        ELSE
            SELECT purposes, exceptions, opener, opener_kind INTO held FROM locks k
            WHERE k.twin_id = p_twin AND k.id = of_lock AND k.opened_at IS NULL;
            IF NOT FOUND THEN
                result := 'the refusal is not here';
            ELSE
                opened := CASE WHEN wanted IS NULL OR held.purposes <@ wanted THEN held.purposes ELSE wanted END;
                t.ledger_at := greatest(clock_timestamp(), t.ledger_at);
                UPDATE locks k SET
                    opened_at = CASE WHEN wanted IS NULL OR k.purposes <@ wanted THEN t.ledger_at END,
                    exceptions = CASE WHEN k.purposes IS NULL AND wanted IS NOT NULL
                                 THEN k.exceptions || wanted ELSE k.exceptions END,
                    purposes = CASE WHEN k.purposes <@ wanted THEN k.purposes
                               WHEN k.purposes IS NOT NULL AND wanted IS NOT NULL
                               THEN ARRAY(SELECT p FROM unnest(k.purposes) AS p WHERE p <> ALL (wanted))
                               ELSE k.purposes END
                WHERE k.twin_id = p_twin AND k.id = of_lock;
                key := salt_of(p_twin, '00000000-0000-0000-0000-000000000000', t.ledger_seq + 1);
                PERFORM append_event(
                    p_twin, 'opened', coalesce(held.opener, actor), key, t.ledger_at, p_lock => of_lock,
                    p_by => CASE WHEN held.opener_kind = 'operator' THEN 'operator' ELSE 'person' END,
                    p_purposes => CASE WHEN opened IS NULL THEN 'null' ELSE sealed_list(key, opened) END
                );
            END IF;
        END IF;
        UPDATE lost_events SET replayed_at = now(), outcome = result, as_seq = (
            SELECT w.ledger_seq FROM twins w WHERE w.id = p_twin AND w.ledger_seq > t.ledger_seq
        )
        WHERE subject = p_twin AND hash = p_hash;
        RETURN result;
    END $$
    """,
    """
    CREATE FUNCTION forget_lost(p_before timestamptz) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
        DELETE FROM lost_events WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM lost_events WHERE replayed_at IS NOT NULL AND at < p_before LIMIT 1000
        ))
    $$
    """,
)

_SERVING = (
    "present_epoch()",
    "reason_of(boolean, bigint, bigint, text, text)",
    "forget_entries(uuid, bytea[])",
    "lost_of(uuid[], bigint[], bytea[], uuid[])",
    "close_gate()",
    "confirm_twin(uuid, bigint)",
    "accounts_on(uuid)",
    "restorable_twins(uuid, bigint)",
    "accounts_after(text, bigint)",
    "repeat_account(uuid, bytea, text)",
    "repeat_event(uuid, bytea, text)",
    "forget_lost(timestamptz)",
)
_INTERNAL = ("begin_restore(text)", "is_narrower(consents, consents)", "note_event()", "note_account()")

_PRIVILEGES = (
    *(f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC" for name in (*_SERVING, *_INTERNAL)),
    *(f"GRANT EXECUTE ON FUNCTION {name} TO twins_serving" for name in _SERVING),
    "GRANT SELECT ON journal_entries, restore_state, lost_events, repeated_events TO twins_serving",
    # How far a restore has come, and not which journal counts.
    """
    GRANT SELECT,
          UPDATE (are_accounts_erased, after, leased_until, confirmed, ended_at, compared_to, seen_to)
    ON restores TO twins_serving
    """,
    "GRANT SELECT, INSERT, UPDATE, DELETE ON unconfirmed_twins TO twins_serving",
)

_CANNOT_SAY = """
    SELECT 'twins that a restore has closed' AS what, count(*) AS number FROM live_twins WHERE is_unconfirmed
    UNION ALL SELECT 'events that wait for the journal', count(*) FROM journal_entries
    UNION ALL SELECT 'lost events that wait to be repeated', count(*) FROM lost_events WHERE replayed_at IS NULL
"""

_DOWN = (
    "DROP TRIGGER erased_accounts_journal ON erased_accounts",
    "DROP TRIGGER consent_events_journal ON consent_events",
    "DROP VIEW repeated_events, ledger_heads, live_twins",
    "ALTER TABLE twins DROP COLUMN epoch",
    *(f"DROP FUNCTION {name}" for name in (*_SERVING, *_INTERNAL)),
    "DROP TABLE unconfirmed_twins, lost_events, restores, restore_state, journal_entries",
    """
    CREATE FUNCTION reason_of(stop_seq bigint, seq bigint, ended text, standing text) RETURNS text
    LANGUAGE sql IMMUTABLE AS $$
        SELECT coalesce(ended, CASE WHEN coalesce(seq, 0) <= stop_seq THEN 'refused' END, standing, 'no_consent')
    $$
    """,
    "REVOKE ALL ON FUNCTION reason_of(bigint, bigint, text, text) FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION reason_of(bigint, bigint, text, text) TO twins_serving",
    "DROP INDEX outbox_subject_idx",
    "DELETE FROM outbox WHERE kind = 'journal'",
    """
    CREATE VIEW live_twins AS
    SELECT id, owner, twin_name, use_case, tone, principals, stop_seq, spoken, version, persona_version, created_at,
           updated_at
    FROM twins t WHERE erased_at IS NULL AND NOT EXISTS (
        SELECT FROM erased_accounts e WHERE e.account = t.owner AND e.erased_at >= t.created_at
    )
    """,
    """
    CREATE VIEW ledger_heads AS
    SELECT t.id AS twin_id, l.owner, t.ledger_seq AS seq, t.ledger_hash AS hash, t.stop_seq, t.spoken,
           t.erased_at IS NOT NULL AS is_erased
    FROM twins t LEFT JOIN live_twins l ON l.id = t.id
    """,
    "GRANT SELECT ON live_twins, ledger_heads TO twins_serving",
)


def upgrade() -> None:
    connection = op.get_bind()
    refuse_to_run_beside(connection)
    for statement in (*_TABLES, *_WRITE, *_PRIVILEGES):
        connection.exec_driver_sql(statement)


def downgrade() -> None:
    connection = op.get_bind()
    refuse_to_run_beside(connection)
    stands = [f"{number} {what}" for what, number in connection.exec_driver_sql(_CANNOT_SAY) if number]
    if stands:
        raise SystemExit(f"The schema before {revision} cannot express: {'; '.join(stands)}.")
    for statement in _DOWN:
        connection.exec_driver_sql(statement)
