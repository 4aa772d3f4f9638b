"""`/api/v1/twins/{twin_id}/decision` and `/api/v1/decisions`."""

from typing import Annotated

from fastapi import Query, Response

from shared.auth import User
from shared.http.arguments import MaxBytes
from shared.http.bounds import of_kind
from shared.http.openapi import scopes_that_open
from shared.http.problems import ValidationFailed
from shared.http.routing import answer, api_router
from twins.assurance import Assurance
from twins.bounds import DECISION
from twins.context import Ctx
from twins.decision import models, service
from twins.decision.models import GENERAL, Attributes, Decision, Decisions, Purpose, Questions
from twins.limits import Modality, Territory, Token
from twins.parent import TwinId
from twins.parties import Issuer, Name
from twins.scopes import DECIDE, READ

router = api_router("", "decisions")


@router.get("/twins/{twin_id}/decision", response_model=Decision, openapi_extra=scopes_that_open(DECIDE))
@of_kind(DECISION)
async def decide(
    twin_id: TwinId,
    user: User,
    ctx: Ctx,
    purpose: Annotated[Purpose, Query(description="The intended use of the twin.")] = GENERAL,
    recipient_type: Annotated[Token | None, Query(description=models.RECIPIENT_TYPE)] = None,
    recipient_id: Annotated[Name | None, Query(description=models.RECIPIENT_ID)] = None,
    recipient_issuer: Annotated[Issuer | None, Query(description=models.RECIPIENT_ISSUER)] = None,
    modality: Annotated[Modality | None, Query(description=models.MODALITY)] = None,
    territory: Annotated[Territory | None, Query(description=models.TERRITORY)] = None,
    min_assurance: Annotated[Assurance | None, Query(description=models.MIN_ASSURANCE)] = None,
    principal: Annotated[Name | None, Query(description=models.PRINCIPAL)] = None,
    principal_issuer: Annotated[Issuer | None, Query(description="The `iss` of that account's tokens.")] = None,
) -> Response:
    """Ask the gate: may this twin be used for this purpose, now, and why.

    The owner may ask about a twin, and each account that its `principals` or a consent on it names; a token with the
    scope `twins:decide` may ask about any twin. Where a consent is limited to recipients, modalities or territories, a
    question that leaves the modality or territory out is answered no; you are the recipient unless you name another.
    """
    named = principal
    if principal_issuer is not None:
        named = None if principal is None else f"{principal_issuer}\n{principal}"
    attributes = Attributes(recipient_type, recipient_id, recipient_issuer, modality, territory, min_assurance, named)
    lacks = "principal" if principal_issuer is not None and principal is None else attributes.lacks()
    if lacks:
        raise ValidationFailed([{"parameter": lacks, "detail": models.LACKS}])
    return answer(await service.decide(ctx, user, twin_id, purpose, attributes))


@router.post("/decisions", response_model=Decisions, openapi_extra=scopes_that_open(DECIDE, READ))
@of_kind(DECISION)
async def decide_many(body: Annotated[Questions, MaxBytes(64 * 1024)], user: User, ctx: Ctx) -> Response:
    """Ask the gate up to a hundred questions, answered in order and as of one moment.

    A question names its twin by `twin_id`, or by `external_id`, which is one of your own unless it names the `owner`.
    """
    return answer(await service.decide_many(ctx, user, body))
