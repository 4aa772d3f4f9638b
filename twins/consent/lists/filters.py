"""The filters of lists of consents, in a request."""

from typing import Annotated, NamedTuple

from fastapi import Depends, Query

from shared.http.fields import Moment
from shared.http.problems import parameter_error
from twins.assurance import Assurance, rank_of
from twins.consent.models import State
from twins.context import Ctx
from twins.decision.models import Purpose
from twins.parties import Issuer, Name


class Filters(NamedTuple):
    """The filters of a list of consents; None filters nothing."""

    state: State | None
    purpose: str | None
    principal: str | None
    expiring_before: Moment | None
    assurance: int | None
    """Its rank."""


async def _filters(
    ctx: Ctx,
    state: Annotated[State | None, Query(description="Only consents in this state.")] = None,
    purpose: Annotated[Purpose | None, Query(description="Only consents with this purpose, withdrawn or not.")] = None,
    principal: Annotated[Name | None, Query(description="Only consents of this account.")] = None,
    principal_issuer: Annotated[Issuer | None, Query(description="The issuer of `principal`.")] = None,
    expiring_before: Annotated[Moment | None, Query(description="Only consents that end before this time.")] = None,
    assurance: Annotated[Assurance | None, Query(description="Only consents of exactly this assurance.")] = None,
) -> Filters:
    if principal_issuer is not None:
        if principal is None:
            raise parameter_error("principal", "is required with principal_issuer")
        principal = ctx.account_of(f"{principal_issuer}\n{principal}")
    return Filters(state, purpose, principal, expiring_before, None if assurance is None else rank_of(assurance))


Filtering = Annotated[Filters, Depends(_filters)]
