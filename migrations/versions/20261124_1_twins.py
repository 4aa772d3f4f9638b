"""Twins, the versions of their personas, and remembered answers."""

from alembic import op

revision = "20261124_1"
down_revision = None

# asyncpg runs one statement per execute; exec_driver_sql, since `:name` would be read as a bind.
_UP = (
    # Roles belong to the server, not to the database, so this one may be there already.
    """
    DO $$ BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'twins_serving') THEN
            CREATE ROLE twins_serving NOLOGIN;
        END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
    END $$
    """,
    # By default every role may create temporary tables.
    """
    DO $$ BEGIN
        EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    END $$
    """,
    """
    CREATE TABLE twins (
        id uuid NOT NULL DEFAULT uuidv7() CONSTRAINT twins_pkey PRIMARY KEY,
        owner text NOT NULL CONSTRAINT twins_owner_length CHECK (char_length(owner) BETWEEN 1 AND 255),
        twin_name text NOT NULL
            CONSTRAINT twins_twin_name_length CHECK (char_length(twin_name) BETWEEN 1 AND 300),
        use_case text NOT NULL
            CONSTRAINT twins_use_case_length CHECK (char_length(use_case) BETWEEN 1 AND 600),
        tone text NOT NULL
            CONSTRAINT twins_tone_length CHECK (char_length(tone) BETWEEN 1 AND 600),
        consent boolean NOT NULL,
        version bigint NOT NULL DEFAULT 1,
        persona_version bigint NOT NULL DEFAULT 0,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX twins_owner_id_idx ON twins (owner, id DESC)",
    """
    CREATE TABLE persona_versions (
        twin_id uuid NOT NULL CONSTRAINT persona_versions_twin_id_fkey REFERENCES twins ON DELETE CASCADE,
        version bigint NOT NULL,
        document_id uuid NOT NULL CONSTRAINT persona_versions_document_id_key UNIQUE,
        created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT persona_versions_pkey PRIMARY KEY (twin_id, version)
    )
    """,
    # key_hash is keyed and covers the owner, so the table names nobody.
    """
    CREATE TABLE idempotency_keys (
        key_hash bytea NOT NULL CONSTRAINT idempotency_keys_pkey PRIMARY KEY,
        request_hash bytea NOT NULL,
        twin_id uuid NOT NULL,
        -- An HTTP status.
        -- squawk-ignore prefer-bigint-over-smallint
        status smallint NOT NULL,
        headers jsonb NOT NULL,
        body text,
        created_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys (created_at)",
    "CREATE INDEX idempotency_keys_twin_id_idx ON idempotency_keys (twin_id)",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON twins, persona_versions, idempotency_keys TO twins_serving",
)

# The role stays: another database of the same server may use it.
_DOWN = ("DROP TABLE idempotency_keys", "DROP TABLE persona_versions", "DROP TABLE twins")


def upgrade() -> None:
    for statement in _UP:
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    for statement in _DOWN:
        op.get_bind().exec_driver_sql(statement)
