"""The hash chain by itself: every flaw that a verifier can meet."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from twins.ledger.chain import GENESIS, Flaw, Verifier, timestamp

TWIN = UUID("019ab3f2-7d55-7c0e-9a3e-0d5b8f6c1a2b")
OTHER = UUID("019ab3f2-7d55-7c0e-9a3e-0d5b8f6c1a2c")
HASH = bytes(range(32))

type Row = tuple[int, str, bytes]


def written(count: int, twin: UUID = TWIN) -> list[Row]:
    rows: list[Row] = []
    for seq in range(1, count + 1):
        head = rows[-1][2] if rows else GENESIS
        event = json.dumps({"prev_hash": head.hex(), "seq": seq, "twin_id": str(twin), "type": "given", "v": 2})
        rows.append((seq, event, hashlib.sha256(event.encode()).digest()))
    return rows


def forged(row: Row, **changes: Any) -> Row:
    """Change an event and make its hash anew."""
    event = json.dumps(json.loads(row[1]) | changes)
    return row[0], event, hashlib.sha256(event.encode()).digest()


@pytest.fixture(params=["UTC", "Asia/Kolkata"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Of the machine."""
    with monkeypatch.context() as changed:
        changed.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("zone")
def test_a_moment_is_written_in_utc_to_the_microsecond() -> None:
    assert timestamp(datetime(2026, 1, 2, 0, 30, tzinfo=timezone(timedelta(hours=1)))) == "2026-01-01T23:30:00.000000Z"
    assert timestamp(datetime(2026, 1, 2, 0, 30, 0, 5, tzinfo=UTC)) == "2026-01-02T00:30:00.000005Z"
    assert timestamp(None) is None


def test_what_was_written_is_found_right_in_chunks_too() -> None:
    rows = written(7)
    verifier = Verifier(TWIN)

    assert verifier.check(rows[:3]) is None
    assert (verifier.seq, verifier.head) == (3, rows[2][2])
    assert verifier.check([]) is None
    assert verifier.check(rows[3:]) is None
    assert verifier.finish(7, rows[-1][2]) is None


def test_an_empty_ledger_is_right_and_ends_at_the_genesis() -> None:
    assert Verifier(TWIN).finish(0, GENESIS) is None
    assert Verifier(TWIN).finish(0, HASH) == Flaw(0, "not the head that the twin has")


@pytest.mark.parametrize("lost", [1, 2, 4])
def test_the_first_event_that_is_missing_is_named(lost: int) -> None:
    rows = written(4)
    del rows[lost - 1]
    verifier = Verifier(TWIN)
    flaw = verifier.check(rows) or verifier.finish(4, rows[-1][2])

    assert flaw == Flaw(lost, "missing")
    assert verifier.seq == lost - 1


def test_an_event_that_comes_twice_is_a_flaw() -> None:
    rows = written(2)

    assert Verifier(TWIN).check([*rows, rows[1]]) == Flaw(3, "missing")


def test_more_events_than_the_twin_says_are_a_flaw() -> None:
    rows = written(3)
    verifier = Verifier(TWIN)
    verifier.check(rows)

    assert verifier.finish(2, rows[1][2]) == Flaw(4, "missing")
    assert verifier.finish(3, rows[1][2]) == Flaw(3, "not the head that the twin has")


def test_a_hash_that_is_not_of_its_event_is_named() -> None:
    rows = written(3)
    rows[1] = (2, rows[1][1] + " ", rows[1][2])
    verifier = Verifier(TWIN)

    assert verifier.check(rows) == Flaw(2, "hash differs")
    assert (verifier.seq, verifier.head) == (1, rows[0][2])


@pytest.mark.parametrize("changes", [{"twin_id": str(OTHER)}, {"seq": 3}, {"prev_hash": "00" * 32}])
def test_an_event_that_belongs_elsewhere_is_not_linked(changes: dict[str, Any]) -> None:
    rows = written(3)
    rows[1] = forged(rows[1], **changes)

    assert Verifier(TWIN).check(rows) == Flaw(2, "not linked to the event before")


def test_a_forged_event_breaks_the_link_of_the_next() -> None:
    rows = written(3)
    rows[0] = forged(rows[0], type="withdrawn")

    assert Verifier(TWIN).check(rows) == Flaw(2, "not linked to the event before")


def test_the_ledger_of_another_twin_is_not_its_ledger() -> None:
    assert Verifier(TWIN).check(written(1, OTHER)) == Flaw(1, "not linked to the event before")


@pytest.mark.parametrize("event", ["", "not JSON", "null", "[]", "{}", "7", '{"twin_id":1,"seq":1}'])
def test_what_is_no_event_is_named(event: str) -> None:
    row = (1, event, hashlib.sha256(event.encode()).digest())

    assert Verifier(TWIN).check([row]) == Flaw(1, "not an event")


def test_a_long_check_pauses_after_every_fiftieth_event(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = written(250)
    verifier = Verifier(TWIN)
    pauses = []
    mine = threading.get_ident()

    def note(seconds: float) -> None:
        if threading.get_ident() == mine:  # other threads of this process sleep too
            pauses.append((verifier.seq, seconds))

    monkeypatch.setattr(time, "sleep", note)

    assert verifier.check(rows) is None
    assert [seq for seq, _ in pauses] == [50, 100, 150, 200, 250]
    assert all(0 < seconds < 0.005 for _, seconds in pauses)
