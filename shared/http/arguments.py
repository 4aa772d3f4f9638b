"""The arguments of an endpoint: read from the request, validated by FastAPI's fields.

FastAPI's own solver takes a fifth of the request's time (see bench/), since it supports forms,
sequences, cookies and generators. `declarations.check` refuses a route that needs those when it is declared.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from types import NoneType
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant

from shared.http import problems, strict_json
from shared.http.declarations import yields
from shared.http.problems import MAX_ERRORS, MAX_NAME, ValidationFailed
from shared.lane import Lane

MAX_BODY = 16 * 1024
"""Largest request body, in bytes, of a route that declares no other."""

_BODIES = Lane("bodies", threads=1, within=2.0)
"""Larger bodies are parsed and validated here: one of 1 MiB takes up to 0.2 s."""

_CONSTANT = (NoneType, bool, int, str)

type Solved = dict[Callable[..., Any], Any]


@dataclass(frozen=True)
class MaxBytes:
    """Marks the body of a route in an `Annotated`: the most bytes that it may have."""

    limit: int


class BoundedRequest(Request):
    """A request with a bounded body: FastAPI's `max_body_size` answers in plain text, and before authentication."""

    max_body = MAX_BODY

    async def body(self) -> bytes:
        """Return the body; raises `ContentTooLarge` as soon as its size is known."""
        if not hasattr(self, "_body"):
            declared = self.headers.get("content-length", "")
            self._check_size(int(declared) if declared.isdecimal() else 0)
            body = bytearray()
            async for chunk in self.stream():
                body += chunk
                self._check_size(len(body))
            self._body = bytes(body)
        return self._body

    def _check_size(self, size: int) -> None:
        if size > self.max_body:
            raise problems.ContentTooLarge(f"The request body is larger than {self.max_body} bytes.")


def max_body(dependant: Dependant) -> int:
    """Return the most bytes that the body of an endpoint may have."""
    marks = (item for field in dependant.body_params for item in field.field_info.metadata)
    return next((mark.limit for mark in marks if isinstance(mark, MaxBytes)), MAX_BODY)


# --- When a route is declared ----------------------------------------------------------------------


def query_names(dependant: Dependant) -> set[str]:
    """Return the names of all query parameters of an endpoint and its dependencies."""
    names = {field.alias for field in dependant.query_params}
    return names.union(*map(query_names, dependant.dependencies))


type _Read = Callable[[Request], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What `solve` does for an endpoint or a dependency."""

    call: Callable[..., Any]
    use_cache: bool
    defaults: Mapping[str, Any]
    """The values of optional arguments, where they cannot be changed."""
    sources: Sequence[tuple[_Read | None, Sequence[tuple[Any, tuple[str, ...]]], bool]]
    """How values are read (None: from the body), the fields with their places for errors, and if all have defaults."""
    request: str | None
    """The name of the parameter that takes the request."""
    dependencies: Sequence[tuple[str | None, "Plan"]]


def make_plan(dependant: Dependant) -> Plan:
    """Look up, once, what each request needs to know of an endpoint's declaration."""
    headers = dependant.header_params
    sources: tuple[tuple[str, _Read | None, list[Any]], ...] = (
        ("path", attrgetter("path_params"), dependant.path_params),
        ("query", lambda request: request.scope["query"], dependant.query_params),
        ("header", partial(_lines, headers), headers),
        ("body", None, dependant.body_params),
    )
    assert dependant.call is not None  # noqa: S101 - only FastAPI's own routers have none
    defaults = {
        field.name: field.field_info.default
        for _, _, fields in sources
        for field in fields
        if isinstance(field.field_info.default, _CONSTANT)
    }
    return Plan(
        dependant.call,
        dependant.use_cache,
        defaults,
        [
            (
                read,
                [(field, (place, field.alias) if read else (place,)) for field in fields],
                all(field.name in defaults for field in fields),
            )
            for place, read, fields in sources
            if fields
        ],
        dependant.request_param_name,
        [(dependency.name, make_plan(dependency)) for dependency in dependant.dependencies],
    )


# --- When a request arrives ------------------------------------------------------------------------


async def solve(
    plan: Plan, request: Request, content: Mapping[Any, Any], errors: list[Any], solved: Solved
) -> dict[str, Any]:
    """Return the arguments of an endpoint or a dependency.

    `content` has the parsed body under its parameter's name. The function adds validation errors in
    Pydantic's shape to `errors`, and to `solved` the value of each dependency, which runs once a request.
    """
    found = dict(plan.defaults)
    for read, fields, is_optional in plan.sources:
        values = content if read is None else read(request)
        if values or not is_optional:
            is_large = read is None and len(await request.body()) > MAX_BODY
            await _validate(fields, values, found, errors, in_thread=is_large)
    if plan.request is not None:
        found[plan.request] = request
    for name, dependency in plan.dependencies:
        call = dependency.call
        if call not in solved or not dependency.use_cache:
            await _depend(dependency, request, errors, solved)
        if name and call in solved:
            found[name] = solved[call]
    return found


async def _validate(
    fields: Sequence[tuple[Any, tuple[str, ...]]],
    values: Mapping[Any, Any],
    found: dict[str, Any],
    errors: list[Any],
    *,
    in_thread: bool,
) -> None:
    for field, loc in fields:
        if field.alias in values:
            value = values[field.alias]
            if in_thread:
                found[field.name], wrong = await _BODIES.run(field.validate, value, {}, loc=loc)
            else:
                found[field.name], wrong = field.validate(value, {}, loc=loc)
            errors.extend(wrong)
        elif field.field_info.is_required():
            errors.append({"type": "missing", "loc": loc, "msg": "Field required"})
        elif field.name not in found:
            found[field.name] = field.get_default()


async def _depend(plan: Plan, request: Request, errors: list[Any], solved: Solved) -> None:
    overrides = request.scope["app"].dependency_overrides
    override = overrides.get(plan.call) if overrides else None
    if override is not None:
        if yields(override):
            raise TypeError(f"The override of `{plan.call.__name__}` yields; return the value")
        plan = replace(make_plan(get_dependant(path="", call=override)), call=plan.call)
    if plan.sources or plan.dependencies:
        before = len(errors)
        arguments = await solve(plan, request, {}, errors, solved)
        if len(errors) > before:
            return
    else:
        arguments = {} if plan.request is None else {plan.request: request}
    if override is None:
        solved[plan.call] = await plan.call(**arguments)
    else:  # of a test, which may be a plain function
        value = override(**arguments)
        solved[plan.call] = await value if inspect.isawaitable(value) else value


def _lines(fields: list[Any], request: Request) -> dict[str, str]:
    """Return headers by their fields' names; several lines of one name form one list (RFC 9110 §5.3)."""
    headers = request.headers
    return {field.alias: ", ".join(headers.getlist(field.alias)) for field in fields if field.alias in headers}


async def read_body(request: Request, media_types: list[str]) -> Any:
    """Return the I-JSON body, or `...` where it is empty; raises a `Problem` for a bad one."""
    body = await request.body()
    if not body:
        # The Functions host can lose a body without a length: a client that sent one must not succeed without it.
        if "content-type" in request.headers and "content-length" not in request.headers:
            raise ValidationFailed([{"pointer": "#", "detail": "is required where there is a Content-Type"}])
        return ...
    _check_headers(request, media_types)
    return await _BODIES.run(_parse, body) if len(body) > MAX_BODY else _parse(body)


async def refuse_body(request: Request, media_types: list[str]) -> None:
    """Raise `ValidationFailed` for a body other than `{}`, or one that was lost on the way.

    A client whose `{"dry_run": true}` is ignored believes that nothing is erased.
    """
    body = await request.body()
    if not body and "transfer-encoding" not in request.headers:
        return
    # The Functions host can lose a body without a length, but keeps the header that announced it.
    if body:
        _check_headers(request, media_types)
    if not body or _parse(body) != {}:
        raise ValidationFailed([{"pointer": "#", "detail": "is not taken here; leave it out"}])


def _check_headers(request: Request, media_types: list[str]) -> None:
    """Raise `UnsupportedMediaType` for a body that is not of one of these types, or encoded."""
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        # RFC 9110 §12.5.3: the answer names the encodings that would have been accepted.
        raise problems.UnsupportedMediaType(
            "Send the body without Content-Encoding.", headers={"Accept-Encoding": "identity"}
        )
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in media_types:
        raise problems.UnsupportedMediaType(f"Send {' or '.join(media_types)}.")


def _parse(body: bytes) -> Any:
    """Parse a body; raises `BadRequest` where it is not I-JSON."""
    try:
        return strict_json.loads(body)
    except strict_json.JSONError as error:
        raise problems.BadRequest(str(error)) from None


def read_query(query: bytes, known: set[str]) -> dict[str, str]:
    """Return the query parameters; raises `ValidationFailed` for unknown or repeated ones."""
    errors = []
    found: dict[str, str] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name not in known:
            errors.append({"parameter": name[:MAX_NAME], "detail": "is not a parameter of this resource"})
        elif name in found:
            errors.append({"parameter": name, "detail": "must not be given twice"})
        found[name] = value
    if errors:
        raise ValidationFailed(errors[:MAX_ERRORS])
    return found
