"""The terms of a consent beyond purposes and time: what limits it, and the evidence that the owner states.

Recipients, modalities and territories decide at the gate. The rest is evidence: digests and words, and never media.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints

from shared.http.fields import Input, Moment, Output, Timestamp, each_once
from shared.http.text import PROSE, Phrase, Text
from twins.limits import Modality, Recipient, Territory, Token, key_of
from twins.parties import Party, Principal

Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
Language = Annotated[str, StringConstraints(max_length=35, pattern="^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$")]
MediaType = Annotated[str, Text(127)]

_UNIQUE: dict[str, Any] = {"uniqueItems": True}


class Use(Input):
    """A description of one purpose."""

    purpose: Token
    description: Annotated[str, Text(1000, PROSE)]


class Representation(Input):
    """Who advised the person: their counsel, a union's agreement, or nobody."""

    kind: Literal["counsel", "union", "none"]
    reference: Phrase | None = None


class Signature(Input):
    """The signature under the terms, of which `sha256` is the digest."""

    method: Annotated[Token, Field(description="How it was signed, such as `paper` or `e-signature`.")]
    signed_at: Moment
    sha256: Sha256


class Evidence(Input):
    """The digest of a recording or document that shows the consent."""

    kind: Annotated[Token, Field(description="What it is, such as `audio`, `video` or `document`.")]
    sha256: Sha256
    media_type: MediaType | None = None
    language: Language | None = None
    recorded_at: Moment | None = None
    notice_sha256: Annotated[Sha256 | None, Field(description="The digest of the notice that it shows.")] = None


class Guardian(Input):
    """The account of whoever agreed for the person, and what they are to them."""

    relation: Phrase
    id: Principal


class Effect(Input):
    """What a withdrawal means for what was made until then."""

    effect: Literal["stop_new_uses", "take_down", "delete_model"]


def _unique(recipients: list[Recipient]) -> list[Recipient]:
    if len({key_of(one.type, one.id, one.issuer) for one in recipients}) < len(recipients):
        raise ValueError("must not name a recipient twice")
    return recipients


def _each_purpose_once(uses: list[Use]) -> list[Use]:
    if len({use.purpose for use in uses}) < len(uses):
        raise ValueError("must not describe a purpose twice")
    return uses


class Members(Input):
    """Optional terms. What is left out is not limited, and not stated."""

    recipients: Annotated[
        Annotated[list[Recipient], AfterValidator(_unique)] | None,
        Field(min_length=1, max_length=100, description="Who may use the twin; by default anybody."),
    ] = None
    modalities: Annotated[
        Annotated[list[Modality], each_once("a modality")] | None,
        Field(min_length=1, json_schema_extra=_UNIQUE, description="What of the person may be used."),
    ] = None
    territories: Annotated[
        Annotated[list[Territory], each_once("a territory")] | None,
        Field(min_length=1, max_length=249, json_schema_extra=_UNIQUE, description="Where the twin may be used."),
    ] = None
    uses: Annotated[
        Annotated[list[Use], AfterValidator(_each_purpose_once)] | None,
        Field(min_length=1, max_length=20, description="A description of each purpose; each once."),
    ] = None
    representation: Annotated[
        Representation | None, Field(description="With `none`, `uses` has to describe every purpose.")
    ] = None
    signature: Signature | None = None
    evidence: Annotated[list[Evidence] | None, Field(min_length=1, max_length=20)] = None
    guardian: Guardian | None = None
    compensation_ref: Annotated[Phrase | None, Field(description="Your reference to what is paid; no amount.")] = None
    jurisdiction: Annotated[Phrase | None, Field(description="Whose law applies.")] = None
    withdrawal: Annotated[Effect | None, Field(description="What a withdrawal means for what was made.")] = None


DETAILS = ("uses", "representation", "signature", "evidence", "compensation_ref", "jurisdiction", "withdrawal")
"""The members that decide nothing, but for the guardian, whose account stands apart."""


# --- In answers ---------------------------------------------------------------------------------------


class RecipientRecord(Output):
    """A recipient whom a consent covers."""

    type: str
    id: str
    issuer: str | None
    name: str | None


class UseRecord(Output):
    """A description of one purpose."""

    purpose: str
    description: str


class RepresentationRecord(Output):
    """Who advised the person."""

    kind: str
    reference: str | None = None


class SignatureRecord(Output):
    """The signature under the terms."""

    method: str
    signed_at: Timestamp
    sha256: str


class EvidenceRecord(Output):
    """The digest of a recording or document."""

    kind: str
    sha256: str
    media_type: str | None = None
    language: str | None = None
    recorded_at: Timestamp | None = None
    notice_sha256: str | None = None


class GuardianRecord(Output):
    """Whoever agreed for the person."""

    relation: str
    id: Party


class EffectRecord(Output):
    """What a withdrawal means for what was made until then."""

    effect: str


class MemberRecords(Output):
    """The optional terms of a consent; null: not limited, not stated, or erased with its person."""

    recipients: list[RecipientRecord] | None
    modalities: list[str] | None
    territories: list[str] | None
    uses: list[UseRecord] | None = None
    representation: RepresentationRecord | None = None
    signature: SignatureRecord | None = None
    evidence: list[EvidenceRecord] | None = None
    guardian: GuardianRecord | None = None
    compensation_ref: str | None = None
    jurisdiction: str | None = None
    withdrawal: EffectRecord | None = None
