"""What an erasure certificate says (docs/RECEIPTS.md)."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from shared.stores.postgres import Record
from twins.erasure import merkle
from twins.ledger.chain import timestamp

TYPE = "erasure-certificate+jwt"

MAX_EVENTS = 150
_MAX_BYTES = 36_000
"""The most bytes of events in a certificate, so that it stays under 64 kB: JOSE libraries refuse more than 128 kB."""


class Kept(NamedTuple):
    """For how long backups and logs, and the journal, are kept, and what more stays of these twins."""

    backups: timedelta
    journal: timedelta
    more: Sequence[str]


def entry(head: Record) -> dict[str, Any]:
    """Return the end of a twin's ledger as it stands in certificates and in the leaves of a tree."""
    return {"twin_id": str(head["twin_id"]), "seq": head["seq"], "head": head["hash"].hex()}


def leaf(head: Record) -> bytes:
    """Return the hashed leaf of a twin: of its `entry` as canonical JSON (RFC 8785)."""
    return merkle.leaf(json.dumps(entry(head), sort_keys=True, separators=(",", ":")).encode())


def of_twin(head: Record, events: Sequence[str]) -> dict[str, Any]:
    """Return what a certificate says of the ledger of a single twin."""
    fits = len(events) <= MAX_EVENTS and sum(map(len, events)) <= _MAX_BYTES
    return {"ledgers": [entry(head)], "events": [json.loads(event) for event in events] if fits else None}


def of_many(pieces: Sequence[Record]) -> dict[str, Any]:
    """Return what a certificate says of the ledgers of all twins of an account."""
    root = merkle.root([piece["root"] for piece in pieces])
    return {"tree": {"leaves": sum(piece["leaves"] for piece in pieces), "root": root.hex()}}


def payload(
    erasure: Record, remaining: Mapping[str, int], ledgers: Mapping[str, Any], at: datetime, kept: Kept
) -> dict[str, Any]:
    """Return all members of a certificate; `kept` is what stays, and for how long."""
    removed = json.loads(erasure["removed"])
    erasure_id: UUID = erasure["id"]
    return {
        "iat": int(at.timestamp()),
        "erasure_id": str(erasure_id),
        "requested_at": timestamp(erasure["requested_at"]),
        "completed_at": timestamp(at),
        "removed": dict.fromkeys(remaining, 0) | removed,
        "remaining": remaining,
        "stays": _stays(at, kept, is_account=erasure["is_account"]),
        **ledgers,
    }


def _stays(at: datetime, lives: Kept, *, is_account: bool) -> list[dict[str, str | None]]:
    """Return what is kept, with whom and until when; None: for good, or until its holder removes it."""
    kept: list[tuple[str, str, str | None]] = [
        ("ledger_skeleton", "service", None),
        ("account_digests", "service", None),
        *((what, "service", None) for what in lives.more),
        ("journal", "service", timestamp(at + lives.journal)),
        ("backups_and_logs", "operator", timestamp(at + lives.backups)),
        ("served_receipts", "recipients", None),
    ]
    if is_account:
        kept += [("consents_without_name", "owners", None), ("owners_texts", "owners", None)]
    return [{"what": what, "with": holder, "until": end} for what, holder, end in kept]
