"""`/api/v1/twins`."""

from typing import Annotated

from fastapi import Depends, Query, Response

from shared.auth import User
from shared.http.bounds import of_kind
from shared.http.conditional import Conditions, IfMatch, IfNoneMatch, is_not_modified, not_modified
from shared.http.fields import Flag
from shared.http.idempotency import IdempotencyKey
from shared.http.openapi import headers, problems
from shared.http.paging import Paging
from shared.http.problems import parameter_error
from shared.http.routing import answer, api_router
from shared.http.text import Name, Phrase
from twins.bounds import NO, kind_of_patch
from twins.consent.problems import ConsentActive, PersonMustConsent
from twins.context import Ctx
from twins.erasure import models as erasure
from twins.external import ExternalId, ExternalName
from twins.limits import Token
from twins.parent import TwinId
from twins.quotas import QuotaExceeded
from twins.twin import service
from twins.twin.models import Filters, Twin, TwinCreate, TwinPage, TwinPatch
from twins.twin.problems import ExternalIdKept

router = api_router("/twins", "twins")


async def _filters(
    q: Annotated[Name | None, Query(description="Part of the twin's name, in any case.")] = None,
    use_case: Annotated[Phrase | None, Query(description="Only twins with exactly this use case.")] = None,
    tone: Annotated[Phrase | None, Query(description="Only twins with exactly this tone.")] = None,
    consent: Annotated[Flag | None, Query(description="Only twins that may, or may not, be used now.")] = None,
    external_type: Annotated[Token | None, Query(description="Only the twin with this `external_id`.")] = None,
    external_id: Annotated[ExternalName | None, Query(description="An id of this `external_type`.")] = None,
) -> Filters:
    external = None
    if external_type is not None and external_id is not None:
        external = ExternalId(type=external_type, id=external_id)
    elif external_type is not None or external_id is not None:
        missing = "external_id" if external_id is None else "external_type"
        raise parameter_error(missing, "is required with the other of the two")
    return Filters(q=q, use_case=use_case, tone=tone, consent=consent, external_id=external)


@router.post(
    "",
    status_code=201,
    response_model=Twin,
    responses=headers(201, "ETag", "Location") | problems(QuotaExceeded, ExternalIdKept),
)
async def create_twin(body: TwinCreate, user: User, ctx: Ctx, key: IdempotencyKey) -> Response:
    """Create a twin.

    `consent: true` states that the person that the twin speaks for agrees; with `false` the twin exists but
    may not be used yet.

    `external_ids` are what others call the twin: with one of them, `POST /decisions` needs no `twin_id`.
    """
    return (await service.create(ctx, user, body, key)).response()


@router.get("", response_model=TwinPage, responses=headers(200, "Link"))
async def list_twins(user: User, ctx: Ctx, pages: Paging, filters: Annotated[Filters, Depends(_filters)]) -> Response:
    """List your twins, newest first."""
    return pages.answer(await service.find(ctx, user, filters, pages))


@router.get("/{twin_id}", response_model=Twin)
async def get_twin(
    twin_id: TwinId, user: User, ctx: Ctx, if_match: IfMatch = None, if_none_match: IfNoneMatch = None
) -> Response:
    """Get a twin."""
    twin, tag = await service.get(ctx, user, twin_id)
    return not_modified(tag) if is_not_modified(if_none_match, tag, if_match) else answer(twin, etag=tag)


@router.patch(
    "/{twin_id}",
    response_model=Twin,
    responses=problems(ConsentActive, PersonMustConsent, ExternalIdKept, QuotaExceeded),
)
@of_kind(kind_of_patch)
async def patch_twin(twin_id: TwinId, body: TwinPatch, user: User, ctx: Ctx, preconditions: Conditions) -> Response:
    """Change a twin by JSON Merge Patch (RFC 7396).

    `consent: false` stops the twin before the answer is sent. `consent: true` is your own word: once a person
    has spoken on the twin, it is refused unless `principals` already listed your account.

    `external_ids` replaces all of them. Once a person has spoken on the twin, those that it has stay its own.
    """
    twin, tag = await service.patch(ctx, user, twin_id, body, preconditions)
    return answer(twin, etag=tag)


@router.delete("/{twin_id}", status_code=204, responses=headers(204, "Location"))
@of_kind(NO)
async def delete_twin(twin_id: TwinId, user: User, ctx: Ctx, preconditions: Conditions) -> Response:
    """Erase a twin with all its data.

    The twin is gone when you read the answer; `Location` leads to the progress of its erasure from both
    stores, and to the certificate.
    """
    erasure_id = await service.delete(ctx, user, twin_id, preconditions)
    return Response(headers={"Location": erasure.address(erasure_id)})
