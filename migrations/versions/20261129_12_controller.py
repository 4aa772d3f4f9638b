"""A consent keeps who was responsible for its record when it was given, as the settings said, for its receipt.

`give_consent` stays as it is, but for one more argument, which it writes.
"""

from collections.abc import Mapping

from alembic import op
from sqlalchemy import Connection

from migrations.instances import refuse_to_run_beside
from migrations.rewriting import back, rewritten

revision = "20261129_12"
down_revision = "20261129_11"

# NULL: recorded before, or where nothing was set.
_COLUMN = """
    ALTER TABLE consents ADD COLUMN controller jsonb
        CONSTRAINT consents_controller CHECK (jsonb_typeof(controller) = 'object' AND length(controller::text) <= 8192)
"""

_PARTS = {
    ")\n RETURNS TABLE": ", p_controller jsonb DEFAULT NULL::jsonb)\n RETURNS TABLE",
    "INSERT INTO consents (id, twin_id,": "INSERT INTO consents (controller, id, twin_id,",
    "VALUES (made, p_twin, line,": "VALUES (p_controller, made, p_twin, line,",
}


_FUNCTION = """
    SELECT oid::regprocedure::text, pg_get_functiondef(oid) FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace AND proname = 'give_consent'
"""


def _change(connection: Connection, parts: Mapping[str, str]) -> None:
    """Make `give_consent` anew with other parts of its text, each of which stands there once."""
    function, text = connection.exec_driver_sql(_FUNCTION).one()
    connection.exec_driver_sql(f"DROP FUNCTION {function}")
    connection.exec_driver_sql(rewritten(function, text, parts))
    connection.exec_driver_sql("REVOKE ALL ON FUNCTION give_consent FROM PUBLIC")
    connection.exec_driver_sql("GRANT EXECUTE ON FUNCTION give_consent TO twins_serving")


def upgrade() -> None:
    connection = op.get_bind()
    refuse_to_run_beside(connection)
    connection.exec_driver_sql(_COLUMN)
    _change(connection, _PARTS)


def downgrade() -> None:
    connection = op.get_bind()
    refuse_to_run_beside(connection)
    _change(connection, back(_PARTS))
    connection.exec_driver_sql("ALTER TABLE consents DROP COLUMN controller")
