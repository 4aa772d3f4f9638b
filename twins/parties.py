"""Accounts in bodies: stored as one text, and shown with the issuer that an account of an identity provider has."""

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from shared.auth import MAX_ACCOUNT, MAX_SUB
from shared.http.text import Phrase, Text

Name = Annotated[str, Text(MAX_SUB, verbatim=True)]
"""The name that an issuer gives somebody, or the `sub` of an HS256 token; compared without a change."""

Issuer = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]+$", max_length=MAX_ACCOUNT - MAX_SUB - 1)]
"""The `iss` of tokens."""


class Subject(BaseModel):
    """An account of an identity provider: a person or a service."""

    model_config = ConfigDict(extra="forbid", strict=True)

    issuer: Annotated[Issuer, Field(description="The `iss` of the account's tokens, to the last slash.")]
    subject: Annotated[Name, Field(description="The name that this issuer gives the account.")]


class Label(BaseModel):
    """A person without an account, named by the owner."""

    model_config = ConfigDict(extra="forbid", strict=True)

    label: Annotated[Phrase, Field(description="A name for people to read. No account is ever compared with it.")]


class Labelled(BaseModel):
    """A person without an account, as the owner named them."""

    label: str | None


class Organization(BaseModel):
    """An organisation of an identity provider."""

    model_config = ConfigDict(extra="forbid", strict=True)

    issuer: Annotated[Issuer, Field(description="The `iss` of its tokens, to the last slash.")]
    organization: Annotated[Name, Field(description="The name that this issuer gives the organisation.")]


def party(account: str) -> str | Subject | Organization:
    """Return an account as answers show it; one of an HS256 token is its subject alone."""
    match account.split("\n"):
        case [issuer, subject]:
            return Subject.model_construct(issuer=issuer, subject=subject)
        case [issuer, _, organization]:
            return Organization.model_construct(issuer=issuer, organization=organization)
        case _:
            return account


def shown(account: str) -> Any:
    """Return an account in the form of JSON."""
    found = party(account)
    return found.model_dump() if isinstance(found, BaseModel) else found


def person(named: str | Labelled) -> Any:
    """Return a person, with an account or a label, in the form of JSON."""
    return shown(named) if isinstance(named, str) else named.model_dump()


def _read(named: object, validate: ValidatorFunctionWrapHandler) -> str:
    """Return the text of an account that a body names."""
    match named:
        case str():
            account: str = validate(named)
            return account
        case dict():
            found = Subject.model_validate(named)
            return f"{found.issuer}\n{found.subject}"
        case _:
            raise ValueError("must be a string, or an object with issuer and subject")


def _read_person(named: object, validate: ValidatorFunctionWrapHandler) -> str | Label:
    """Return the text of an account, or the label, that a body names."""
    is_label = isinstance(named, dict) and "label" in named
    return Label.model_validate(named) if is_label else _read(named, validate)


def _read_owner(named: object, validate: ValidatorFunctionWrapHandler) -> str:
    """Return the text of an account or an organisation that a body names, of the latter without its claim."""
    if isinstance(named, dict) and "organization" in named:
        found = Organization.model_validate(named)
        return f"{found.issuer}\n\n{found.organization}"
    return _read(named, validate)


type Principal = Annotated[
    Name,
    WrapValidator(_read, json_schema_input_type=Name | Subject),
    Field(description="A person's account: the `sub` of HS256 tokens, or an issuer with a subject."),
]
"""The account of a person, in a request."""

type Person = Annotated[
    Name,
    WrapValidator(_read_person, json_schema_input_type=Name | Subject | Label),
    Field(description="A person's account, or a label for somebody who has none."),
]
"""A person in a request: the text of an account, or a `Label`."""

type Owner = Annotated[
    Name,
    WrapValidator(_read_owner, json_schema_input_type=Name | Subject | Organization),
    Field(description="An owner: the `sub` of HS256 tokens, or an issuer with a subject or an organisation."),
]
"""The owner of twins, in a request; `Context.owner_of` has its account."""

type Party = Annotated[
    str,
    PlainSerializer(party),
    Field(description="An account: the `sub` of HS256 tokens, or an issuer with a subject or an organisation."),
]
"""An account, in an answer."""

type Giver = Annotated[Party | Labelled, Field(description="A person: their account, or a label for one without.")]
"""A person, in an answer."""
