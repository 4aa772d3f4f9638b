"""`/api/v1/me`."""

from fastapi import Response

from shared.auth import User
from shared.http.bounds import of_kind
from shared.http.openapi import headers
from shared.http.paging import Paging
from shared.http.routing import answer, api_router
from twins.account import service
from twins.account.models import Account
from twins.bounds import NO
from twins.consent import service as consent
from twins.consent.models import ConsentPage
from twins.context import Ctx
from twins.erasure.models import ERASED, erased

router = api_router("/me")


@router.get("", tags=["account"], response_model=Account)
async def get_account(user: User, ctx: Ctx) -> Response:
    """Get the amount of stored data of your account."""
    return answer(await service.get(ctx, user))


@router.delete("", tags=["account"], status_code=202, response_class=Response, responses=ERASED)
@of_kind(NO)
async def delete_account(user: User, ctx: Ctx) -> Response:
    """Erase all data of your account: your twins, and your name in consents for twins of other accounts.

    From the answer on, your twins are gone and those consents are withdrawn. A job removes the data; `Location`
    leads to its progress. Asked again, the answer is the same until the job is complete, and then 204.
    """
    return erased(*await service.erase(ctx, user))


@router.get("/consents", tags=["consents"], response_model=ConsentPage, responses=headers(200, "Link"))
async def list_given_consents(user: User, ctx: Ctx, pages: Paging) -> Response:
    """List the consents that you gave for your own twins and those of other accounts, newest first."""
    return pages.answer(await consent.find_given(ctx, user, pages))
