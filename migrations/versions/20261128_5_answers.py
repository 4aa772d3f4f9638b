"""A remembered answer is the id of what was made: a repeat reads it as it is then, so that nothing personal is kept."""

from alembic import op

revision = "20261128_5"
down_revision = "20261128_4"

_UP = (
    # An answer that was emptied gets an id that nothing has, as a UUID and as a number.
    "ALTER TABLE idempotency_keys ADD COLUMN made text NOT NULL DEFAULT '00000000000000000000000000000000'",
    # Emptied too: the columns that go would leave their values in the rows.
    """
    UPDATE idempotency_keys SET made = regexp_replace(headers->>'Location', '^.*/', ''), headers = '{}', body = NULL
    WHERE body IS NOT NULL
    """,
    """
    ALTER TABLE idempotency_keys
        -- It was for the rows of before.
        -- squawk-ignore ban-drop-default
        ALTER COLUMN made DROP DEFAULT,
        -- Kept one release longer, they would be filled with what nothing empties any more.
        -- squawk-ignore ban-drop-column
        DROP COLUMN headers,
        -- squawk-ignore ban-drop-column
        DROP COLUMN body
    """,
)

# To the release before, each answer is one of something erased: it answers 410, and makes nothing a second time.
_DOWN = (
    """
    ALTER TABLE idempotency_keys
        DROP COLUMN made, ADD COLUMN headers jsonb NOT NULL DEFAULT '{}', ADD COLUMN body text
    """,
    "ALTER TABLE idempotency_keys ALTER COLUMN headers DROP DEFAULT",
)


def upgrade() -> None:
    for statement in _UP:
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    for statement in _DOWN:
        op.get_bind().exec_driver_sql(statement)
