"""The replay: what the events of a ledger say of consents, states, withdrawals, stops and locks."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from shared.stores.postgres import Record
from twins.assurance import TOKEN
from twins.ledger.chain import YIELD_EVERY, YIELD_FOR, seal, timestamp
from twins.ledger.events import Event, act_of, check_giver, check_replaced, line_salt, record_of
from twins.ledger.outcome import DifferenceError, Ending, Lock, State, terms_of

PSEUDONYM = "erased:"  # of a person who was erased while the twin had one salt


@dataclass
class Replay:
    """The outcome of a twin's events, by the rules of their editions (docs/LEDGER.md).

    An erased twin has no more than its events. Raises `DifferenceError` where a record differs from its event.
    """

    was_erased: bool
    seq: int = 0
    edition: int = 1
    given: int = 0
    unverifiable: int = 0
    is_erased: bool = False
    is_vague: bool = False
    """Whether refusals name purposes that nobody can tell any more."""
    vague_lines: set[UUID] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    names: dict[str, str] = field(default_factory=dict)
    """Purposes by their HMACs under the twin's own salt."""
    own_salt: bytes | None = None
    states: dict[str, State] = field(default_factory=dict)
    endings: dict[tuple[UUID, str], Ending] = field(default_factory=dict)
    locks: dict[UUID, Lock] = field(default_factory=dict)
    standing: set[UUID] = field(default_factory=set)
    stops: dict[int, Ending] = field(default_factory=dict)
    token_since: int = 0
    """The first event with a listed account's own yes (0: none)."""

    def learn(self, salt: Record | None, purposes: Iterable[str]) -> None:
        """Learn the names that HMACs under the twin's own salt may stand for."""
        self.own_salt = salt["salt"] if salt else None
        self.names = {} if salt is None else {seal(salt["salt"], purpose): purpose for purpose in purposes}

    def knows(self, events: Iterable[Event], salt: Record | None) -> bool:
        """Return whether every purpose that these events name under the twin's own salt is known."""
        if salt is None or self.was_erased:
            return True
        named = [
            name
            for event in events
            if event.get("type") in ("refused", "opened") and event["seq"] >= salt["since_seq"]
            for name in event.get("purposes") or ()
        ]
        return not named or (salt["salt"] == self.own_salt and self.names.keys() >= set(named))

    def apply(self, events: Sequence[Event], records: Mapping[UUID, Record], salt: Record | None) -> None:
        """Replay the next events, in a thread of its own, with their consents and the twin's own salt."""
        for event in events:
            seq = event["seq"]
            try:
                self._apply(event, records, salt["salt"] if salt and salt["since_seq"] <= seq else None)
            except (KeyError, TypeError, ValueError, AttributeError):
                raise DifferenceError(seq, "not an event") from None
            self.seq = seq
            if seq % YIELD_EVERY == 0:
                time.sleep(YIELD_FOR)

    def _apply(self, event: Event, records: Mapping[UUID, Record], own: bytes | None) -> None:
        kind, edition = event["type"], event["v"]
        if self.is_erased or edition < self.edition or edition not in (1, 2):
            raise ValueError
        self.edition = edition
        if kind in ("given", "renewed"):
            self._give(event, records, own)
        elif kind == "erased":
            self.is_erased = True
        elif kind == "replaced":
            if not self.was_erased:
                check_replaced(event, records)
        elif kind in ("refused", "opened") and edition == 2:  # noqa: PLR2004 - the second edition knows locks
            if not self.was_erased:
                purposes = self._purposes(event, own, self.names)
                (self._refuse if kind == "refused" else self._open)(event, purposes, own)
        elif kind != "withdrawn":
            raise ValueError
        elif not self.was_erased:
            self._withdraw(event, record_of(event, records))

    def _give(self, event: Event, records: Mapping[UUID, Record], own: bytes | None) -> None:
        self.given += 1
        if self.was_erased:
            self.unverifiable += 1
            return
        seq, record = event["seq"], record_of(event, records)
        held = record["renews"] and str(record["renews"]), record["seq"], timestamp(record["given_at"])
        if held != (event.get("renews"), seq, event["at"]) or not self._continues(event, record):
            raise DifferenceError(seq, "record differs")
        if not record["notice_holds"]:
            raise DifferenceError(seq, "notice differs")
        salt = own if event["v"] == 1 else line_salt(record, seq)
        if salt is None or (event["v"] == 1 and str(record["principal"]).startswith(PSEUDONYM)):
            self.unverifiable += 1
        elif seal(salt, terms_of(record)) != event["terms"]:
            raise DifferenceError(seq, "terms differ")
        check_giver(event, record, salt)
        self.token_since = self.token_since or (seq if record["assurance"] == TOKEN else 0)
        if event["type"] == "renewed":
            self._drop(event, record, salt)
        for purpose in record["purposes"]:
            if any(self.locks[lock_id].covers(purpose) for lock_id in self.standing):
                raise DifferenceError(seq, "given under a refusal")
            self.states[purpose] = State(seq, record["id"], record["lineage"], seq)

    def _drop(self, event: Event, record: Record, salt: bytes | None) -> None:
        """End the purposes that a renewal leaves out."""
        line = record["lineage"]
        if self.is_vague or line in self.vague_lines:
            return
        for purpose in set(record["line_purposes"]) - set(record["purposes"]):
            state = self.states.get(purpose)
            if state and state.consent_id == record["renews"] and state.no is None:
                state.no, state.since = "withdrawn", event["seq"]
                self._end(line, purpose, event, None, salt)

    def _continues(self, event: Event, record: Record) -> bool:
        """Return whether a consent begins a line of renewals, or goes on with that of the consent which it renews."""
        if event["type"] == "given":
            return bool(record["lineage"] == record["id"])
        held = [self.states.get(purpose, State(0)) for purpose in record["purposes"]]
        return all((s.consent_id, s.lineage) == (record["renews"], record["lineage"]) for s in held)

    def _withdraw(self, event: Event, record: Record) -> None:
        seq, by, line, purposes = event["seq"], None, record["lineage"], record["line_purposes"]
        salt = None
        if event["v"] != 1:
            by, salt = event["by"], line_salt(record, seq)
            names = {seal(salt, purpose): purpose for purpose in purposes} if salt else {}
            named = self._purposes(event, salt, names)
            if "lock_id" in event:
                self._refuse(event, named, salt, line)
            if named is None or (not salt and len(event["purposes"]) != len(purposes)):
                self.vague_lines.add(line)
                return
            purposes = named if salt else purposes
        for purpose in purposes:
            state = self.states.get(purpose)
            if state and state.lineage == line:
                state.no, state.since = "withdrawn", seq
            self._end(line, purpose, event, by, salt)

    def _end(self, line: UUID, purpose: str, event: Event, by: str | None, salt: bytes | None) -> None:
        # The same no again is no event, and may have noted an end before.
        is_exact = "lock_id" not in event or not (self.stops or purpose in self.refused)
        known = (event["at"], by, act_of(event, salt)) if is_exact else (None, None, None)
        self.endings.setdefault((line, purpose), Ending(event["seq"], *known))

    def _purposes(self, event: Event, salt: bytes | None, names: Mapping[str, str]) -> list[str] | None:
        """Return the purposes of an event: None for everything, and none where their salt is destroyed."""
        named: list[str] | None = event["purposes"]
        if named is None:
            return None
        if salt is None:
            self.is_vague = True
            return []
        if not names.keys() >= set(named):
            raise DifferenceError(event["seq"], "purposes differ")
        return [names[name] for name in named]

    def _refuse(self, event: Event, purposes: list[str] | None, salt: bytes | None, line: UUID | None = None) -> None:
        seq, at, by, lock_id = event["seq"], event["at"], event["by"], UUID(event["lock_id"])
        lock = self.locks.get(lock_id)
        if lock is None:
            lock = self.locks[lock_id] = Lock(seq, at, by, event["actor"], salt)
            self.standing.add(lock_id)
        elif lock_id not in self.standing:
            raise ValueError
        lock.since, lock.is_vague = seq, lock.is_vague or (salt is None and purposes is not None)
        if purposes is None:
            lock.purposes, lock.exceptions = None, set()
            self.stops[seq] = Ending(seq, at, by)
            return
        if lock.purposes is None:
            lock.exceptions.difference_update(purposes)
        else:
            lock.purposes.update(purposes)
        for purpose in purposes:
            state = self.states.setdefault(purpose, State(seq))
            state.no, state.since = "withdrawn" if line and state.lineage == line else "refused", seq
            if state.lineage:
                self._end(state.lineage, purpose, event, by, salt)
        self.refused.update(purposes)

    def _open(self, event: Event, purposes: list[str] | None, salt: bytes | None) -> None:
        lock_id = UUID(event["lock_id"])
        lock = self.locks[lock_id]
        lock.since, lock.is_vague = event["seq"], lock.is_vague or (salt is None and purposes is not None)
        if purposes is None or (not lock.is_vague and lock.purposes is not None and lock.purposes <= set(purposes)):
            lock.opened_at = event["at"]
            self.standing.discard(lock_id)
        elif lock.purposes is None:
            lock.exceptions.update(purposes)
        else:
            lock.purposes.difference_update(purposes)
