"""`/api/v1/twins/{twin_id}/refusals`."""

from fastapi import Response

from shared.auth import User
from shared.http.bounds import of_kind
from shared.http.openapi import headers, scopes_that_open
from shared.http.paging import Paging
from shared.http.routing import answer, api_router
from twins.bounds import NO
from twins.context import Ctx
from twins.parent import TwinId
from twins.refusal import service
from twins.refusal.models import Refusal, RefusalCreate, RefusalId, RefusalPage, address
from twins.scopes import STOP

router = api_router("/twins/{twin_id}/refusals", "refusals")

_OPERATORS = scopes_that_open(STOP)


@router.post(
    "",
    responses={
        200: {"model": Refusal, "description": "The refusal that you had, which may cover more now."},
        201: {"model": Refusal, "description": "Your first refusal on this twin."} | headers(201, "Location")[201],
    },
    response_model=Refusal,
    openapi_extra=_OPERATORS,
)
@of_kind(NO)
async def create_refusal(twin_id: TwinId, user: User, ctx: Ctx, body: RefusalCreate | None = None) -> Response:
    """Refuse purposes of a twin that speaks for you, or everything, whether or not anybody has agreed to them.

    The refusal is in effect when you read the answer: the gate says no, and nobody else can grant these
    purposes. Only you can open it, by your own consent or by DELETE. A further refusal widens your first one.

    You may refuse where the twin's `principals`, or a consent on the twin, names your account or has ever
    named it. A token with the scope `twins:stop` may refuse on any twin, for somebody else.
    """
    refusal, is_new = await service.create(ctx, user, twin_id, body or RefusalCreate())
    made = answer(refusal, headers={"Location": address(twin_id, refusal.id)} if is_new else None)
    made.status_code = 201 if is_new else 200
    return made


@router.get("", response_model=RefusalPage, responses=headers(200, "Link"), openapi_extra=_OPERATORS)
async def list_refusals(twin_id: TwinId, user: User, ctx: Ctx, pages: Paging) -> Response:
    """List your standing refusal. The twin's owner and operators see all that stand, and never whose they are."""
    return pages.answer(await service.find(ctx, user, twin_id, pages))


@router.get("/{refusal_id}", response_model=Refusal, openapi_extra=_OPERATORS)
async def get_refusal(twin_id: TwinId, refusal_id: RefusalId, user: User, ctx: Ctx) -> Response:
    """Get a standing refusal: your own, or any as the twin's owner or an operator, and never whose it is."""
    return answer(await service.get(ctx, user, twin_id, refusal_id))


@router.delete("/{refusal_id}", status_code=204, openapi_extra=_OPERATORS)
async def delete_refusal(twin_id: TwinId, refusal_id: RefusalId, user: User, ctx: Ctx) -> Response:
    """Open your refusal.

    That grants nothing, revives no consent, and changes no answer of the gate: it only lets a new consent follow.
    Only the account that refused may open a refusal; what an operator refused, any operator.
    """
    await service.delete(ctx, user, twin_id, refusal_id)
    return Response()
