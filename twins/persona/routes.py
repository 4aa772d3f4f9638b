"""`/api/v1/twins/{twin_id}/persona`."""

from typing import Annotated

from fastapi import Header, Path, Query, Response

from shared.auth import User
from shared.http.arguments import MaxBytes
from shared.http.conditional import Conditions, IfMatch, IfNoneMatch, is_not_modified, not_modified
from shared.http.fields import Digits
from shared.http.idempotency import IdempotencyKey
from shared.http.negotiation import preferred
from shared.http.openapi import headers, problems, scopes_that_open
from shared.http.paging import Paging
from shared.http.problems import NotAcceptable
from shared.http.routing import answer, api_router
from shared.http.second_process import in_second_process
from twins.context import Ctx
from twins.decision.problems import ConsentRequired
from twins.parent import TwinId
from twins.persona import service
from twins.persona.models import PatchOperation, PersonaPatch, PersonaPut, PersonaVersion, Prompt, VersionPage, address
from twins.persona.problems import VersionConflict
from twins.quotas import QuotaExceeded
from twins.scopes import PROMPT

router = api_router("/twins/{twin_id}/persona", "persona")

MAX_VERSION = 2**63 - 1
Version = Annotated[int, Path(ge=1, le=MAX_VERSION, description="The version's number."), Digits]

# 256 KiB as compact JSON may be several times that with escapes.
_LARGE = MaxBytes(1024 * 1024)

_CHANGED = headers(200, "Content-Location", "ETag") | problems(ConsentRequired, QuotaExceeded, VersionConflict)


def _location(twin_id: TwinId, version: PersonaVersion) -> dict[str, str]:
    return {"Content-Location": address(twin_id, version.version)}


def _represent(twin_id: TwinId, version: PersonaVersion) -> Response:
    return answer(version, etag=service.tag(version.version), headers=_location(twin_id, version))


@router.get(
    "", response_model=PersonaVersion, responses=headers(200, "Content-Location") | headers(304, "Content-Location")
)
async def get_persona(
    twin_id: TwinId, user: User, ctx: Ctx, if_match: IfMatch = None, if_none_match: IfNoneMatch = None
) -> Response:
    """Get the latest version of a twin's persona."""
    version = await service.get(ctx, user, twin_id)
    tag = service.tag(version.version)
    if is_not_modified(if_none_match, tag, if_match):
        return not_modified(tag, _location(twin_id, version))
    return _represent(twin_id, version)


@router.put("", response_model=PersonaVersion, responses=_CHANGED)
async def put_persona(
    twin_id: TwinId, body: Annotated[PersonaPut, _LARGE], user: User, ctx: Ctx, preconditions: Conditions
) -> Response:
    """Replace a twin's persona by a new version; needs live consent.

    What GET answered may be changed and sent: `version` and `created_at` are accepted where they are those of
    the latest version.
    """
    return _represent(twin_id, await service.put(ctx, user, twin_id, body, preconditions))


@router.patch("", response_model=PersonaVersion, responses=_CHANGED)
async def patch_persona(
    twin_id: TwinId, body: Annotated[PersonaPatch, _LARGE], user: User, ctx: Ctx, preconditions: Conditions
) -> Response:
    """Change a twin's persona by JSON Merge Patch (RFC 7396); needs live consent."""
    return _represent(twin_id, await service.patch(ctx, user, twin_id, body, preconditions))


@router.get("/versions", response_model=VersionPage, responses=headers(200, "Link"))
async def list_versions(twin_id: TwinId, user: User, ctx: Ctx, pages: Paging) -> Response:
    """List the versions of a twin's persona, newest first."""
    return pages.answer(await service.history(ctx, user, twin_id, pages))


@router.get("/versions/{version}", response_model=PersonaVersion)
async def get_version(twin_id: TwinId, version: Version, user: User, ctx: Ctx) -> Response:
    """Get one version of a twin's persona, which never changes."""
    return answer(await service.get(ctx, user, twin_id, version))


@router.post(
    "/versions/{version}/restore",
    status_code=201,
    response_model=PersonaVersion,
    responses=headers(201, "ETag", "Location") | problems(ConsentRequired, QuotaExceeded),
)
async def restore_version(twin_id: TwinId, version: Version, user: User, ctx: Ctx, key: IdempotencyKey) -> Response:
    """Make an old version the latest again, as a new version; needs live consent."""
    return (await service.restore(ctx, user, twin_id, version, key)).response()


@router.get(
    "/diff",
    response_model=list[PatchOperation],
    responses={200: {"content": {"application/json-patch+json": {}}, "description": "A JSON Patch"}},
)
@in_second_process
async def diff_versions(
    twin_id: TwinId,
    user: User,
    ctx: Ctx,
    old: Annotated[
        int, Query(alias="from", ge=1, le=MAX_VERSION, description="The number of the old version."), Digits
    ],
    new: Annotated[int, Query(alias="to", ge=1, le=MAX_VERSION, description="The number of the new version."), Digits],
) -> Response:
    """Get the difference between two versions, as a JSON Patch (RFC 6902)."""
    patch = await service.diff(ctx, user, twin_id, old, new)
    return Response(patch, media_type="application/json-patch+json")


@router.get(
    "/prompt",
    response_model=Prompt,
    responses=problems(ConsentRequired)
    | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "The prompt"}},
    openapi_extra=scopes_that_open(PROMPT),
)
async def get_prompt(
    twin_id: TwinId, user: User, ctx: Ctx, accept: Annotated[str | None, Header(max_length=1000)] = None
) -> Response:
    """Compile the persona to a system prompt, as chat messages or plain text; needs live consent.

    The owner may read the prompt of a twin; a token with the scope `twins:prompt` may read that of any twin.
    """
    media_type = preferred(accept, ("application/json", "text/plain"))
    if media_type is None:
        raise NotAcceptable("This is application/json or text/plain.")
    prompt, text = await service.compile_prompt(ctx, user, twin_id)
    response = Response(text, media_type="text/plain") if media_type == "text/plain" else answer(prompt)
    response.headers["Vary"] = "Accept"
    return response
