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
from shared.http.text import Text

_Name = Annotated[str, Text(MAX_SUB, verbatim=True)]
"""The name that an issuer gives somebody, or the `sub` of an HS256 token; compared without a change."""


class Subject(BaseModel):
    """An account of an identity provider: a person or a service."""

    model_config = ConfigDict(extra="forbid", strict=True)

    issuer: Annotated[
        str,
        StringConstraints(pattern=r"^[\x21-\x7e]+$", max_length=MAX_ACCOUNT - MAX_SUB - 1),
        Field(description="The `iss` of the account's tokens, to the last slash."),
    ]
    subject: Annotated[_Name, Field(description="The name that this issuer gives the account.")]


class Organization(BaseModel):
    """An organisation of an identity provider."""

    issuer: str
    organization: str


def party(account: str) -> str | Subject | Organization:
    """Return an account as answers show it; one of an HS256 token is its subject alone."""
    match account.split("\n"):
        case [issuer, subject]:
            return Subject.model_construct(issuer=issuer, subject=subject)
        case [issuer, _, organization]:
            return Organization(issuer=issuer, organization=organization)
        case _:
            return account


def shown(account: str) -> Any:
    """Return an account in the form of JSON."""
    found = party(account)
    return found.model_dump() if isinstance(found, BaseModel) else found


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


type Principal = Annotated[
    _Name,
    WrapValidator(_read, json_schema_input_type=_Name | Subject),
    Field(description="A person's account: the `sub` of HS256 tokens, or an issuer with a subject."),
]
"""The account of a person, in a request."""

type Party = Annotated[
    str,
    PlainSerializer(party),
    Field(description="An account: the `sub` of HS256 tokens, or an issuer with a subject or an organisation."),
]
"""An account, in an answer."""
