"""Every error that a client can receive, as RFC 9457 problem details.

A feature adds its own kinds by subclassing one of these classes with a `slug` and a `title`.
"""

import json
import random
import re
from collections.abc import Iterable, Mapping
from inspect import getdoc
from typing import Any, ClassVar
from urllib.parse import quote

from fastapi import Response

from shared.logging import bind, request_id

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 20
"""The largest number of errors in a 422."""
MAX_NAME = 100
"""The largest number of characters of a client's own name that an error repeats."""
_MAX_WAIT = 7
"""The most seconds that a client waits after 429."""

_NO_URI = re.compile(r"%(?![0-9A-Fa-f]{2})|[^%A-Za-z0-9\-._~!$&'()*+,;=:@/]")
"""Characters that the path of a URI cannot hold (RFC 3986 §3.3): servers decode the path, Azure Functions does not."""


class Problem(Exception):
    """An error answer: one sentence of `detail` for the client, its headers, and extension members (RFC 9457 §3.2)."""

    status: ClassVar[int]
    slug: ClassVar[str]
    title: ClassVar[str]

    def __init_subclass__(cls, slug: str, title: str, status: int | None = None) -> None:
        """Define a kind of problem; a subclass inherits the status."""
        cls.slug, cls.title, cls.status = slug, title, status or cls.status

    def __init__(self, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members

    @classmethod
    def document(cls, detail: str, instance: str, request_id: str | None) -> dict[str, Any]:
        """Return the members that every problem document of this kind has."""
        return {
            "type": f"/problems/{cls.slug}",
            "title": cls.title,
            "status": cls.status,
            "detail": detail,
            "instance": instance,
            "request_id": request_id,
        }

    def response(self, path: str) -> Response:
        """Return the `application/problem+json` answer; `path` becomes its `instance`.

        Further log lines of the request have the kind of problem in `problem`.
        """
        bind(problem=self.slug)
        instance = _NO_URI.sub(lambda found: quote(found[0], safe="", errors="replace"), path)
        body = self.document(self.detail, instance, request_id()) | self.members
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        return Response(content, self.status, self.headers, MEDIA_TYPE)


def problem_types() -> Mapping[str, type[Problem]]:
    """Return all kinds of problem by slug, sorted by status and slug."""

    def walk(kind: type[Problem]) -> Iterable[type[Problem]]:
        for child in kind.__subclasses__():
            yield child
            yield from walk(child)

    return {kind.slug: kind for kind in sorted(walk(Problem), key=lambda kind: (kind.status, kind.slug))}


def paragraphs(kind: type[Problem]) -> list[str]:
    """Return the description of a kind of problem, which is its docstring."""
    return [" ".join(text.split()) for text in (getdoc(kind) or kind.title).split("\n\n")]


class BadRequest(Problem, status=400, slug="bad-request", title="Bad request"):
    """The request cannot be parsed: its body, a header or its path is not well-formed.

    Correct the request: an unchanged repeat gets the same answer.
    """


class Unauthorized(Problem, status=401, slug="unauthorized", title="Unauthorized"):
    """The request has no bearer token, or its token is not valid here and now.

    Get a new token and send it as `Authorization: Bearer <token>` (RFC 6750). The answer's
    `WWW-Authenticate` header says what is wrong with the token that was sent.
    """


class Forbidden(Problem, status=403, slug="forbidden", title="Forbidden"):
    """The token is valid but does not allow this request; the detail says what it lacks."""


class NoOwner(Forbidden, slug="no-owner", title="No owner"):
    """The token names no organisation, and this operation is for owners.

    The issuer of the token has organisations as owners. Sign in to one of them, and send the token that
    you get there. Without one you may do what any person may.
    """


class InsufficientScope(Forbidden, slug="insufficient-scope", title="Insufficient scope"):
    """The token lacks a scope that this operation needs, or its scope lets it read only.

    `WWW-Authenticate` names the scope that is missing (RFC 6750). Ask for a token with it.
    """


class NotFound(Problem, status=404, slug="not-found", title="Not found"):
    """There is no such resource for you.

    A resource of another account and a resource that does not exist have the same answer.
    """


class MethodNotAllowed(Problem, status=405, slug="method-not-allowed", title="Method not allowed"):
    """The resource does not have this method; the `Allow` header lists its methods."""


class NotAcceptable(Problem, status=406, slug="not-acceptable", title="Not acceptable"):
    """The resource has no representation that the `Accept` header allows.

    Ask for one of the media types that the detail names.
    """


class Conflict(Problem, status=409, slug="conflict", title="Conflict"):
    """The request does not fit the current state of the resource.

    Read the resource again, then decide.
    """


class Gone(Problem, status=410, slug="gone", title="Gone"):
    """The resource has been erased and will not come back."""


class PreconditionFailed(Problem, status=412, slug="precondition-failed", title="Precondition failed"):
    """The resource does not meet `If-Match` or `If-None-Match`; nothing was done.

    The resource has changed since the entity tag in `If-Match` was read: read it again, apply your
    change to the new state, and send the result with the new tag (RFC 9110 §13.1.1). Or the resource
    exists already, although `If-None-Match` forbids that (§13.1.2).
    """


class ContentTooLarge(Problem, status=413, slug="content-too-large", title="Content too large"):
    """The request body is larger than this API accepts; the detail names the limit."""


class UnsupportedMediaType(Problem, status=415, slug="unsupported-media-type", title="Unsupported media type"):
    """This method does not accept the body's `Content-Type` or `Content-Encoding`; the detail names what it accepts."""


class ValidationFailed(Problem, status=422, slug="validation-failed", title="Validation failed"):
    """The request is well-formed but does not fit; `errors` says where and why.

    Each error has a `detail`, and either a `pointer` (RFC 6901, as a URI fragment) into the body or
    the name of the `parameter` or `header`. An answer has at most 20 errors. It never repeats a value
    of the request, and at most the first 100 characters of a name.
    """

    def __init__(self, errors: list[dict[str, str]], detail: str = "The request does not fit.") -> None:
        super().__init__(detail, errors=errors)


class TooManyRequests(Problem, status=429, slug="too-many-requests", title="Too many requests"):
    """Your account has too many requests under way; wait as long as `Retry-After` says.

    Each instance of the service answers so many requests of an account at once. Urgent ones are counted apart.
    """

    def __init__(self, detail: str) -> None:
        # What was refused together does not come back together, again and again.
        wait = random.randint(1, _MAX_WAIT)  # noqa: S311 # nosec B311  # no secret
        super().__init__(detail, headers={"Retry-After": str(wait)})


class InternalError(Problem, status=500, slug="internal-error", title="Internal error"):
    """The server failed; the log has the error under this `request_id`.

    The request may have taken effect: repeat a POST only with its `Idempotency-Key`.
    """


class Unavailable(Problem, status=503, slug="unavailable", title="Service unavailable"):
    """A store that this request needs does not answer in time.

    Wait as long as `Retry-After` says and send the request again, a POST with its
    `Idempotency-Key`: the first request may have taken effect.
    """

    def __init__(self, detail: str, *, retry_after: int = 2) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)})


def parameter_error(name: str, detail: str) -> ValidationFailed:
    """Return the 422 for a query or path parameter."""
    return ValidationFailed([{"parameter": name, "detail": detail}])


def header_error(name: str, detail: str) -> ValidationFailed:
    """Return the 422 for a request header."""
    return ValidationFailed([{"header": name, "detail": detail}])
