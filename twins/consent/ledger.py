"""The hash chain: how an event becomes bytes, how events are linked, and how a chain is verified.

The recipe is written for others in docs/LEDGER.md.
"""

import hashlib
import hmac
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

GENESIS = bytes(32)
"""What the first event is linked to."""
_YIELD_EVERY = 100
_YIELD_FOR = 0.0005


def canonical(value: dict[str, Any]) -> str:
    """Return `value` as RFC 8785 has it, for what stands in events: ASCII names, strings, small integers."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def timestamp(moment: datetime | None) -> str | None:
    """Return a moment as events write it: RFC 3339, UTC, microseconds."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def seal(salt: bytes, text: str) -> str:
    """Return the HMAC-SHA-256 of `text` under a twin's salt, in hexadecimal.

    It proves what the text was for as long as there is the salt; erasure destroys that.
    """
    return hmac.digest(salt, text.encode(), "sha256").hex()


@dataclass
class Chain:
    """The end of a twin's ledger, to which events are added while the twin is locked."""

    twin_id: UUID
    salt: bytes
    seq: int
    head: bytes

    def add(self, kind: str, actor: str, at: datetime, **members: Any) -> tuple[str, bytes]:
        """Return the text and the hash of the next event, and make it the head."""
        event = canonical(
            {
                "v": 1,
                "twin_id": str(self.twin_id),
                "seq": self.seq + 1,
                "type": kind,
                "at": timestamp(at),
                "actor": seal(self.salt, actor),
                "prev_hash": self.head.hex(),
                **members,
            }
        )
        self.seq += 1
        self.head = hashlib.sha256(event.encode()).digest()
        return event, self.head


@dataclass(frozen=True)
class Flaw:
    """The first entry of a ledger that is not as it was written."""

    seq: int
    reason: str


@dataclass
class Verifier:
    """Recomputes a twin's chain, event after event."""

    twin_id: UUID
    seq: int = 0
    head: bytes = GENESIS

    def check(self, rows: Iterable[tuple[int, str, bytes]]) -> Flaw | None:
        """Check the next `(seq, event, hash)` rows; meant for a thread of its own.

        It sleeps a moment now and then: a thread that hashes without a pause holds the interpreter
        for 5 ms at a time, and every request in the event loop would wait for it.
        """
        for seq, event, digest in rows:
            if seq != self.seq + 1:
                return Flaw(self.seq + 1, "missing")
            flaw = self._flaw(seq, event, digest)
            if flaw is not None:
                return Flaw(seq, flaw)
            self.seq, self.head = seq, digest
            if seq % _YIELD_EVERY == 0:
                time.sleep(_YIELD_FOR)
        return None

    def finish(self, seq: int, head: bytes) -> Flaw | None:
        """Check that the chain ends where the twin says it does."""
        if self.seq != seq:
            return Flaw(self.seq + 1, "missing")
        return None if self.head == head else Flaw(seq, "not the head that the twin has")

    def _flaw(self, seq: int, event: str, digest: bytes) -> str | None:
        if hashlib.sha256(event.encode()).digest() != digest:
            return "hash differs"
        try:
            found = json.loads(event)
            named = found["twin_id"], found["seq"], found["prev_hash"]
        except (ValueError, TypeError, KeyError):
            return "not an event"
        if named != (str(self.twin_id), seq, self.head.hex()):
            return "not linked to the event before"
        return None
