"""`/api/v1/twins/{twin_id}/decision` and `/api/v1/decisions`."""

from typing import Annotated

from fastapi import Query, Response

from shared.auth import User
from shared.http.arguments import MaxBytes
from shared.http.bounds import of_kind
from shared.http.openapi import scopes_that_open
from shared.http.routing import answer, api_router
from twins.bounds import DECISION
from twins.context import Ctx
from twins.decision import service
from twins.decision.models import GENERAL, Decision, Decisions, Purpose, Questions
from twins.parent import TwinId
from twins.scopes import DECIDE, READ

router = api_router("", "decisions")


@router.get("/twins/{twin_id}/decision", response_model=Decision, openapi_extra=scopes_that_open(DECIDE))
@of_kind(DECISION)
async def decide(
    twin_id: TwinId,
    user: User,
    ctx: Ctx,
    purpose: Annotated[Purpose, Query(description="The intended use of the twin.")] = GENERAL,
) -> Response:
    """Ask the gate: may this twin be used for this purpose, now, and why.

    The owner may ask about a twin; a token with the scope `twins:decide` may ask about any twin.
    """
    return answer(await service.decide(ctx, user, twin_id, purpose))


@router.post("/decisions", response_model=Decisions, openapi_extra=scopes_that_open(DECIDE, READ))
@of_kind(DECISION)
async def decide_many(body: Annotated[Questions, MaxBytes(64 * 1024)], user: User, ctx: Ctx) -> Response:
    """Ask the gate up to a hundred questions, answered in order and as of one moment."""
    return answer(await service.decide_many(ctx, user, body))
