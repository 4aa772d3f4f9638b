"""Structured logs: the fields of every line, and one JSON object per line outside Azure Functions."""

import logging
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any


class Request:
    """What is known of a request while it is answered."""

    __slots__ = ("fields", "last", "status")

    def __init__(self, request_id: str) -> None:
        self.fields = {"request_id": request_id}
        """Every line of the request carries them."""
        self.last: tuple[logging.Logger, int, str, Mapping[str, Any]] | None = None
        """The logger, level, message and fields of its last line, where a service has named its outcome."""
        self.status = 0
        """That of its answer, once that has begun."""


_current: ContextVar[Request | None] = ContextVar("request", default=None)


def begin(request_id: str) -> Request:
    """Start the log fields of one request: every line until its end carries `request_id`."""
    request = Request(request_id)
    resume(request)
    return request


def resume(request: Request) -> None:
    """Go on with a request that began elsewhere."""
    _current.set(request)


def bind(**fields: str) -> None:
    """Add fields to every further line of this request."""
    request = _current.get()
    if request is not None:
        request.fields.update(fields)


def conclude(
    logger: logging.Logger, message: str, level: int = logging.INFO, extra: Mapping[str, Any] | None = None
) -> None:
    """Name the outcome of this request's work, which its last line then says; without a request, log it."""
    request = _current.get()
    if request is None:
        logger.log(level, message, extra=extra)
    else:
        request.last = logger, level, message, extra or {}


def request_id() -> str | None:
    """Return the id of the current request, if there is one."""
    request = _current.get()
    return None if request is None else request.fields["request_id"]


def _record(*args: Any, **kwargs: Any) -> logging.LogRecord:
    record = logging.LogRecord(*args, **kwargs)
    request = _current.get()
    if request is not None:
        record.__dict__.update(request.fields)
    return record


def configure(level: str, *loggers: str) -> None:
    """Set the level of these loggers and of `shared`, and write JSON lines to standard error.

    The Azure Functions worker has its own handler on the root logger; a second one would write every
    line twice, so a root logger that has a handler gets no other.
    """
    # No line says them, and each would be looked up for every line.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.setLogRecordFactory(_record)
    for name in (*loggers, "shared"):
        logging.getLogger(name).setLevel(level)
    for name in ("azure.core", "azure.identity", "azure.monitor"):
        # At INFO an export writes one line, a read of a token or secret eight; warnings quote the services' text.
        logging.getLogger(name).setLevel(logging.ERROR)
    # A host may set DEBUG for all loggers; there, pymongo logs each command with its documents.
    logging.getLogger("pymongo").setLevel(logging.INFO)
    root = logging.getLogger()
    if root.handlers:
        return
    # Not needed on Functions. Half as long as the formatter of `json`, for each line.
    from pythonjsonlogger.orjson import OrjsonFormatter  # noqa: PLC0415

    handler = logging.StreamHandler()
    names = {"levelname": "level", "name": "logger"}
    handler.setFormatter(OrjsonFormatter("%(levelname)s %(name)s %(message)s", timestamp=True, rename_fields=names))
    root.addHandler(handler)
    root.setLevel(logging.INFO)
