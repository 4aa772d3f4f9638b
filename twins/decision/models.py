"""Questions to the gate, and its answers."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID

from pydantic import Field, PlainValidator, TypeAdapter, field_validator

from shared.http.fields import Id, Input, Output, Timestamp
from twins.assurance import MEANING, Assurance
from twins.external import ExternalId
from twins.limits import TOKEN, Asker, Modality, Territory, Token
from twins.parties import Issuer, Name, Owner, Principal

GENERAL = "general"
"""The purpose behind a twin's boolean `consent`."""

PURPOSE = TOKEN
Purpose = Token

Reason = Literal[
    "granted",
    "unconfirmed_after_restore",
    "withdrawn",
    "refused",
    "no_consent",
    "expired",
    "not_yet_valid",
    "assurance_too_low",
    "recipient_not_covered",
    "modality_not_covered",
    "territory_not_covered",
]


class Decision(Output):
    """The gate's answer: may this twin be used for this purpose, now, and why."""

    decision: bool
    purpose: str
    reason: Annotated[Reason, Field(description="The first that applies, of a list that may grow.")]
    consent_id: UUID | None
    expires_at: Timestamp | None
    assurance: Annotated[Assurance | None, Field(description=MEANING)]
    recipient: Annotated[Asker, Field(description="For whom it is decided: by default your account.")]
    evaluated_at: Timestamp


class Answer(TypedDict):
    """The members of an answer."""

    decision: bool
    purpose: str
    reason: Reason | Literal["not_found"]
    consent_id: UUID | None
    expires_at: Timestamp | None
    assurance: Assurance | None
    recipient: Asker
    evaluated_at: Timestamp


class BatchDecision(Decision):
    """The gate's answer to one of many questions."""

    reason: Reason | Literal["not_found"]  # type: ignore[assignment]


class ExternalDecision(BatchDecision):
    """The gate's answer to a question about an external id."""

    twin_id: Annotated[UUID | None, Field(description="The twin that has the id; null: you may ask about none.")]


RECIPIENT_TYPE = (
    "What would use the twin, with `recipient_id`; by default your account. `account`: an account of this API."
)
RECIPIENT_ID = "Who would use the twin, as consents name them."
RECIPIENT_ISSUER = "Whose id that is."
MODALITY = "What of the person is used. Where the consent is limited, a question without it is answered no."
TERRITORY = "Where the twin is used. Where the consent is limited, a question without it is answered no."
MIN_ASSURANCE = "The lowest assurance that is a yes to you."
PRINCIPAL = "The person's account: only its own yes, by its own token, is then a yes."

LACKS = "is required with what the others say"

_TOGETHER: dict[str, Any] = {
    "dependentRequired": {
        "recipient_type": ["recipient_id"],
        "recipient_id": ["recipient_type"],
        "recipient_issuer": ["recipient_id"],
    }
}


class Attributes(NamedTuple):
    """What a question names beside the twin and its purpose; None where it leaves it out."""

    recipient_type: str | None = None
    recipient_id: str | None = None
    recipient_issuer: str | None = None
    modality: Modality | None = None
    territory: Territory | None = None
    min_assurance: Assurance | None = None
    principal: str | None = None

    def lacks(self) -> str | None:
        """Return the attribute without which another means nothing, if it is left out."""
        if self.recipient_id is None:
            return "recipient_id" if self.recipient_type or self.recipient_issuer else None
        return None if self.recipient_type else "recipient_type"


NOTHING = Attributes()
"""A question that names a purpose alone."""


class AnyQuestion(Input):
    """What a question asks about a twin, whichever way it names the twin."""

    model_config = Input.model_config | {"json_schema_extra": _TOGETHER}

    purpose: Purpose = GENERAL
    recipient_type: Annotated[Token | None, Field(description=RECIPIENT_TYPE)] = None
    recipient_id: Annotated[Name | None, Field(description=RECIPIENT_ID)] = None
    recipient_issuer: Annotated[Issuer | None, Field(description=RECIPIENT_ISSUER)] = None
    modality: Annotated[Modality | None, Field(description=MODALITY)] = None
    territory: Annotated[Territory | None, Field(description=TERRITORY)] = None
    min_assurance: Annotated[Assurance | None, Field(description=MIN_ASSURANCE)] = None
    principal: Annotated[Principal | None, Field(description=PRINCIPAL)] = None

    def attributes(self) -> Attributes:
        """Return what it names beside the twin and its purpose."""
        return Attributes(*(getattr(self, name) for name in Attributes._fields))


class Question(AnyQuestion):
    """One question to the gate, about a twin."""

    twin_id: Annotated[Id, Field(strict=False)]


class ExternalQuestion(AnyQuestion):
    """One question to the gate, about the twin that has an external id."""

    external_id: ExternalId
    owner: Annotated[Owner | None, Field(description="The twin's owner; by default who owns what you make.")] = None


def _kind_of(question: object) -> AnyQuestion:
    """Return a question of its own kind, so that an error names its members."""
    if not isinstance(question, dict):
        raise ValueError("must be an object")  # noqa: TRY004 - a validator's error
    return (ExternalQuestion if "external_id" in question else Question).model_validate(question)


PLAIN = frozenset({"twin_id", "purpose"})
"""The members of a question that names a purpose alone, of a twin by its id."""

type GateQuestion = Annotated[
    Question | ExternalQuestion,
    PlainValidator(_kind_of, json_schema_input_type=Question | ExternalQuestion),
    Field(description="A question that names its twin by id, or by an external id."),
]

type GateAnswer = Annotated[
    BatchDecision | ExternalDecision,
    Field(description="The answer to a question, which names the twin where the question did not."),
]


_NUMBER = Field(min_length=1, max_length=100)
_BY_ID = TypeAdapter[list[Question]](Annotated[list[Question], _NUMBER])


class Questions(Input):
    """Up to a hundred questions, answered as of one moment."""

    items: Annotated[list[GateQuestion], _NUMBER]

    @field_validator("items", mode="wrap")
    @classmethod
    def _alike(cls, items: object, validate: Callable[[object], list[AnyQuestion]]) -> Sequence[AnyQuestion]:
        """Return questions that all name their twin by id, as most do: to ask for each kind took half as long again."""
        if isinstance(items, list) and not any(isinstance(item, dict) and "external_id" in item for item in items):
            return _BY_ID.validate_python(items)
        return validate(items)


class Decisions(Output):
    """The answers, in the order of the questions."""

    items: list[GateAnswer]


class PlainDecisions(Output):
    """The same where no question is about an external id, without a model for each of a hundred answers."""

    items: list[Answer]
