"""`/api/v1/twins`."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from shared import logs
from shared.api import ApiRoute, answer, not_modified, operation_id
from shared.auth import User
from shared.context import Ctx
from shared.docs import headers, problems
from shared.idempotency import IdempotencyKey
from shared.models import Flag, TwinId
from shared.paging import Cursor, Limit, Page
from shared.preconditions import Conditions, IfNoneMatch, is_not_modified
from shared.text import Name, Phrase
from twins.consent.service import ConsentActive
from twins.twin import service
from twins.twin.models import Twin, TwinCreate, TwinPatch

router = APIRouter(
    prefix="/api/v1/twins", tags=["twins"], route_class=ApiRoute, generate_unique_id_function=operation_id
)


@router.post("", status_code=201, response_model=Twin, responses=headers(201, "ETag", "Location"))
async def create_twin(body: TwinCreate, user: User, ctx: Ctx, key: IdempotencyKey) -> Response:
    """Make a twin.

    `consent: true` says that the person it speaks for agrees; with `false` the twin exists but may
    not be used yet.
    """
    return (await service.create(ctx, user, body, key)).response()


@router.get("", response_model=Page[Twin], responses=headers(200, "Link"))
async def list_twins(
    request: Request,
    user: User,
    ctx: Ctx,
    limit: Limit = 20,
    cursor: Cursor = None,
    q: Annotated[Name | None, Query(description="Part of the name, in any case.")] = None,
    use_case: Annotated[Phrase | None, Query(description="Exactly this use case.")] = None,
    tone: Annotated[Phrase | None, Query(description="Exactly this tone.")] = None,
    consent: Annotated[Flag | None, Query(description="Whether they may be used now.")] = None,
) -> Response:
    """List your twins, newest first."""
    filters = service.Filters(q=q, use_case=use_case, tone=tone, consent=consent)
    page = await service.find(ctx, user, filters, limit, cursor)
    headers = {}
    if page.next_cursor is not None:
        following = request.url.include_query_params(cursor=page.next_cursor)
        headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
    return answer(page, headers=headers)


@router.get("/{twin_id}", response_model=Twin)
async def get_twin(twin_id: TwinId, user: User, ctx: Ctx, if_none_match: IfNoneMatch = None) -> Response:
    """Get a twin."""
    twin, tag = await service.get(ctx, user, twin_id)
    return not_modified(tag) if is_not_modified(if_none_match, tag) else answer(twin, etag=tag)


@router.patch("/{twin_id}", response_model=Twin, responses=problems(ConsentActive))
async def patch_twin(twin_id: TwinId, body: TwinPatch, user: User, ctx: Ctx, preconditions: Conditions) -> Response:
    """Change a twin by JSON Merge Patch (RFC 7396).

    `consent: false` stops the twin before the answer is sent.
    """
    logs.bind(twin_id=str(twin_id))
    twin, tag = await service.patch(ctx, user, twin_id, body, preconditions)
    return answer(twin, etag=tag)


@router.delete("/{twin_id}", status_code=204, responses=headers(204, "Location"))
async def delete_twin(twin_id: TwinId, user: User, ctx: Ctx, preconditions: Conditions) -> Response:
    """Erase a twin and everything stored of it.

    It is gone when you read the answer; `Location` leads to the progress of its erasure from both
    stores, and to the certificate.
    """
    logs.bind(twin_id=str(twin_id))
    erasure_id = await service.delete(ctx, user, twin_id, preconditions)
    return Response(status_code=204, headers={"Location": f"/api/v1/erasures/{erasure_id}"})
