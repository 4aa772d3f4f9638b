"""Functions of the database, changed in parts: the rest stays, whatever revision wrote it."""

from collections.abc import Mapping

from sqlalchemy import Connection


def rewritten(name: str, text: str, parts: Mapping[str, str]) -> str:
    """Return a text with other parts; raises `RuntimeError` where one does not stand in it exactly once."""
    for old, new in parts.items():
        if text.count(old) != 1:
            raise RuntimeError(f"{name} is not as this revision expects it: {old!r}")
        text = text.replace(old, new)
    return text


def back(parts: Mapping[str, str]) -> dict[str, str]:
    """Return the parts of the way back."""
    return {new: old for old, new in parts.items()}


def rewrite(connection: Connection, name: str, parts: Mapping[str, str]) -> None:
    """Make the one function of this name anew with other parts of its text; raises as `rewritten`."""
    sql = "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proname = $1"
    text: str = connection.exec_driver_sql(sql, (name,)).scalar_one()
    connection.exec_driver_sql(rewritten(name, text, parts))
