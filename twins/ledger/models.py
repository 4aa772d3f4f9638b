"""Ledger entries in answers."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Self, override

from pydantic import Field

from shared.http.fields import Output
from shared.http.paging import Page


class LedgerEntry(Output):
    """One event, and its hash: the SHA-256 of the event as RFC 8785 JSON."""

    seq: int
    event: dict[str, Any]
    hash: str

    @classmethod
    @override
    def of(cls, row: Mapping[str, Any]) -> Self:
        return super().of({**row, "event": json.loads(row["event"]), "hash": row["hash"].hex()})


class LedgerPage(Page):
    """One page of a ledger; `next_cursor` is null on the last."""

    items: list[LedgerEntry]


class Verification(Output):
    """The result of the verification of a ledger, of its chain and of what its events say."""

    valid: bool
    events: Annotated[int, Field(description="The number of valid events.")]
    head: Annotated[str, Field(description="The hash of the last event, from the twin's own row.")]
    broken_at: Annotated[
        int | None,
        Field(description="The `seq` of the first event that is invalid, or that what is stored differs from."),
    ]
    reason: str | None
    terms_unverifiable: Annotated[
        int, Field(description="The number of consents whose terms nobody can verify after an erasure.")
    ]
