"""Consents, their states and their ledger; the gate; erasures and the outbox that carries them out."""

import hashlib
import hmac
import json
from datetime import UTC
from typing import Any

from alembic import op
from sqlalchemy import Connection

revision = "20261124_2"
down_revision = "20261124_1"

_UP = (
    # --- Twins: the ledger's head, the salt of its digests, and the rest of an erased twin ---------
    """
    ALTER TABLE twins
        -- Each twin needs a salt of its own, so its row is written anew in any case.
        -- squawk-ignore adding-field-with-default
        ADD COLUMN salt bytea DEFAULT uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()),
        ADD COLUMN ledger_seq bigint NOT NULL DEFAULT 0,
        -- squawk-ignore adding-field-with-default
        ADD COLUMN ledger_hash bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex'),
        ADD COLUMN erased_at timestamptz,
        -- An erased twin keeps its row, for the ledger, without what was personal in it.
        -- squawk-ignore ban-drop-not-null
        ALTER COLUMN owner DROP NOT NULL,
        -- squawk-ignore ban-drop-not-null
        ALTER COLUMN twin_name DROP NOT NULL,
        -- squawk-ignore ban-drop-not-null
        ALTER COLUMN use_case DROP NOT NULL,
        -- squawk-ignore ban-drop-not-null
        ALTER COLUMN tone DROP NOT NULL,
        -- It belongs to columns of this migration, which holds the table's lock already.
        -- squawk-ignore constraint-missing-not-valid
        ADD CONSTRAINT twins_erased CHECK (
            CASE WHEN erased_at IS NULL
            THEN num_nulls(owner, twin_name, use_case, tone, salt) = 0
            ELSE num_nonnulls(owner, twin_name, use_case, tone, salt) = 0 END
        )
    """,
    "REVOKE DELETE ON twins FROM twins_serving",
    # --- Consents -----------------------------------------------------------------------------------
    """
    CREATE TABLE consents (
        id uuid NOT NULL DEFAULT uuidv7() CONSTRAINT consents_pkey PRIMARY KEY,
        twin_id uuid NOT NULL CONSTRAINT consents_twin_id_fkey REFERENCES twins,
        lineage uuid NOT NULL,
        renews uuid,
        replaced_by uuid,
        principal text NOT NULL CONSTRAINT consents_principal_length CHECK (char_length(principal) <= 255),
        method text NOT NULL,
        purposes text[] NOT NULL CONSTRAINT consents_purposes_some CHECK (cardinality(purposes) > 0),
        notice_version text NOT NULL,
        notice_language text NOT NULL,
        notice_text text NOT NULL,
        notice_sha256 bytea NOT NULL
            CONSTRAINT consents_notice_sha256 CHECK (notice_sha256 = sha256(convert_to(notice_text, 'UTF8'))),
        given_at timestamptz NOT NULL,
        not_before timestamptz,
        expires_at timestamptz,
        withdrawn_at timestamptz,
        revoked boolean NOT NULL DEFAULT false,
        CONSTRAINT consents_expires_later CHECK (expires_at > greatest(given_at, not_before))
    )
    """,
    "CREATE INDEX consents_twin_id_id_idx ON consents (twin_id, id DESC)",
    "CREATE INDEX consents_lineage_idx ON consents (lineage)",
    "CREATE INDEX consents_principal_id_idx ON consents (principal, id)",
    # Terms never change: the serving role may update nothing else.
    "GRANT SELECT, INSERT, DELETE, UPDATE (withdrawn_at, revoked, replaced_by, principal) ON consents TO twins_serving",
    # The primary key allows one live grant at most for each twin and purpose.
    """
    CREATE TABLE consent_states (
        twin_id uuid NOT NULL,
        purpose text NOT NULL,
        consent_id uuid NOT NULL CONSTRAINT consent_states_consent_id_fkey REFERENCES consents ON DELETE CASCADE,
        CONSTRAINT consent_states_pkey PRIMARY KEY (twin_id, purpose)
    )
    """,
    "CREATE INDEX consent_states_consent_id_idx ON consent_states (consent_id)",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON consent_states TO twins_serving",
    # The one place of the rule. By the clock at the start of the statement: now() would be that of
    # the transaction, which may have waited for a lock while consent was withdrawn.
    """
    CREATE VIEW decisions AS
    SELECT s.twin_id, s.purpose, c.id AS consent_id, c.expires_at,
        CASE
            WHEN c.withdrawn_at IS NOT NULL THEN 'withdrawn'
            WHEN c.expires_at <= statement_timestamp() THEN 'expired'
            WHEN c.not_before > statement_timestamp() THEN 'not_yet_valid'
            ELSE 'granted'
        END AS reason
    FROM consent_states s JOIN consents c ON c.id = s.consent_id
    """,
    "GRANT SELECT ON decisions TO twins_serving",
    # --- The ledger ---------------------------------------------------------------------------------
    """
    CREATE TABLE consent_events (
        twin_id uuid NOT NULL,
        seq bigint NOT NULL,
        event text NOT NULL,
        hash bytea NOT NULL,
        CONSTRAINT consent_events_pkey PRIMARY KEY (twin_id, seq)
    )
    """,
    """
    CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
    END $$
    """,
    """
    CREATE TRIGGER consent_events_append_only BEFORE UPDATE OR DELETE ON consent_events
    FOR EACH ROW EXECUTE FUNCTION refuse_change()
    """,
    """
    CREATE TRIGGER consent_events_keep BEFORE TRUNCATE ON consent_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()
    """,
    "GRANT SELECT, INSERT ON consent_events TO twins_serving",
    # --- Erasure ------------------------------------------------------------------------------------
    """
    CREATE TABLE erasures (
        id uuid NOT NULL DEFAULT uuidv7() CONSTRAINT erasures_pkey PRIMARY KEY,
        owner_digest bytea NOT NULL,
        requested_at timestamptz NOT NULL DEFAULT now(),
        removed jsonb NOT NULL DEFAULT '{}',
        -- There are two.
        -- squawk-ignore prefer-bigint-over-smallint
        sweeps smallint NOT NULL DEFAULT 0,
        completed_at timestamptz,
        certificate text,
        CONSTRAINT erasures_complete CHECK ((completed_at IS NULL) = (certificate IS NULL))
    )
    """,
    "GRANT SELECT, INSERT, UPDATE ON erasures TO twins_serving",
    """
    CREATE TABLE erased_twins (
        twin_id uuid NOT NULL CONSTRAINT erased_twins_pkey PRIMARY KEY
            CONSTRAINT erased_twins_twin_id_fkey REFERENCES twins,
        erasure_id uuid NOT NULL CONSTRAINT erased_twins_erasure_id_fkey REFERENCES erasures
    )
    """,
    "CREATE INDEX erased_twins_erasure_id_idx ON erased_twins (erasure_id)",
    "GRANT SELECT, INSERT ON erased_twins TO twins_serving",
    # Each document is noted before it is deleted, so that a crash between the two loses no count.
    """
    CREATE TABLE erased_documents (
        document_id uuid NOT NULL CONSTRAINT erased_documents_pkey PRIMARY KEY,
        erasure_id uuid NOT NULL CONSTRAINT erased_documents_erasure_id_fkey REFERENCES erasures
    )
    """,
    "CREATE INDEX erased_documents_erasure_id_idx ON erased_documents (erasure_id)",
    "GRANT SELECT, INSERT ON erased_documents TO twins_serving",
    """
    CREATE TABLE outbox (
        id uuid NOT NULL DEFAULT uuidv7() CONSTRAINT outbox_pkey PRIMARY KEY,
        kind text NOT NULL,
        subject uuid NOT NULL,
        -- At most some dozens.
        -- squawk-ignore prefer-bigint-over-int
        attempts integer NOT NULL DEFAULT 0,
        created_at timestamptz NOT NULL DEFAULT now(),
        due_at timestamptz NOT NULL DEFAULT now(),
        run_at timestamptz NOT NULL DEFAULT now(),
        dead_at timestamptz,
        last_error text
    )
    """,
    "CREATE INDEX outbox_run_at_idx ON outbox (run_at) WHERE dead_at IS NULL",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON outbox TO twins_serving",
    # The time up to which persona documents have been checked for ones without a version.
    """
    CREATE TABLE sweeps (
        name text NOT NULL CONSTRAINT sweeps_pkey PRIMARY KEY,
        swept_until timestamptz NOT NULL
    )
    """,
    "INSERT INTO sweeps (name, swept_until) VALUES ('personas', '2000-01-01Z')",
    "GRANT SELECT, UPDATE ON sweeps TO twins_serving",
)

_DOWN = (
    "ALTER TABLE twins ADD COLUMN consent boolean",
    """
    UPDATE twins SET consent = EXISTS (
        SELECT FROM decisions d WHERE d.twin_id = id AND d.purpose = 'general' AND d.reason = 'granted'
    )
    """,
    "DROP TABLE sweeps, outbox, erased_documents, erased_twins, erasures, consent_events",
    "DROP FUNCTION refuse_change()",
    "DROP VIEW decisions",
    "DROP TABLE consent_states, consents",
    "DELETE FROM twins WHERE erased_at IS NOT NULL",
    """
    ALTER TABLE twins
        DROP CONSTRAINT twins_erased,
        DROP COLUMN salt, DROP COLUMN ledger_seq, DROP COLUMN ledger_hash, DROP COLUMN erased_at,
        ALTER COLUMN consent SET NOT NULL,
        ALTER COLUMN owner SET NOT NULL,
        ALTER COLUMN twin_name SET NOT NULL,
        ALTER COLUMN use_case SET NOT NULL,
        ALTER COLUMN tone SET NOT NULL
    """,
    "GRANT DELETE ON twins TO twins_serving",
)

_BATCH = 1000
_NOTICE = "I agree that this AI twin speaks in my name."


def upgrade() -> None:
    connection = op.get_bind()
    for statement in _UP:
        connection.exec_driver_sql(statement)
    while rows := connection.exec_driver_sql(
        """
        SELECT id, owner, salt, created_at FROM twins t
        WHERE consent AND NOT EXISTS (SELECT FROM consent_states s WHERE s.twin_id = t.id)
        ORDER BY id LIMIT $1
        """,
        (_BATCH,),
    ).all():
        for row in rows:
            _carry_over(connection, *row)
    # The ledger has it now.
    connection.exec_driver_sql("-- squawk-ignore ban-drop-column\nALTER TABLE twins DROP COLUMN consent")


def _carry_over(connection: Connection, twin_id: Any, owner: str, salt: bytes, given_at: Any) -> None:
    """Turn the boolean of an existing twin into the record that its creation would leave today.

    The recipe of the event is frozen here: a migration must not change when the code does.
    """
    sha256 = hashlib.sha256(_NOTICE.encode()).digest()
    consent_id, at = connection.exec_driver_sql(
        """
        WITH made AS (SELECT uuidv7() AS id)
        INSERT INTO consents (id, twin_id, lineage, principal, method, purposes, notice_version,
                              notice_language, notice_text, notice_sha256, given_at)
        SELECT id, $1, id, $2, 'carried-over', '{general}', '1', 'en', $3, $4, $5 FROM made
        RETURNING id, given_at
        """,
        (twin_id, owner, _NOTICE, sha256, given_at),
    ).one()
    connection.exec_driver_sql(
        "INSERT INTO consent_states (twin_id, purpose, consent_id) VALUES ($1, 'general', $2)",
        (twin_id, consent_id),
    )

    def canonical(value: dict[str, Any]) -> str:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    def sealed(text: str) -> str:
        return hmac.digest(salt, text.encode(), "sha256").hex()

    terms = {
        "expires_at": None,
        "method": "carried-over",
        "not_before": None,
        "notice_language": "en",
        "notice_sha256": sha256.hex(),
        "notice_version": "1",
        "principal": owner,
        "purposes": ["general"],
    }
    event = canonical(
        {
            "actor": sealed(owner),
            "at": at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "consent_id": str(consent_id),
            "prev_hash": "0" * 64,
            "seq": 1,
            "terms": sealed(canonical(terms)),
            "twin_id": str(twin_id),
            "type": "given",
            "v": 1,
        }
    )
    digest = hashlib.sha256(event.encode()).digest()
    connection.exec_driver_sql(
        "INSERT INTO consent_events (twin_id, seq, event, hash) VALUES ($1, 1, $2, $3)",
        (twin_id, event, digest),
    )
    connection.exec_driver_sql("UPDATE twins SET ledger_seq = 1, ledger_hash = $2 WHERE id = $1", (twin_id, digest))


def downgrade() -> None:
    connection = op.get_bind()
    for statement in _DOWN:
        connection.exec_driver_sql(statement)
