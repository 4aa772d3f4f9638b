"""`/api/v1/erasures`."""

from fastapi import Response

from shared.auth import User
from shared.http.openapi import headers
from shared.http.paging import Paging
from shared.http.routing import answer, api_router
from twins.context import Ctx
from twins.erasure import service
from twins.erasure.models import ErasedLedgerPage, Erasure, ErasureId, ErasurePage

router = api_router("/erasures", "erasure")


@router.get("", response_model=ErasurePage, responses=headers(200, "Link"))
async def list_erasures(user: User, ctx: Ctx, pages: Paging) -> Response:
    """List the erasures that you or your organisation requested, newest first."""
    return pages.answer(await service.find(ctx, user, pages))


@router.get("/{erasure_id}", response_model=Erasure)
async def get_erasure(erasure_id: ErasureId, user: User, ctx: Ctx) -> Response:
    """Get the progress of an erasure of yours or your organisation's, and its certificate when it is complete."""
    return answer(await service.get(ctx, user, erasure_id))


@router.get("/{erasure_id}/ledgers", response_model=ErasedLedgerPage, responses=headers(200, "Link"))
async def list_erased_ledgers(erasure_id: ErasureId, user: User, ctx: Ctx, pages: Paging) -> Response:
    """List the ends of the ledgers that a complete erasure covers, each with its proof.

    The certificate of an account has the root of the Merkle tree over them, in order of `twin_id`.
    """
    return pages.answer(await service.find_ledgers(ctx, user, erasure_id, pages))
