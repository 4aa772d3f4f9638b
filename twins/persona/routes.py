"""`/api/v1/twins/{twin_id}/persona`."""

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Response

from shared import logs
from shared.api import ApiRoute, answer, not_modified, operation_id, preferred
from shared.auth import User
from shared.context import Ctx
from shared.docs import headers, problems
from shared.errors import NotAcceptable
from shared.idempotency import IdempotencyKey
from shared.models import Digits, TwinId
from shared.paging import Cursor, Limit, Page
from shared.preconditions import Conditions, IfNoneMatch, is_not_modified
from twins.persona import service
from twins.persona.models import PatchOperation, Persona, PersonaPatch, PersonaVersion, Prompt, VersionEntry
from twins.problems import ConsentRequired

router = APIRouter(
    prefix="/api/v1/twins/{twin_id}/persona",
    tags=["persona"],
    route_class=ApiRoute,
    generate_unique_id_function=operation_id,
)

MAX_VERSION = 2**63 - 1
Version = Annotated[int, Path(ge=1, le=MAX_VERSION, description="The number of a version."), Digits]


def _location(twin_id: TwinId, version: PersonaVersion) -> dict[str, str]:
    return {"Content-Location": f"/api/v1/twins/{twin_id}/persona/versions/{version.version}"}


def _represent(twin_id: TwinId, version: PersonaVersion) -> Response:
    return answer(version, etag=service.tag(version.version), headers=_location(twin_id, version))


@router.get(
    "",
    response_model=PersonaVersion,
    responses=headers(200, "Content-Location") | headers(304, "Content-Location"),
)
async def get_persona(twin_id: TwinId, user: User, ctx: Ctx, if_none_match: IfNoneMatch = None) -> Response:
    """Get the latest version of a twin's persona."""
    version = await service.get(ctx, user, twin_id)
    tag = service.tag(version.version)
    if is_not_modified(if_none_match, tag):
        return not_modified(tag, _location(twin_id, version))
    return _represent(twin_id, version)


@router.put(
    "",
    response_model=PersonaVersion,
    responses=headers(200, "Content-Location", "ETag") | problems(ConsentRequired, service.VersionConflict),
)
async def put_persona(twin_id: TwinId, body: Persona, user: User, ctx: Ctx, preconditions: Conditions) -> Response:
    """Replace a twin's persona by a new version; needs live consent."""
    logs.bind(twin_id=str(twin_id))
    return _represent(twin_id, await service.put(ctx, user, twin_id, body, preconditions))


@router.patch(
    "",
    response_model=PersonaVersion,
    responses=headers(200, "Content-Location", "ETag") | problems(ConsentRequired, service.VersionConflict),
)
async def patch_persona(
    twin_id: TwinId, body: PersonaPatch, user: User, ctx: Ctx, preconditions: Conditions
) -> Response:
    """Change a twin's persona by JSON Merge Patch (RFC 7396); needs live consent."""
    logs.bind(twin_id=str(twin_id))
    return _represent(twin_id, await service.patch(ctx, user, twin_id, body, preconditions))


@router.get("/versions", response_model=Page[VersionEntry])
async def list_versions(twin_id: TwinId, user: User, ctx: Ctx, limit: Limit = 20, cursor: Cursor = None) -> Response:
    """List the versions of a twin's persona, newest first."""
    return answer(await service.history(ctx, user, twin_id, limit, cursor))


@router.get("/versions/{version}", response_model=PersonaVersion)
async def get_version(twin_id: TwinId, version: Version, user: User, ctx: Ctx) -> Response:
    """Get one version of a twin's persona; it never changes."""
    return answer(await service.get(ctx, user, twin_id, version))


@router.post(
    "/versions/{version}/restore",
    status_code=201,
    response_model=PersonaVersion,
    responses=headers(201, "ETag", "Location") | problems(ConsentRequired),
)
async def restore_version(twin_id: TwinId, version: Version, user: User, ctx: Ctx, key: IdempotencyKey) -> Response:
    """Make an old version the latest again, as a new version; needs live consent."""
    logs.bind(twin_id=str(twin_id))
    return (await service.restore(ctx, user, twin_id, version, key)).response()


@router.get(
    "/diff",
    response_model=list[PatchOperation],
    responses={200: {"content": {"application/json-patch+json": {}}, "description": "A JSON Patch"}},
)
async def diff_versions(
    twin_id: TwinId,
    user: User,
    ctx: Ctx,
    old: Annotated[int, Query(alias="from", ge=1, le=MAX_VERSION, description="The older version."), Digits],
    new: Annotated[int, Query(alias="to", ge=1, le=MAX_VERSION, description="The newer version."), Digits],
) -> Response:
    """Get what changed between two versions, as a JSON Patch (RFC 6902)."""
    patch = await service.diff(ctx, user, twin_id, old, new)
    return Response(patch, media_type="application/json-patch+json")


@router.get(
    "/prompt",
    response_model=Prompt,
    responses={
        **problems(ConsentRequired),
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "The prompt"},
    },
)
async def get_prompt(
    twin_id: TwinId, user: User, ctx: Ctx, accept: Annotated[str | None, Header(max_length=1000)] = None
) -> Response:
    """Compile the persona to a system prompt, as chat messages or plain text; needs live consent."""
    media_type = preferred(accept, ("application/json", "text/plain"))
    if media_type is None:
        raise NotAcceptable("This is application/json or text/plain.")
    prompt, text = await service.compile_prompt(ctx, user, twin_id)
    response = Response(text, media_type="text/plain") if media_type == "text/plain" else answer(prompt)
    response.headers["Vary"] = "Accept"
    return response
