"""How an API route takes a request and gives an answer, beyond what FastAPI does by itself."""

import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel

from shared import logs, strict_json
from shared.context import Context
from shared.errors import BadRequest, ContentTooLarge, UnsupportedMediaType, ValidationFailed

MAX_BODY = 1024 * 1024
"""Bytes in a request body."""

_QUALITY = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")
"""RFC 9110 §12.4.2."""


class _StrictRequest(Request):
    """A request whose body is bounded, and has been read as I-JSON before FastAPI asks for it."""

    content: Any = None

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

    async def json(self) -> Any:
        """Return the parsed body."""
        return self.content


class ApiRoute(APIRoute):
    """A route that authenticates first, refuses unknown parameters, and reads bodies strictly.

    FastAPI reads a body before it runs dependencies, so that bad JSON without a token would be 422
    and not 401; it ignores query parameters nobody declared; it takes NaN and duplicate names.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler."""
        handle = super().get_route_handler()
        parameters = {field.alias for field in self.dependant.query_params}
        takes_body = self.body_field is not None
        media_types = ["application/json"]
        if "PATCH" in (self.methods or ()):
            media_types.append("application/merge-patch+json")

        async def handle_strictly(request: Request) -> Response:
            context: Context = request.app.state.context
            user = await context.authenticator.authenticate(request.headers.get("authorization"))
            request.scope["user"] = user
            logs.bind(owner=user.digest)
            if request.scope["query_string"]:
                _check_parameters(request, parameters)
            if takes_body:
                request = await _read(request, media_types)
            return await handle(request)

        return handle_strictly


def _check_size(size: int) -> None:
    if size > MAX_BODY:
        raise ContentTooLarge(f"The request body is larger than {MAX_BODY} bytes.")


async def _read(request: Request, media_types: list[str]) -> Request:
    strict = _StrictRequest(request.scope, request.receive)
    body = await strict.body()
    if body:
        media_type = strict.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type not in media_types:
            raise UnsupportedMediaType(f"Send {' or '.join(media_types)}.")
        try:
            strict.content = strict_json.loads(body)
        except strict_json.JSONError as error:
            raise BadRequest(str(error)) from None
    return strict


def _check_parameters(request: Request, known: set[str]) -> None:
    errors = []
    seen = set()
    for name, _ in request.query_params.multi_items():
        if name not in known:
            errors.append({"parameter": name[:100], "detail": "is not a parameter of this resource"})
        elif name in seen:
            errors.append({"parameter": name, "detail": "must not be given twice"})
        seen.add(name)
    if errors:
        raise ValidationFailed(errors[:20])


def answer(
    model: BaseModel, *, status: int = 200, etag: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a model as JSON; with an entity tag the client may keep it and ask again (RFC 9111)."""
    found = dict(headers or {})
    if etag is not None:
        found["ETag"] = etag
        found["Cache-Control"] = "private, no-cache"
    return Response(model.model_dump_json(), status, found, "application/json")


def not_modified(etag: str) -> Response:
    """Return 304 for the representation tagged `etag`."""
    return Response(status_code=304, headers={"ETag": etag, "Cache-Control": "private, no-cache"})


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
