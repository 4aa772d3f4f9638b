"""Instances that serve while a migration is to run."""

from sqlalchemy import Connection


def refuse_to_run_beside(connection: Connection) -> None:
    """Raise `SystemExit` where instances serve: the code of neither side knows the schema of the other."""
    sessions = connection.exec_driver_sql(
        """
        SELECT a.pid, a.usename FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid
        WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.usename <> current_user
          AND NOT r.rolsuper AND pg_has_role(a.usesysid, 'twins_serving', 'MEMBER') ORDER BY a.pid
        """
    ).all()
    if sessions:
        names = ", ".join(f"{pid} ({name})" for pid, name in sessions)
        raise SystemExit(f"Stop all instances first: the serving role has sessions. Server processes: {names}.")
