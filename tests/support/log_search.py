"""A pytest plugin: after the whole suite, what the application has logged is searched for what must not be there.

In the log are the records of every level of this process, and what `keep` was given of others. Searched
for are secrets, tokens and accounts that the tests have used, and, since they run with LOG_NAMES=false,
names; and anything that looks like a signed token, whoever made it.
"""

import json
import logging
import re
from collections.abc import Iterable
from typing import Any

import httpx
import pytest

from tests.support.figures import record as record_figures

_CLIENTS = ("httpx", "httpcore")
"""Loggers of the tests' own side of a request."""
_COMMON = {"request_id", "duration_ms", "taskName", "message", "asctime"} | vars(logging.makeLogRecord({})).keys()
_MOVING = re.compile(
    r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|\d{4}-\d\d-\d\d[T ][\d:.,+Z]+|(?<=duration_ms\": )[\d.]+"
)
_TOKEN = re.compile(r"eyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]*")
_NAMES = ("twin_name", "principal", "summary")
_SHORTEST = 4
"""Characters: shorter ones are in any text."""
_WORD = re.compile("[a-z]{,7}")
"""Words such as `owner`, which some accounts of tests are called: they are in any text too."""
_SHOWN = 10

_lines: set[str] = set()
_needles: dict[str, str] = {}
"""What must not be found, and what it is."""
_results: list[dict[str, Any]] = []


def hide(kind: str, *values: object) -> None:
    """Let `values` be searched for."""
    for value in values:
        if isinstance(value, str) and len(value) >= _SHORTEST and not _WORD.fullmatch(value):
            _needles[value] = kind


async def hide_names(request: httpx.Request) -> None:
    """Let the names that a client sends be searched for: an event hook for httpx."""
    try:
        body = json.loads(request.content)
    except (ValueError, RecursionError, httpx.RequestNotRead):
        return
    if isinstance(body, dict):
        hide("name", *(body.get(name) for name in _NAMES))


def keep(text: str) -> None:
    """Add what another process has written to what is searched."""
    _lines.update(_MOVING.sub("#", line) for line in text.splitlines())


class _Keeper(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith(_CLIENTS):
            extra = {name: value for name, value in vars(record).items() if name not in _COMMON}
            error = record.exc_info[1] if record.exc_info else None
            keep(f"{record.name} {record.getMessage()} {extra} {error!r}")


_keeper = _Keeper(logging.DEBUG)


def _search(lines: Iterable[str]) -> list[str]:
    """Return what was found, with a line that has it."""
    text = "\n".join(lines)
    found = [f"a token in: {match[0]}" for match in _TOKEN.finditer(text)]
    for needle, kind in _needles.items():
        if needle in text:  # quick, and mostly not so
            whole = re.compile(rf"(?<!\w){re.escape(needle)}(?!\w)")
            found += [f"{kind} {needle!r} in: {line[:300]}" for line in lines if whole.search(line)][:1]
    return found


def pytest_configure() -> None:
    logging.getLogger().addHandler(_keeper)


def pytest_unconfigure() -> None:
    logging.getLogger().removeHandler(_keeper)


def pytest_testnodedown(node: Any) -> None:
    """Take what a worker of pytest-xdist has found."""
    if "log_search" in getattr(node, "workeroutput", {}):
        _results.append(node.workeroutput["log_search"])


def pytest_sessionfinish(session: pytest.Session) -> None:
    mine = {"lines": len(_lines), "needles": len(_needles), "found": _search(_lines)}
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["log_search"] = mine
        return
    _results.append(mine)
    if any(result["found"] for result in _results):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    record_figures("log-search", _summary())


def pytest_terminal_summary(terminalreporter: Any) -> None:
    summary = _summary()
    terminalreporter.section("log search")
    terminalreporter.write_line(
        "{lines} different lines searched for {needles} values: {found} found".format(**summary)
    )
    for found in [one for result in _results for one in result["found"]][:_SHOWN]:
        terminalreporter.write_line(found, red=True)


def _summary() -> dict[str, int]:
    return {
        "lines": sum(result["lines"] for result in _results),
        "needles": sum(result["needles"] for result in _results),
        "found": sum(len(result["found"]) for result in _results),
    }
