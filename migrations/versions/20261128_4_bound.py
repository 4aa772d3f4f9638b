"""A version is bound to its document: the SHA-256 of what the document says."""

from alembic import op

revision = "20261128_4"
down_revision = "20261128_3"

_UP = (
    # NULL where the version is older than this column: its document is in the other store, and nothing
    # vouches for what it said when it was written.
    """
    ALTER TABLE persona_versions
        ADD COLUMN sha256 bytea CONSTRAINT persona_versions_sha256_length CHECK (octet_length(sha256) = 32)
    """,
    # A version never changes, and so neither does what it is bound to.
    "REVOKE UPDATE ON persona_versions FROM twins_serving",
)

_DOWN = (
    "GRANT UPDATE ON persona_versions TO twins_serving",
    "ALTER TABLE persona_versions DROP COLUMN sha256",
)


def upgrade() -> None:
    for statement in _UP:
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    for statement in _DOWN:
        op.get_bind().exec_driver_sql(statement)
