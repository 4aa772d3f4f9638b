"""How an API route takes a request and gives an answer, beyond what FastAPI does by itself."""

import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel

from shared import logs, strict_json
from shared.context import Context
from shared.errors import MAX_ERRORS, MAX_NAME, BadRequest, ContentTooLarge, UnsupportedMediaType, ValidationFailed

MAX_BODY = 1024 * 1024
"""Bytes in a request body."""

_QUALITY = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")
"""RFC 9110 §12.4.2."""


def operation_id(route: APIRoute) -> str:
    """Return the name of the endpoint: clients are generated with it, and it says what is done."""
    return route.name


class _BoundedRequest(Request):
    """A request whose body is bounded."""

    async def body(self) -> bytes:
        """Return the body; raises `ContentTooLarge` as soon as it is known to be.

        FastAPI's own `max_body_size` answers in plain text, and before the token is looked at.
        """
        if not hasattr(self, "_body"):
            declared = self.headers.get("content-length", "")
            _check_size(int(declared) if declared.isdecimal() else 0)
            body = bytearray()
            async for chunk in self.stream():
                body += chunk
                _check_size(len(body))
            self._body = bytes(body)
        return self._body


class ApiRoute(APIRoute):
    """A route that authenticates first, refuses unknown parameters, and reads bodies strictly.

    FastAPI reads a body before it runs dependencies, so that bad JSON without a token would be 422
    and not 401; it ignores query parameters nobody declared; it takes NaN and duplicate names.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request.

        FastAPI declares the parameters. Its own solver would also find them, for a fifth of the
        request's time (see bench/), since it knows forms, sequences, generators and overrides.
        """
        dependant = self.dependant
        endpoint: Callable[..., Awaitable[Response]] = self.endpoint
        parameters = {field.alias for field in dependant.query_params}
        takes_body = self.body_field is not None
        media_types = ["application/json"]
        if "PATCH" in (self.methods or ()):
            media_types.append("application/merge-patch+json")

        async def handle(received: Request) -> Response:
            request = _BoundedRequest(received.scope, received.receive)
            context: Context = request.app.state.context
            user = await context.authenticator.authenticate(request.headers.get("authorization"))
            request.scope["user"] = user
            logs.bind(owner=user.digest)
            if request.scope["query_string"]:
                _check_parameters(request, parameters)
            content = _parse(request, await request.body(), media_types) if takes_body else {}
            errors: list[Any] = []
            arguments = await _arguments(dependant, request, content, errors)
            if errors:
                raise RequestValidationError(errors)
            return await endpoint(**arguments)

        return handle


async def _arguments(
    dependant: Dependant, request: Request, content: dict[str, Any], errors: list[Any]
) -> dict[str, Any]:
    """Return the arguments of an endpoint or a dependency; `errors` gets what is wrong."""
    found: dict[str, Any] = {}
    sources: tuple[tuple[str, list[Any], Mapping[str, Any]], ...] = (
        ("path", dependant.path_params, request.path_params),
        ("query", dependant.query_params, request.query_params),
        ("header", dependant.header_params, _lines(request, dependant.header_params)),
        ("body", dependant.body_params, content),
    )
    for place, fields, values in sources:
        for field in fields:
            loc = (place,) if place == "body" else (place, field.alias)
            if field.alias in values:
                found[field.name], wrong = field.validate(values[field.alias], {}, loc=loc)
                errors.extend(wrong)
            elif field.field_info.is_required():
                errors.append({"type": "missing", "loc": loc, "msg": "Field required"})
            else:
                found[field.name] = field.get_default()
    if dependant.request_param_name is not None:
        found[dependant.request_param_name] = request
    for dependency in dependant.dependencies:
        before = len(errors)
        arguments = await _arguments(dependency, request, content, errors)
        if dependency.name and dependency.call and len(errors) == before:
            found[dependency.name] = await dependency.call(**arguments)
    return found


def _lines(request: Request, fields: list[Any]) -> dict[str, str]:
    """Return headers by their fields' names; lines of one name are one list (RFC 9110 §5.3)."""
    headers = request.headers
    return {field.alias: ", ".join(headers.getlist(field.alias)) for field in fields if field.alias in headers}


def _check_size(size: int) -> None:
    if size > MAX_BODY:
        raise ContentTooLarge(f"The request body is larger than {MAX_BODY} bytes.")


def _parse(request: Request, body: bytes, media_types: list[str]) -> dict[str, Any]:
    """Return the argument `body` from I-JSON, or nothing where it is empty."""
    if not body:
        # The Functions host can lose one that has no length: better refused than taken for left out.
        if "content-type" in request.headers and "content-length" not in request.headers:
            raise ValidationFailed([{"pointer": "#", "detail": "is required where there is a Content-Type"}])
        return {}
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in media_types:
        raise UnsupportedMediaType(f"Send {' or '.join(media_types)}.")
    try:
        return {"body": strict_json.loads(body)}
    except strict_json.JSONError as error:
        raise BadRequest(str(error)) from None


def _check_parameters(request: Request, known: set[str]) -> None:
    errors = []
    seen = set()
    for name, _ in request.query_params.multi_items():
        if name not in known:
            errors.append({"parameter": name[:MAX_NAME], "detail": "is not a parameter of this resource"})
        elif name in seen:
            errors.append({"parameter": name, "detail": "must not be given twice"})
        seen.add(name)
    if errors:
        raise ValidationFailed(errors[:MAX_ERRORS])


def answer(
    model: BaseModel, *, status: int = 200, etag: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a model as JSON; with an entity tag the client may keep it and ask again (RFC 9111)."""
    found = dict(headers or {})
    if etag is not None:
        found["ETag"] = etag
        found["Cache-Control"] = "private, no-cache"
    return Response(model.model_dump_json(), status, found, "application/json")


def not_modified(etag: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return 304 for the representation tagged `etag`, with those of its headers that a cache updates."""
    return Response(status_code=304, headers={**(headers or {}), "ETag": etag, "Cache-Control": "private, no-cache"})


def preferred(accept: str | None, offered: Sequence[str]) -> str | None:
    """Return the media type in `offered` that an `Accept` header likes best (RFC 9110 §12.5.1).

    Of equals the first offered wins; None where the header allows none of them.
    """
    if accept is None or not accept.strip():
        return offered[0]
    ranges = []
    for item in accept.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        if _QUALITY.fullmatch(quality):  # a range that cannot be read allows nothing
            ranges.append((name, float(quality)))

    def quality_of(media_type: str) -> float:
        kind = media_type.partition("/")[0]
        for wanted in (media_type, f"{kind}/*", "*/*"):  # the most specific range decides
            found = [quality for name, quality in ranges if name == wanted]
            if found:
                return max(found)
        return 0.0

    best = max(offered, key=quality_of)
    return best if quality_of(best) > 0 else None
