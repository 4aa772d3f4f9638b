"""The hash chain by itself: the bytes of an event, and every flaw that a verifier can meet."""

import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from twins.consent.ledger import GENESIS, Chain, Flaw, Verifier, canonical, seal, timestamp
from twins.consent.models import Notice
from twins.consent.service import Terms

TWIN = UUID("019ab3f2-7d55-7c0e-9a3e-0d5b8f6c1a2b")
OTHER = UUID("019ab3f2-7d55-7c0e-9a3e-0d5b8f6c1a2c")
SALT = bytes(range(32))
AT = datetime(2026, 11, 24, 10, 50, 0, 5, tzinfo=UTC)

type Row = tuple[int, str, bytes]


def written(count: int, twin: UUID = TWIN) -> list[Row]:
    chain = Chain(twin, SALT, 0, GENESIS)
    rows = []
    for _ in range(count):
        event, digest = chain.add("given", "alice", AT, consent_id=str(twin))
        rows.append((chain.seq, event, digest))
    return rows


def forged(row: Row, **changes: Any) -> Row:
    """Change an event and make its hash anew."""
    event = json.dumps(json.loads(row[1]) | changes)
    return row[0], event, hashlib.sha256(event.encode()).digest()


# --- How it is written ------------------------------------------------------------------------------


def test_an_event_is_the_same_bytes_in_every_release() -> None:
    chain = Chain(TWIN, SALT, 6, bytes([0xAB]) * 32)
    event, digest = chain.add("renewed", "Zoë", AT, renews=str(OTHER))

    assert event == (
        f'{{"actor":"{seal(SALT, "Zoë")}","at":"2026-11-24T10:50:00.000005Z",'
        f'"prev_hash":"{"ab" * 32}","renews":"{OTHER}","seq":7,"twin_id":"{TWIN}","type":"renewed","v":1}}'
    )
    assert digest == hashlib.sha256(event.encode()).digest()
    assert (chain.seq, chain.head) == (7, digest)


def test_the_next_event_is_linked_to_the_one_before() -> None:
    first, second = (json.loads(event) for _, event, _ in written(2))

    assert first["prev_hash"] == "00" * 32
    assert second["prev_hash"] == written(1)[0][2].hex()
    assert [first["seq"], second["seq"]] == [1, 2]


def test_text_is_written_as_it_is_and_names_in_order() -> None:
    assert canonical({"b": 1, "a": "Zoë 🚲", "A": None}) == '{"A":null,"a":"Zoë 🚲","b":1}'


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
    assert timestamp(None) is None


def test_a_seal_is_the_hmac_of_the_text_in_utf_8() -> None:
    # The second test case of RFC 4231.
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert seal(b"Jefe", "what do ya want for nothing?") == expected
    assert seal(SALT, "Zoë") == hmac.digest(SALT, b"Zo\xc3\xab", hashlib.sha256).hex()


def test_every_term_of_a_consent_is_sealed() -> None:
    notice = Notice(version="2026-11", language="de", text="Ich stimme zu.")
    terms = Terms("Zoë", "web-form", ["dubbing", "voice"], notice, AT, AT + timedelta(days=1))
    text = (
        '{"expires_at":"2026-11-25T10:50:00.000005Z","method":"web-form","not_before":"2026-11-24T10:50:00.000005Z",'
        f'"notice_language":"de","notice_sha256":"{hashlib.sha256(b"Ich stimme zu.").hexdigest()}",'
        '"notice_version":"2026-11","principal":"Zoë","purposes":["dubbing","voice"]}'
    )

    assert terms.sealed(SALT) == seal(SALT, text)


# --- How it is verified -----------------------------------------------------------------------------


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
    assert Verifier(TWIN).finish(0, SALT) == Flaw(0, "not the head that the twin has")


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


def test_a_long_check_pauses_after_every_hundredth_event(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = written(250)
    verifier = Verifier(TWIN)
    pauses = []
    monkeypatch.setattr(time, "sleep", lambda seconds: pauses.append((verifier.seq, seconds)))

    assert verifier.check(rows) is None
    assert [seq for seq, _ in pauses] == [100, 200]
    assert all(0 < seconds < 0.005 for _, seconds in pauses)
