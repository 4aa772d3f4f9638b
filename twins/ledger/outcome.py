"""What the events of a ledger say must be stored, and whether it is."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from shared.stores.postgres import Record
from twins.ledger.chain import Flaw, canonical, seal, timestamp

ERASED = "\x01"
"""Begins the pseudonym of an erased account, whose HMACs nobody can recompute."""


class DifferenceError(Exception):
    """What is stored is not what the events say."""

    def __init__(self, seq: int, reason: str) -> None:
        self.flaw = Flaw(seq, reason)


@dataclass(slots=True)
class State:
    """The state of a purpose, since the event `since`."""

    since: int
    consent_id: UUID | None = None
    lineage: UUID | None = None
    seq: int | None = None
    no: str | None = None

    def is_as(self, row: Record, *, is_vague: bool) -> bool:
        """Return whether it is stored so; where it `is_vague`, a no may have ended it without a name in the events."""
        same = (row["consent_id"], row["seq"], row["is_copy"]) == (self.consent_id, self.seq, True)
        return same and (row["no"] == self.no or (is_vague and row["no"] is not None))


@dataclass(frozen=True, slots=True)
class Act:
    """Who caused an event, by its HMACs; the salt is None where it is destroyed."""

    actor: str
    client: str | None
    salt: bytes | None

    def is_of(self, actor: str | None, client: str | None) -> bool:
        """Return whether it is stored so; it is not where nobody is named any more, or never was."""
        if self.salt is None or actor is None or actor.startswith(ERASED):
            return True
        return seal(self.salt, actor) == self.actor and (client and seal(self.salt, client)) == self.client


@dataclass(slots=True)
class Ending:
    """A withdrawal of one purpose of a line of renewals, or a no to everything.

    `at`, `by` and `act` are None where the events leave them open.
    """

    since: int
    at: str | None
    by: str | None
    act: Act | None = None

    def is_as(self, at: datetime, by: str, actor: str | None = None, client: str | None = None) -> bool:
        """Return whether it is stored so; the events do not tell the person of a consent from another."""
        sides = {self.by, "principal"} if self.by in ("person", "owner") else {self.by or by}
        is_theirs = self.act is None or self.act.is_of(actor, client)
        return (self.at or timestamp(at)) == timestamp(at) and by in sides and is_theirs


@dataclass(slots=True)
class Lock:
    """A refusal; `purposes` is None for everything."""

    since: int
    at: str
    by: str
    actor: str
    salt: bytes | None
    purposes: set[str] | None = field(default_factory=set)
    exceptions: set[str] = field(default_factory=set)
    opened_at: str | None = None
    is_vague: bool = False
    """Whether the salt under which events name its purposes is destroyed."""

    def covers(self, purpose: str) -> bool:
        """Return whether the events say that nobody else could grant this purpose."""
        if self.is_vague:
            return False
        return purpose not in self.exceptions if self.purposes is None else purpose in self.purposes

    def is_as(self, row: Record) -> bool:
        """Return whether it is stored so. The erasure of a person leaves their refusals without an opener."""
        match row["opener_kind"]:
            case "account":
                sealed = self.salt is None or seal(self.salt, row["opener"]) == self.actor
                is_theirs = self.by == "person" and sealed
            case "operator":
                is_theirs = self.by == "operator"
            case _:
                is_theirs = self.by == "person"
        purposes = None if row["purposes"] is None else set(row["purposes"])
        covered = purposes, set(row["exceptions"]), timestamp(row["opened_at"])
        is_same = self.is_vague or covered == (self.purposes, self.exceptions, self.opened_at)
        return is_theirs and is_same and timestamp(row["refused_at"]) == self.at


_SECOND = ("label", "source", "recipients", "modalities", "territories", "guardian", "details")
"""The members of the second edition. A consent with none of them has terms of the first."""


def terms_of(record: Record) -> str:
    """Return the text of a consent's terms, of which its event has the HMAC."""
    terms = {
        "expires_at": timestamp(record["expires_at"]),
        "method": record["method"],
        "not_before": timestamp(record["not_before"]),
        "notice_language": record["notice_language"],
        "notice_sha256": record["notice_sha256"].hex(),
        "notice_version": record["notice_version"],
        "principal": record["principal"],
        "purposes": record["purposes"],
    }
    if any(record[name] is not None for name in _SECOND):
        objects = {name: record[name] and json.loads(record[name]) for name in ("details", "recipients")}
        texts = {name: record[name] for name in ("guardian", "label", "modalities", "territories")}
        terms |= objects | texts | {"source": record["source"] and str(record["source"]), "v": 2}
    return canonical(terms)
