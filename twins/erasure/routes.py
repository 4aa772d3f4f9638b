"""`/api/v1/erasures` and `/api/v1/me`."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Response

from shared.api import ApiRoute, answer, operation_id
from shared.auth import User
from shared.context import Ctx
from shared.docs import headers
from twins.erasure import service
from twins.erasure.models import Account, Erasure

router = APIRouter(prefix="/api/v1", route_class=ApiRoute, generate_unique_id_function=operation_id)


def location(erasure_id: UUID) -> dict[str, str]:
    """Return the header that leads to an erasure."""
    return {"Location": f"/api/v1/erasures/{erasure_id}"}


@router.get("/erasures/{erasure_id}", tags=["erasure"], response_model=Erasure)
async def get_erasure(
    erasure_id: Annotated[UUID, Path(description="The erasure's id.")], user: User, ctx: Ctx
) -> Response:
    """Get the progress of an erasure that you asked for, and in the end its certificate."""
    return answer(await service.get(ctx, user, erasure_id))


@router.get("/me", tags=["account"], response_model=Account)
async def get_account(user: User, ctx: Ctx) -> Response:
    """Get what is stored of your account."""
    return answer(await service.account(ctx, user))


@router.delete("/me", tags=["account"], status_code=204, responses=headers(204, "Location"))
async def delete_account(user: User, ctx: Ctx) -> Response:
    """Erase everything of your account: your twins, and your name in consents to twins of others.

    Those consents are withdrawn. `Location` leads to the progress of the erasure.
    """
    erasure_id = await service.begin_account(ctx, user)
    await service.attempt(ctx, erasure_id)
    return Response(status_code=204, headers=location(erasure_id))
