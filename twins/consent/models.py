"""Consents, decisions, ledger entries and keys as they cross the wire."""

import hashlib
import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

from shared.models import Input, Output, Timestamp
from shared.postgres import Record
from shared.text import PROSE, Phrase, Text

GENERAL = "general"
"""The purpose that a twin's boolean stands for."""

PURPOSE = r"^[a-z][a-z0-9._-]{0,62}$"
Purpose = Annotated[str, StringConstraints(pattern=PURPOSE)]
Subject = Annotated[str, Text(255, verbatim=True)]
"""The `sub` of a person's tokens; compared as it is."""

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,6})?\d*([Zz]|[+-]\d\d:\d\d)")


# What asyncpg takes for those of PostgreSQL.
_INFINITIES = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def _moment(value: object) -> datetime:
    moment = None
    if isinstance(value, str) and _RFC3339.fullmatch(value):
        with suppress(ValueError, OverflowError):
            moment = datetime.fromisoformat(value.upper()).astimezone(UTC)
    if moment is None:
        raise ValueError("must be an RFC 3339 time with an offset, such as 2027-01-31T12:00:00Z")
    if moment in _INFINITIES:
        raise ValueError(
            "must be later than 0001-01-01T00:00:00Z and earlier than 9999-12-31T23:59:59.999999Z;"
            " leave it out where there is no bound"
        )
    return moment


Moment = Annotated[datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})]


class Notice(Input):
    """The exact text that the person was shown, and which version of it."""

    version: Phrase
    language: Annotated[str, StringConstraints(max_length=35, pattern="^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$")]
    text: Annotated[str, Text(20_000, PROSE)]

    @property
    def sha256(self) -> bytes:
        """The SHA-256 of the text in UTF-8."""
        return hashlib.sha256(self.text.encode()).digest()


BOOLEAN_NOTICE = Notice(version="1", language="en", text="I agree that this AI twin speaks in my name.")
"""What a twin's `consent: true` stands for."""

_VOICE: dict[str, Any] = {
    "purposes": ["voice", "conversation"],
    "notice": {"version": "2026-11", "language": "en", "text": "I agree that Alex speaks with my voice."},
    "principal": "alex@example.com",
    "method": "web-form",
    "expires_at": "2030-01-01T00:00:00Z",
}


class ConsentCreate(Input):
    """A consent that a person has given. Its terms never change."""

    model_config = ConfigDict(json_schema_extra={"examples": [_VOICE]})

    purposes: Annotated[
        list[Purpose],
        Field(
            min_length=1,
            max_length=20,
            description="What the twin may be used for.",
            json_schema_extra={"uniqueItems": True},
        ),
    ]
    notice: Notice
    principal: Annotated[Subject | None, Field(description="The `sub` of who agreed; you, where left out.")] = None
    method: Annotated[Purpose, Field(description="How it was given.")] = "api"
    not_before: Annotated[Moment | None, Field(description="It is not valid earlier.")] = None
    expires_at: Annotated[Moment | None, Field(description="It is not valid from then on.")] = None


class ConsentRenew(Input):
    """What a renewal changes: what is left out stays as it was, and is valid for as long again."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"expires_at": "2031-01-01T00:00:00Z"}]})

    notice: Notice | None = None
    method: Purpose | None = None
    not_before: Moment | None = None
    expires_at: Moment | None = None


class NoticeRecord(Output):
    """The notice that a consent is bound to."""

    version: str
    language: str
    text: str
    sha256: str


State = Literal["given", "withdrawn", "expired", "replaced"]


class Consent(Output):
    """A consent as it is now."""

    id: UUID
    twin_id: UUID
    state: Annotated[State, Field(description="`replaced`: by a renewal, the consent `replaced_by`.")]
    purposes: list[str]
    notice: NoticeRecord
    principal: str
    method: str
    given_at: Timestamp
    not_before: Timestamp | None
    expires_at: Timestamp | None
    withdrawn_at: Timestamp | None
    withdrawn_by: Annotated[
        Literal["principal", "owner"] | None, Field(description="The person themself, or the twin's owner.")
    ]
    renews: UUID | None
    replaced_by: UUID | None

    @classmethod
    def of(cls, row: Record) -> "Consent":
        """Return a row of `queries` as a consent."""
        notice = NoticeRecord(
            version=row["notice_version"],
            language=row["notice_language"],
            text=row["notice_text"],
            sha256=row["notice_sha256"].hex(),
        )
        return cls(notice=notice, **{name: row[name] for name in cls.model_fields if name != "notice"})


Reason = Literal["granted", "no_consent", "withdrawn", "expired", "not_yet_valid"]


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

    twin_id: Annotated[UUID, Field(strict=False)]
    purpose: Purpose = GENERAL


class Questions(Input):
    """Up to a hundred questions, answered as of one moment."""

    items: Annotated[list[Question], Field(min_length=1, max_length=100)]


class Decisions(Output):
    """The answers, in the order of the questions."""

    items: list[BatchDecision]


class LedgerEntry(Output):
    """One event, and its hash: the SHA-256 of the event as RFC 8785 JSON."""

    seq: int
    event: dict[str, Any]
    hash: str


class Verification(Output):
    """Whether every event of a ledger is as it was written."""

    valid: bool
    events: Annotated[int, Field(description="How many events were found to be right.")]
    head: Annotated[str, Field(description="The hash that the twin says the ledger ends with.")]
    broken_at: Annotated[int | None, Field(description="The `seq` of the first event that is not right.")]
    reason: str | None


class Jwk(Output):
    """A public key for ES256 (RFC 7517, RFC 7518 §6.2)."""

    kty: Literal["EC"]
    crv: Literal["P-256"]
    x: Annotated[str, Field(description="Coordinate of the point, in base64url.")]
    y: Annotated[str, Field(description="The other one.")]
    kid: Annotated[str, Field(description="Its thumbprint (RFC 7638), which a signature's header names.")]
    use: Literal["sig"]
    alg: Literal["ES256"]


class Jwks(Output):
    """A JSON Web Key Set: the key that signs, and those that signatures were made with before."""

    keys: list[Jwk]
