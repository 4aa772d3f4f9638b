"""Erasures and accounts as they cross the wire."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from shared.models import Output, Timestamp


class Erasure(Output):
    """The progress of an erasure, and in the end its certificate."""

    id: UUID
    state: Literal["running", "complete"]
    requested_at: Timestamp
    completed_at: Timestamp | None
    twins: Annotated[int, Field(description="How many twins are erased.")]
    removed: Annotated[
        dict[str, int], Field(description="How many rows and documents have been removed, by what they were.")
    ]
    certificate: Annotated[
        str | None, Field(description="A compact JWS with ES256; its keys are at `/.well-known/jwks.json`.")
    ]


class Account(Output):
    """What is stored of an account."""

    sub: str
    twins: int
    persona_versions: int
    consents: Annotated[int, Field(description="Consents recorded for twins of this account.")]
    ledger_events: int
    idempotency_answers: int
    consents_given: Annotated[int, Field(description="Consents that this person gave to twins of others.")]
