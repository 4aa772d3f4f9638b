"""${message}."""

from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}

_UP = ()
_DOWN = ()


def upgrade() -> None:
    for statement in _UP:
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    for statement in _DOWN:
        op.get_bind().exec_driver_sql(statement)
