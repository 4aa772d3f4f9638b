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
from twins.consent.lists import service as consent
from twins.consent.lists.filters import Filtering
from twins.consent.models import ConsentPage
from twins.context import Ctx
from twins.erasure import service as erasure
from twins.erasure.models import ERASED, ErasedConsentPage, erased

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
async def list_given_consents(user: User, ctx: Ctx, pages: Paging, filters: Filtering) -> Response:
    """List the consents in your name, for your own twins and those of other accounts, newest first.

    A page may have fewer items than `limit` where a next page follows.
    """
    return pages.answer(await consent.find_given(ctx, user, filters, pages))


@router.get("/erasures", tags=["erasure"], response_model=ErasedConsentPage, responses=headers(200, "Link"))
async def list_erased_consents(user: User, ctx: Ctx, pages: Paging) -> Response:
    """List the consents in your name for twins that their owners have erased, newest first.

    Each has its state at the erasure, and once the erasure is complete its certificate, with the end of the twin's
    ledger and the proof that the certificate covers it. They are kept for you until you erase your account.
    A page may have fewer items than `limit` where a next page follows.
    """
    return pages.answer(await erasure.find_consents(ctx, user, pages))
