"""Consents, the gate, the ledger and the keys that receipts are verified with."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response

from shared import logs
from shared.api import ApiRoute, answer, operation_id
from shared.auth import User
from shared.context import Ctx
from shared.docs import headers, problems
from shared.errors import Unavailable
from shared.idempotency import IdempotencyKey
from shared.models import TwinId
from shared.paging import Cursor, Limit, Page
from twins.consent import service
from twins.consent.models import (
    GENERAL,
    Consent,
    ConsentCreate,
    ConsentRenew,
    Decision,
    Decisions,
    Jwks,
    LedgerEntry,
    Purpose,
    Questions,
    Verification,
)

router = APIRouter(prefix="/api/v1", route_class=ApiRoute, generate_unique_id_function=operation_id)
keys_router = APIRouter(generate_unique_id_function=operation_id)

ConsentId = Annotated[UUID, Path(description="The consent's id.")]


@router.get("/twins/{twin_id}/decision", tags=["decisions"], response_model=Decision)
async def decide(
    twin_id: TwinId,
    user: User,
    ctx: Ctx,
    purpose: Annotated[Purpose, Query(description="What somebody wants to use the twin for.")] = GENERAL,
) -> Response:
    """Ask the gate: may this twin be used for this purpose, now, and why.

    For the twin's owner, and about any twin for a token with the scope `twins:decide`.
    """
    return answer(await service.decide(ctx, user, twin_id, purpose))


@router.post("/decisions", tags=["decisions"], response_model=Decisions)
async def decide_many(body: Questions, user: User, ctx: Ctx) -> Response:
    """Ask the gate up to a hundred questions, answered in order and as of one moment."""
    return answer(await service.decide_many(ctx, user, body))


@router.get("/twins/{twin_id}/consents", tags=["consents"], response_model=Page[Consent])
async def list_consents(twin_id: TwinId, user: User, ctx: Ctx, limit: Limit = 20, cursor: Cursor = None) -> Response:
    """List a twin's consents, newest first."""
    return answer(await service.find(ctx, user, twin_id, limit, cursor))


@router.post(
    "/twins/{twin_id}/consents",
    tags=["consents"],
    status_code=201,
    response_model=Consent,
    responses=headers(201, "Location") | problems(service.ConsentActive),
)
async def create_consent(twin_id: TwinId, body: ConsentCreate, user: User, ctx: Ctx, key: IdempotencyKey) -> Response:
    """Record that a person has agreed, and to exactly what."""
    logs.bind(twin_id=str(twin_id))
    return (await service.create(ctx, user, twin_id, body, key)).response()


@router.get("/me/consents", tags=["consents"], response_model=Page[Consent])
async def list_given_consents(user: User, ctx: Ctx, limit: Limit = 20, cursor: Cursor = None) -> Response:
    """List the consents that you have given, to your own twins and those of others, newest first."""
    return answer(await service.find_given(ctx, user, limit, cursor))


@router.get("/twins/{twin_id}/consents/{consent_id}", tags=["consents"], response_model=Consent)
async def get_consent(twin_id: TwinId, consent_id: ConsentId, user: User, ctx: Ctx) -> Response:
    """Get a consent, as the twin's owner or as the person who gave it."""
    return answer(await service.get(ctx, user, twin_id, consent_id))


@router.post("/twins/{twin_id}/consents/{consent_id}/withdraw", tags=["consents"], response_model=Consent)
async def withdraw_consent(twin_id: TwinId, consent_id: ConsentId, user: User, ctx: Ctx) -> Response:
    """Withdraw a consent, as the twin's owner or as the person who gave it.

    It has taken effect when you read the answer. Withdrawing again changes nothing; withdrawing one
    that was renewed withdraws the renewal.
    """
    logs.bind(twin_id=str(twin_id))
    return answer(await service.withdraw(ctx, user, twin_id, consent_id))


@router.post(
    "/twins/{twin_id}/consents/{consent_id}/renew",
    tags=["consents"],
    status_code=201,
    response_model=Consent,
    responses=headers(201, "Location") | problems(service.ConsentEnded),
)
async def renew_consent(
    twin_id: TwinId,
    consent_id: ConsentId,
    user: User,
    ctx: Ctx,
    key: IdempotencyKey,
    body: ConsentRenew | None = None,
) -> Response:
    """Replace a given or expired consent by a new one with the same purposes.

    It takes effect at once, so a live consent is renewed when the new terms may begin: a later
    `not_before` is refused, since the twin would have no consent until then.
    """
    logs.bind(twin_id=str(twin_id))
    return (await service.renew(ctx, user, twin_id, consent_id, body or ConsentRenew(), key)).response()


@router.get(
    "/twins/{twin_id}/consents/{consent_id}/receipt",
    tags=["consents"],
    response_class=Response,
    responses={200: {"content": {"application/jose": {"schema": {"type": "string"}}}, "description": "A JWS"}},
)
async def get_receipt(twin_id: TwinId, consent_id: ConsentId, user: User, ctx: Ctx) -> Response:
    """Get a signed receipt of a consent, as the twin's owner or as the person who gave it.

    A compact JWS (RFC 7515) with ES256; its keys are at `/.well-known/jwks.json`.
    """
    return Response(await service.make_receipt(ctx, user, twin_id, consent_id), media_type="application/jose")


@router.get("/twins/{twin_id}/ledger", tags=["ledger"], response_model=Page[LedgerEntry])
async def get_ledger(twin_id: TwinId, user: User, ctx: Ctx, limit: Limit = 20, cursor: Cursor = None) -> Response:
    """List the events of a twin's ledger, oldest first."""
    return answer(await service.ledger(ctx, user, twin_id, limit, cursor))


@router.get("/twins/{twin_id}/ledger/verification", tags=["ledger"], response_model=Verification)
async def verify_ledger(twin_id: TwinId, user: User, ctx: Ctx) -> Response:
    """Recompute the whole hash chain, and name the first event that is not as it was written."""
    return answer(await service.verify(ctx, user, twin_id))


@keys_router.get("/.well-known/jwks.json", tags=["keys"], responses=problems(Unavailable))
async def get_jwks(ctx: Ctx) -> Jwks:
    """Get the public keys that receipts and certificates are verified with (RFC 7517)."""
    return Jwks.model_validate(await ctx.signer.jwks())
