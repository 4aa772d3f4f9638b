"""What the events of a ledger refer to: consents, salts, and who acted."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any
from uuid import UUID

from shared.stores.postgres import Record
from twins.assurance import RECORDED, word_of
from twins.ledger.chain import seal
from twins.ledger.outcome import Act, DifferenceError

Event = dict[str, Any]


def consents_of(events: Iterable[Event]) -> Iterator[UUID]:
    """Yield the consents that events name."""
    for event in events:
        with suppress(ValueError, TypeError, KeyError, AttributeError):
            yield UUID(event["consent_id"])
            yield UUID(event["replaced_by"])


def record_of(event: Event, records: Mapping[UUID, Record]) -> Record:
    """Return the consent that an event names."""
    record = records.get(UUID(event["consent_id"]))
    if record is None or record["line_purposes"] is None:
        raise DifferenceError(event["seq"], "consent is missing")
    return record


def act_of(event: Event, salt: bytes | None) -> Act:
    """Return who caused an event."""
    return Act(event["actor"], event.get("client"), salt)


def line_salt(record: Record, seq: int) -> bytes | None:
    """Return the salt of a line of renewals, if it has sealed the event of this number."""
    salt: bytes | None = record["salt"]
    return salt if salt and record["since_seq"] <= seq else None


def check_giver(event: Event, record: Record, salt: bytes | None) -> None:
    """Check who gave a consent, and how it came from the person; raises `DifferenceError`."""
    assurance = event.get("assurance", word_of(RECORDED))
    is_same = assurance == word_of(record["assurance"])
    if not is_same or not act_of(event, salt).is_of(record["actor"], record["client"]):
        raise DifferenceError(event["seq"], "record differs")


def check_replaced(event: Event, records: Mapping[UUID, Record]) -> None:
    """Check that a consent is marked of which a person's own is about to take purposes; raises `DifferenceError`."""
    old, new = record_of(event, records), records.get(UUID(event["replaced_by"]))
    if new is None:
        raise DifferenceError(event["seq"], "consent is missing")
    if old["taken_by"] is None:
        raise DifferenceError(event["seq"], "record differs")
    salt = line_salt(new, event["seq"])
    if salt and not {seal(salt, purpose) for purpose in new["purposes"]} >= set(event["purposes"]):
        raise DifferenceError(event["seq"], "purposes differ")
