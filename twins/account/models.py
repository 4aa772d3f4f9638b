"""Accounts in answers."""

from typing import Annotated, Literal

from pydantic import Field

from shared.http.fields import Output
from twins.parties import Party

_COUNTS = (
    "`at_least`: there is more. The newest 10,000 twins are counted, and at the most 10,000 of their consents, "
    "of their answers, and of the consents given."
)


class Account(Output):
    """Who you are, and the amount of stored data of the owner for which you act."""

    sub: Annotated[str, Field(description="The same as `subject`.", json_schema_extra={"deprecated": True})]
    issuer: Annotated[str | None, Field(description="The `iss` of the token; null with HS256.")]
    subject: Annotated[str, Field(description="The person or service that the token is of.")]
    owner: Annotated[Party | None, Field(description="Who owns what you make; null: your token names no organisation.")]
    actor: Annotated[Party, Field(description="The account that the ledger names for what you do.")]
    client: Annotated[str | None, Field(description="The software that got the token, where the token names it.")]
    scopes: list[str]
    twins: int
    persona_versions: int
    consents: Annotated[int, Field(description="Consents recorded for twins of this account.")]
    ledger_events: int
    idempotency_answers: int
    consents_given: Annotated[int, Field(description="Consents that this person gave to other accounts' twins.")]
    counts: Annotated[Literal["exact", "at_least"], Field(description=_COUNTS)]
