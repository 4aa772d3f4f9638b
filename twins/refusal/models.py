"""Refusals in requests and answers."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import Path
from pydantic import ConfigDict, Field

from shared.http.fields import Id, Input, Output, Timestamp, each_once
from shared.http.paging import Page
from twins import parent
from twins.decision.models import Purpose

RefusalId = Annotated[Id, Path(description="The refusal's id.")]


def address(twin_id: UUID, refusal_id: UUID) -> str:
    """Return the path of a refusal."""
    return f"{parent.address(twin_id)}/refusals/{refusal_id}"


class RefusalCreate(Input):
    """The purposes to refuse, each named once; by default everything, also what nobody has named yet."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"purposes": ["voice"]}]})

    purposes: (
        Annotated[
            list[Purpose],
            each_once("a purpose"),
            Field(min_length=1, max_length=100, json_schema_extra={"uniqueItems": True}),
        ]
        | None
    ) = None


_BY = "`account`: a person by their own token. `operator`: any operator may open it. `nobody`: the account is erased."


class Refusal(Output):
    """A standing refusal: nobody else can grant these purposes until the account that refused opens it."""

    id: UUID
    twin_id: UUID
    purposes: Annotated[list[str] | None, Field(description="The refused purposes; null: everything.")]
    exceptions: Annotated[list[str], Field(description="Of everything, what the same account has granted since.")]
    by: Annotated[Literal["account", "operator", "nobody"], Field(description=_BY)]
    refused_at: Timestamp


class RefusalPage(Page):
    """One page of refusals; `next_cursor` is null on the last."""

    items: list[Refusal]
