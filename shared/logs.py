"""Structured logs: what every line carries, and one JSON object a line outside Azure Functions."""

import logging
from contextvars import ContextVar
from typing import Any

_fields: ContextVar[dict[str, str] | None] = ContextVar("log_fields", default=None)


def begin(request_id: str) -> None:
    """Start the log fields of one request: every line until its end carries `request_id`."""
    _fields.set({"request_id": request_id})


def bind(**fields: str) -> None:
    """Add fields to every further line of this request."""
    current = _fields.get()
    if current is not None:
        current.update(fields)


def request_id() -> str | None:
    """Return the id of the request being answered, if there is one."""
    return (_fields.get() or {}).get("request_id")


def _record(*args: Any, **kwargs: Any) -> logging.LogRecord:
    record = logging.LogRecord(*args, **kwargs)
    record.__dict__.update(_fields.get() or {})
    return record


def configure(level: str) -> None:
    """Set the level of our own loggers, and write JSON lines to standard error if nobody else does.

    The Azure Functions worker has a handler of its own on the root logger; a second one would
    write every line twice.
    """
    logging.setLogRecordFactory(_record)
    for name in ("twins", "shared"):
        logging.getLogger(name).setLevel(level)
    for name in ("azure.core", "azure.identity"):
        # At INFO each token or secret read is eight lines; the warnings carry the services' own text.
        logging.getLogger(name).setLevel(logging.ERROR)
    # At DEBUG, which a host may set for everything, each command is logged with its documents.
    logging.getLogger("pymongo").setLevel(logging.INFO)
    root = logging.getLogger()
    if root.handlers:
        return
    from pythonjsonlogger.json import JsonFormatter  # noqa: PLC0415 - not wanted on Functions

    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonFormatter(
            "%(levelname)s %(name)s %(message)s",
            timestamp=True,
            rename_fields={"levelname": "level", "name": "logger"},
        )
    )
    root.addHandler(handler)
    root.setLevel(logging.INFO)
