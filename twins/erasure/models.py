"""Erasures in answers."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, override
from uuid import UUID

from fastapi import Path, Response
from pydantic import Field

from shared.http.fields import Id, Output, Timestamp
from shared.http.openapi import Responses, headers
from shared.http.paging import Page
from twins.consent.models import State

KIND = "erasure"
"""The kind of job that goes on with an erasure."""

ErasureId = Annotated[Id, Path(description="The erasure's id.")]


class ErasureEntry(Output):
    """The progress of an erasure."""

    id: UUID
    state: Literal["running", "complete"]
    requested_at: Timestamp
    completed_at: Timestamp | None
    twins: Annotated[int, Field(description="The number of twins erased so far.")]
    removed: Annotated[dict[str, int], Field(description="The number of rows and documents removed so far, by kind.")]

    @classmethod
    @override
    def of(cls, row: Mapping[str, Any]) -> Self:
        state = "running" if row["completed_at"] is None else "complete"
        removed = json.loads(row["removed"])
        return super().of({**row, "state": state, "removed": removed, "twins": removed.get("twins", 0)})


class Erasure(ErasureEntry):
    """The progress of an erasure, and its certificate when it is complete."""

    certificate: Annotated[str | None, Field(description="A compact JWS (ES256, keys in `/.well-known/jwks.json`).")]


class ErasurePage(Page):
    """One page of erasures; `next_cursor` is null on the last."""

    items: list[ErasureEntry]


class ErasedLedger(Output):
    """The end of the ledger of an erased twin, and the proof that the certificate covers it."""

    index: Annotated[int, Field(description="The number of the leaf, from 0, in order of `twin_id`.")]
    twin_id: UUID
    seq: Annotated[int, Field(description="The number of the last event.")]
    head: Annotated[str, Field(description="The hash of the last event.")]
    proof: Annotated[list[str], Field(description="The inclusion proof (RFC 9162 §2.1.3), in hexadecimal.")]


class ErasedLedgerPage(Page):
    """One page of ledgers; `next_cursor` is null on the last."""

    items: list[ErasedLedger]


class ErasedConsent(Output):
    """What a person keeps of a consent to a twin that its owner has erased."""

    consent_id: UUID
    twin_id: UUID
    state: Annotated[State, Field(description="The consent's state, as its receipt had it, when the twin was erased.")]
    given_at: Timestamp
    erasure_id: UUID
    erased_at: Annotated[Timestamp, Field(description="When the owner asked for the erasure.")]
    completed_at: Annotated[Timestamp | None, Field(description="The end of the erasure; null: it is running.")]
    ledger: Annotated[ErasedLedger | None, Field(description="The twin's entry in the certificate, and its proof.")]
    certificate: Annotated[str | None, Field(description="A compact JWS (ES256, keys in `/.well-known/jwks.json`).")]


class ErasedConsentPage(Page):
    """One page of consents to erased twins; `next_cursor` is null on the last."""

    items: list[ErasedConsent]


def address(erasure_id: UUID) -> str:
    """Return the path of an erasure."""
    return f"/api/v1/erasures/{erasure_id}"


ERASED: Responses = headers(202, "Location") | {
    204: {"description": "Everything is erased; `Location` as for 202, if any."}
}
"""The `responses` of a route that answers with `erased`."""


def erased(erasure_id: UUID | None, is_complete: bool) -> Response:
    """Return the answer to the erasure of an account; without an id, there never was anything of it."""
    found = {} if erasure_id is None else {"Location": address(erasure_id)}
    return Response(status_code=204 if erasure_id is None or is_complete else 202, headers=found)
