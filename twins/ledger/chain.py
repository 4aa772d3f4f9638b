"""The hash chain: the bytes of an event, the links between events, and their verification (docs/LEDGER.md)."""

import hashlib
import hmac
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

GENESIS = bytes(32)
"""The `prev_hash` of the first event."""
YIELD_EVERY = 50
YIELD_FOR = 0.0005


def canonical(value: Any) -> str:
    """Return `value` in the form of RFC 8785, if it has only ASCII names, strings and small integers."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def timestamp(moment: datetime | None) -> str | None:
    """Return a moment in the form of events: RFC 3339, UTC, microseconds."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def seal(salt: bytes, text: str) -> str:
    """Return the HMAC-SHA-256 of `text` under a salt, in hexadecimal."""
    return hmac.digest(salt, text.encode(), "sha256").hex()


@dataclass(frozen=True)
class Flaw:
    """The first entry of a ledger that differs from what was written."""

    seq: int
    reason: str


@dataclass
class Verifier:
    """Recomputes a twin's chain, event after event."""

    twin_id: UUID
    seq: int = 0
    head: bytes = GENESIS
    events: list[dict[str, Any]] = field(default_factory=list)
    """The events of the last check, up to the first flaw."""

    def check(self, rows: Iterable[tuple[int, str, bytes]]) -> Flaw | None:
        """Check the next `(seq, event, hash)` rows, in a thread of its own.

        The method sleeps from time to time: a thread that hashes without a pause holds the interpreter
        for 5 ms at a time, and every request in the event loop would wait.
        """
        self.events = []
        for seq, text, digest in rows:
            if seq != self.seq + 1:
                return Flaw(self.seq + 1, "missing")
            event = self._event(seq, text, digest)
            if isinstance(event, str):
                return Flaw(seq, event)
            self.seq, self.head = seq, digest
            self.events.append(event)
            if seq % YIELD_EVERY == 0:
                time.sleep(YIELD_FOR)
        return None

    def finish(self, seq: int, head: bytes) -> Flaw | None:
        """Check that the chain ends at the head in the twin's row."""
        if self.seq != seq:
            return Flaw(self.seq + 1, "missing")
        return None if self.head == head else Flaw(seq, "not the head that the twin has")

    def _event(self, seq: int, text: str, digest: bytes) -> dict[str, Any] | str:
        """Return an event, or what is wrong with it."""
        if hashlib.sha256(text.encode()).digest() != digest:
            return "hash differs"
        try:
            event: dict[str, Any] = json.loads(text)
            named = event["twin_id"], event["seq"], event["prev_hash"]
        except (ValueError, TypeError, KeyError):
            return "not an event"
        if named != (str(self.twin_id), seq, self.head.hex()):
            return "not linked to the event before"
        return event
