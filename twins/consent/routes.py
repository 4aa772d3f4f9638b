"""`/api/v1/twins/{twin_id}/consents` and `/api/v1/consents`."""

from typing import Annotated

from fastapi import Response

from shared.auth import User
from shared.http.arguments import MaxBytes
from shared.http.bounds import of_kind
from shared.http.idempotency import IdempotencyKey
from shared.http.openapi import headers, problems, scopes_that_open
from shared.http.paging import Paging
from shared.http.routing import answer, api_router
from twins.bounds import NO
from twins.consent import service
from twins.consent.lists import service as lists
from twins.consent.lists.filters import Filtering
from twins.consent.models import Consent, ConsentCreate, ConsentId, ConsentPage, ConsentRenew, ConsentWithdraw
from twins.consent.problems import ConsentActive, ConsentEnded, PersonMustConsent
from twins.context import Ctx
from twins.parent import TwinId
from twins.quotas import QuotaExceeded
from twins.scopes import STOP

router = api_router("", "consents")

_OF_TWIN = "/twins/{twin_id}/consents"

# A notice of 20,000 characters, each of them twelve bytes as JSON escapes.
_NOTICE = MaxBytes(256 * 1024)


@router.get("/consents", response_model=ConsentPage, responses=headers(200, "Link"))
async def list_owned_consents(user: User, ctx: Ctx, pages: Paging, filters: Filtering) -> Response:
    """List the consents on all your twins: by twin, the newest first, and of each twin the newest first.

    A page may have fewer items than `limit` where a next page follows.
    """
    return pages.answer(await lists.find_owned(ctx, user, filters, pages))


@router.get(_OF_TWIN, response_model=ConsentPage, responses=headers(200, "Link"))
async def list_consents(twin_id: TwinId, user: User, ctx: Ctx, pages: Paging) -> Response:
    """List a twin's consents, newest first."""
    return pages.answer(await lists.find(ctx, user, twin_id, pages))


@router.post(
    _OF_TWIN,
    status_code=201,
    response_model=Consent,
    responses=headers(201, "Location") | problems(ConsentActive, PersonMustConsent, QuotaExceeded),
)
async def create_consent(
    twin_id: TwinId, body: Annotated[ConsentCreate, _NOTICE], user: User, ctx: Ctx, key: IdempotencyKey
) -> Response:
    """Record the consent of a person, and the exact terms that the person agreed to.

    The twin's owner may record anybody's consent, until a person has spoken on the twin: by their own consent,
    or by a no. A person that the twin names may record their own all the same, which opens their own refusal.
    """
    return (await service.create(ctx, user, twin_id, body, key)).response()


@router.get(_OF_TWIN + "/{consent_id}", response_model=Consent)
async def get_consent(twin_id: TwinId, consent_id: ConsentId, user: User, ctx: Ctx) -> Response:
    """Get a consent, as the twin's owner or as the person in whose name it is."""
    return answer(await service.get(ctx, user, twin_id, consent_id))


@router.post(_OF_TWIN + "/{consent_id}/withdraw", response_model=Consent, openapi_extra=scopes_that_open(STOP))
@of_kind(NO)
async def withdraw_consent(
    twin_id: TwinId, consent_id: ConsentId, user: User, ctx: Ctx, body: ConsentWithdraw | None = None
) -> Response:
    """Withdraw a consent with all its renewals, or some of its purposes.

    The account that the consent names may do so, the twin's owner, and an operator (scope `twins:stop`).

    The withdrawal is in effect when you read the answer, whatever the state of the consent was. A person's
    stands as a refusal, which nobody else can open; the owner's ends this line of renewals and nothing else.
    """
    return answer(await service.withdraw(ctx, user, twin_id, consent_id, body or ConsentWithdraw()))


@router.post(
    _OF_TWIN + "/{consent_id}/renew",
    status_code=201,
    response_model=Consent,
    responses=headers(201, "Location") | problems(ConsentEnded, PersonMustConsent, QuotaExceeded),
)
async def renew_consent(
    twin_id: TwinId,
    consent_id: ConsentId,
    user: User,
    ctx: Ctx,
    key: IdempotencyKey,
    body: Annotated[ConsentRenew | None, _NOTICE] = None,
) -> Response:
    """Replace a given or expired consent by a new one with the same purposes, but for the withdrawn ones.

    The renewal takes effect at once. For a live consent, a later `not_before` is refused: the twin
    would have no consent until then.
    """
    return (await service.renew(ctx, user, twin_id, consent_id, body or ConsentRenew(), key)).response()


@router.get(
    _OF_TWIN + "/{consent_id}/receipt",
    response_class=Response,
    responses={200: {"content": {"application/jose": {"schema": {"type": "string"}}}, "description": "A JWS"}},
)
async def get_receipt(twin_id: TwinId, consent_id: ConsentId, user: User, ctx: Ctx) -> Response:
    """Get a signed receipt of a consent, as the twin's owner or as the person in whose name it is.

    A compact JWS (RFC 7515) with ES256; its keys are at `/.well-known/jwks.json`.
    """
    return Response(await service.make_receipt(ctx, user, twin_id, consent_id), media_type="application/jose")
