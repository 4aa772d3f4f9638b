"""`/api/v1/twins/{twin_id}/ledger`."""

from fastapi import Response

from shared.auth import User
from shared.http.bounds import of_kind
from shared.http.openapi import headers
from shared.http.paging import Paging
from shared.http.routing import answer, api_router
from shared.http.second_process import in_second_process
from twins.bounds import VERIFICATION
from twins.context import Ctx
from twins.ledger import service
from twins.ledger.models import LedgerPage, Verification
from twins.parent import TwinId

router = api_router("/twins/{twin_id}/ledger", "ledger")


@router.get("", response_model=LedgerPage, responses=headers(200, "Link"))
async def get_ledger(twin_id: TwinId, user: User, ctx: Ctx, pages: Paging) -> Response:
    """List the events of a twin's ledger, oldest first.

    A person that the twin names sees the events of the consents in their name, with their numbers and hashes.
    """
    return pages.answer(await service.find(ctx, user, twin_id, pages))


@router.get("/verification", response_model=Verification)
@of_kind(VERIFICATION)
@in_second_process
async def verify_ledger(twin_id: TwinId, user: User, ctx: Ctx) -> Response:
    """Recompute the whole hash chain, replay its events, and name the first difference from what was written.

    What the events say is compared with the stored consents, the states of their purposes, withdrawals and refusals.
    """
    return answer(await service.verify(ctx, user, twin_id))
