"""Every error a client can see, as RFC 9457 problem details.

Problem
├── BadRequest 400
├── Unauthorized 401
├── Forbidden 403
├── NotFound 404
├── MethodNotAllowed 405
├── NotAcceptable 406
├── Conflict 409
├── Gone 410
├── PreconditionFailed 412
├── ContentTooLarge 413
├── UnsupportedMediaType 415
├── ValidationFailed 422
├── TooManyRequests 429
├── InternalError 500
└── Unavailable 503

A feature adds its own kinds by subclassing one of these with its own `slug` and `title`.
"""

import json
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, ClassVar
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from shared import text
from shared.logs import request_id

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 20
"""How many errors a 422 names."""
MAX_NAME = 100
"""Characters of a name that a client has made up, where an error repeats it."""

_NO_URI = re.compile(r"%(?![0-9A-Fa-f]{2})|[^%A-Za-z0-9\-._~!$&'()*+,;=:@/]")
"""What the path of a URI cannot hold (RFC 3986 §3.3): servers hand it on decoded, Azure Functions does not."""


class Problem(Exception):
    """An answer that is not success.

    `detail` is one sentence for the client about this occurrence; `members` are extension members
    of the problem document (RFC 9457 §3.2); `headers` are sent with it.
    """

    status: ClassVar[int]
    slug: ClassVar[str]
    title: ClassVar[str]

    def __init__(self, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members

    def response(self, path: str) -> Response:
        """Return the `application/problem+json` answer; `path` becomes its `instance`."""
        body = {
            "type": f"/problems/{self.slug}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": _NO_URI.sub(lambda found: quote(found[0], safe="", errors="replace"), path),
            "request_id": request_id(),
            **self.members,
        }
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        return Response(content, self.status, self.headers, MEDIA_TYPE)


def problem_types() -> Mapping[str, type[Problem]]:
    """Return every kind of problem by its slug, in order of status and slug."""

    def walk(kind: type[Problem]) -> Iterable[type[Problem]]:
        for child in kind.__subclasses__():
            yield child
            yield from walk(child)

    return {kind.slug: kind for kind in sorted(walk(Problem), key=lambda kind: (kind.status, kind.slug))}


class BadRequest(Problem):
    """The request cannot be parsed: its body, a header or its path is not well-formed.

    Mend the request; sending it again unchanged gives the same answer.
    """

    status, slug, title = 400, "bad-request", "Bad request"


class Unauthorized(Problem):
    """The request has no bearer token, or one that is not valid here and now.

    Get a new token and send it as `Authorization: Bearer <token>` (RFC 6750). The answer's
    `WWW-Authenticate` header says what is wrong with the one that was sent.
    """

    status, slug, title = 401, "unauthorized", "Unauthorized"


class Forbidden(Problem):
    """The token is valid but does not allow this request; the detail says what would."""

    status, slug, title = 403, "forbidden", "Forbidden"


class NotFound(Problem):
    """There is no such resource for you.

    A resource of another owner gives the very same answer as one that does not exist.
    """

    status, slug, title = 404, "not-found", "Not found"


class MethodNotAllowed(Problem):
    """The resource does not have this method; the `Allow` header lists those that it has."""

    status, slug, title = 405, "method-not-allowed", "Method not allowed"


class NotAcceptable(Problem):
    """The resource has no representation that the `Accept` header allows.

    Ask for one of the media types that the detail names.
    """

    status, slug, title = 406, "not-acceptable", "Not acceptable"


class Conflict(Problem):
    """The request does not fit the state that the resource is in now.

    Read the resource again, then decide.
    """

    status, slug, title = 409, "conflict", "Conflict"


class Gone(Problem):
    """What was asked for has been erased and will not come back."""

    status, slug, title = 410, "gone", "Gone"


class PreconditionFailed(Problem):
    """The resource is not as `If-Match` or `If-None-Match` asks; nothing was done.

    It has changed since the entity tag in `If-Match` was read: read it again, apply your change to
    what you find, and send that with the new tag (RFC 9110 §13.1.1). Or it is there already, where
    `If-None-Match` says that it must not be (§13.1.2).
    """

    status, slug, title = 412, "precondition-failed", "Precondition failed"


class ContentTooLarge(Problem):
    """The request body is larger than this API accepts; the detail names the limit."""

    status, slug, title = 413, "content-too-large", "Content too large"


class UnsupportedMediaType(Problem):
    """The body's `Content-Type` is not one that this method takes; the detail names them."""

    status, slug, title = 415, "unsupported-media-type", "Unsupported media type"


class ValidationFailed(Problem):
    """The request is well-formed but does not fit; `errors` says where and why.

    Each error has a `pointer` (RFC 6901, as a URI fragment) into the body, or the `parameter` or
    `header` that it is about, and a `detail`. There are at most 20. Values that were sent are never
    repeated in the answer, and names only up to their first 100 characters.
    """

    status, slug, title = 422, "validation-failed", "Validation failed"

    def __init__(self, errors: list[dict[str, str]], detail: str = "The request does not fit.") -> None:
        super().__init__(detail, errors=errors)


class TooManyRequests(Problem):
    """Too many requests in a short time; wait as long as `Retry-After` says."""

    status, slug, title = 429, "too-many-requests", "Too many requests"


class InternalError(Problem):
    """The server failed; the fault is ours and is logged under this `request_id`.

    Whether the request took effect is not known: repeat a POST only with its `Idempotency-Key`.
    """

    status, slug, title = 500, "internal-error", "Internal error"


class Unavailable(Problem):
    """A store that this request needs does not answer in time.

    Wait as long as `Retry-After` says and send the request again; a POST with its
    `Idempotency-Key`, since the first one may have taken effect.
    """

    status, slug, title = 503, "unavailable", "Service unavailable"

    def __init__(self, detail: str, *, retry_after: int = 2) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)})


def parameter_error(name: str, detail: str) -> ValidationFailed:
    """Return the 422 for a query or path parameter."""
    return ValidationFailed([{"parameter": name, "detail": detail}])


def header_error(name: str, detail: str) -> ValidationFailed:
    """Return the 422 for a request header."""
    return ValidationFailed([{"header": name, "detail": detail}])


def from_validation(error: ValidationError) -> ValidationFailed:
    """Return the 422 for a body that a model refused."""
    found = error.errors(include_url=False, include_input=False)
    return ValidationFailed(_validation_errors(item | {"loc": ("body", *item["loc"])} for item in found))


_DETAILS = {
    "dict_type": "must be an object",
    "extra_forbidden": "is not a member of this",
    "list_type": "must be an array",
    "missing": "is required",
    "model_attributes_type": "must be an object",
    "model_type": "must be an object",
}
"""What is clearer than the library's own words."""


def _validation_errors(errors: Iterable[Any]) -> list[dict[str, str]]:
    found = []
    for error in islice(errors, MAX_ERRORS):
        source, *path = error["loc"]
        if source == "body":
            place = {"pointer": "#" + "".join(f"/{_pointer_token(part)}" for part in path)}
        else:
            name = str(path[0]) if path else source
            # The spelling of the standards, which the framework has in small letters.
            place = {"header": name.title()} if source == "header" else {"parameter": name}
        found.append(place | {"detail": _detail(error)})
    return found


def _detail(error: Any) -> str:
    if error["type"] == "string_pattern_mismatch":
        pattern: str = error["ctx"]["pattern"]
        return text.REFUSED if pattern in (text.LINE, text.PROSE) else f"must match {pattern.strip('^$')}"
    return _DETAILS.get(error["type"]) or error["msg"].removeprefix("Value error, ")


def _pointer_token(part: object) -> str:
    return str(part)[:MAX_NAME].replace("~", "~0").replace("/", "~1")


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)  # noqa: S101 - it is registered for this class alone
    return error.response(request.url.path)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - it is registered for this class alone
    return ValidationFailed(_validation_errors(error.errors())).response(request.url.path)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for this class alone
    problem: Problem
    if error.status_code == NotFound.status:
        problem = NotFound("There is nothing at this path.")
    elif error.status_code == MethodNotAllowed.status:
        allowed = ", ".join(_methods(request))
        problem = MethodNotAllowed(f"This resource has {allowed}.", headers={"Allow": allowed})
    else:
        problem = BadRequest("The request cannot be read.")
    return problem.response(request.url.path)


def _methods(request: Request) -> list[str]:
    """Return every method of the path: Starlette's own `Allow` names only those of the first route."""
    return [
        method
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.routes)
    ]


async def _on_exception(request: Request, _error: Exception) -> Response:
    """Answer what nobody expected; Starlette then raises it again, for the `Shell` to log."""
    return InternalError("The server failed.").response(request.url.path)


def add_handlers(app: FastAPI) -> None:
    """Make every error that FastAPI, Starlette or our own code raises a problem document."""
    app.add_exception_handler(Exception, _on_exception)
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
