"""Questions to the gate, and its answers."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, StringConstraints

from shared.http.fields import Id, Input, Output, Timestamp

GENERAL = "general"
"""The purpose behind a twin's boolean `consent`."""

PURPOSE = r"^[a-z][a-z0-9._\-]{0,62}$"
"""`-` is escaped: at the end of a class it is an error under JavaScript's flag `v`, which HTML forms use."""
Purpose = Annotated[str, StringConstraints(pattern=PURPOSE)]

Reason = Literal[
    "granted", "unconfirmed_after_restore", "withdrawn", "refused", "no_consent", "expired", "not_yet_valid"
]


class Decision(Output):
    """The gate's answer: may this twin be used for this purpose, now, and why."""

    decision: bool
    purpose: str
    reason: Reason
    consent_id: UUID | None
    expires_at: Timestamp | None
    evaluated_at: Timestamp


class BatchDecision(Decision):
    """The gate's answer to one of many questions."""

    reason: Reason | Literal["not_found"]  # type: ignore[assignment]


class Question(Input):
    """One question to the gate."""

    twin_id: Annotated[Id, Field(strict=False)]
    purpose: Purpose = GENERAL


class Questions(Input):
    """Up to a hundred questions, answered as of one moment."""

    items: Annotated[list[Question], Field(min_length=1, max_length=100)]


class Decisions(Output):
    """The answers, in the order of the questions."""

    items: list[BatchDecision]
