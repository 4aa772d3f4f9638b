"""The OpenAPI document: FastAPI's description of the routes, plus the errors and headers that routes share."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from shared.http import problems as known
from shared.http.idempotency import AnswerErased, IdempotencyKeyInUse, IdempotencyKeyReused
from shared.http.problems import Problem, paragraphs, problem_types

Responses = dict[int | str, dict[str, Any]]
"""The `responses` argument of a FastAPI route."""

_PROBLEMS_KEY = "x-problems"
_SCHEME = "bearer"

_TEXT: dict[str, Any] = {"type": "string"}
_URI = _TEXT | {"format": "uri-reference"}


def _header(description: str, schema: dict[str, Any] = _TEXT) -> dict[str, Any]:
    return {"description": description, "required": True, "schema": schema}


_HEADERS = {
    "Content-Location": _header("Path of exactly the version in the answer (RFC 9110 §8.7).", _URI),
    "ETag": _header("Entity tag of the answer, for `If-Match` and `If-None-Match` (RFC 9110 §8.8.3)."),
    "Idempotency-Replayed": {
        "description": "Present when an earlier request with the same key made this.",
        "schema": _TEXT | {"const": "true"},
    },
    "Link": {"description": 'The next page as `rel="next"` (RFC 8288); absent on the last page.', "schema": _TEXT},
    "Location": _header("Path of the resource that was made (RFC 9110 §10.2.2).", _URI),
    "Retry-After": _header(
        "Seconds to wait before the request is sent again (RFC 9110 §10.2.3).", {"type": "integer", "minimum": 0}
    ),
    "WWW-Authenticate": _header("`Bearer`, and what is wrong with the token if one was sent (RFC 6750 §3)."),
    "X-Request-Id": _header("The request's id: the client's, or a new one. Every log line has it."),
}

_HEADERS_OF_STATUS = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}

_CONDITIONS = {"if-match", "if-none-match"}

_POINTER = "Place in the body: a JSON pointer as a URI fragment (RFC 6901 §6)."

_PROBLEM_SCHEMA = {
    "title": "Problem",
    "description": "A problem detail (RFC 9457). Some types have members beyond these.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "request_id"],
    "properties": {
        "type": _URI | {"description": "Path of the page on this problem type."},
        "title": _TEXT,
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": _TEXT | {"description": "What happened in this request, for people to read."},
        "instance": _URI | {"description": "Path of the request."},
        "request_id": _TEXT | {"description": "The request's id; quote it in questions about this answer."},
        "errors": {
            "type": "array",
            "description": "Each place where the request is wrong, and why; only for `validation-failed`.",
            "maxItems": known.MAX_ERRORS,
            "items": {
                "type": "object",
                "required": ["detail"],
                "properties": {
                    "pointer": _TEXT | {"description": _POINTER},
                    "parameter": _TEXT,
                    "header": _TEXT,
                    "detail": _TEXT,
                },
            },
        },
    },
}


def problems(*kinds: type[Problem]) -> Responses:
    """Return a route's `responses` for its problems, except those that `_evident_problems` adds to all routes."""
    declared: Responses = {}
    for kind in kinds:
        declared.setdefault(kind.status, {_PROBLEMS_KEY: []})[_PROBLEMS_KEY].append(kind.slug)
    return declared


def headers(status: int, *names: str) -> Responses:
    """Return a route's `responses` for the headers of a status, except those that `_successes` adds to all routes."""
    return {status: {"headers": _refs(names)}}


def scopes_that_open(*scopes: str) -> dict[str, Any]:
    """Return a route's `openapi_extra` for scopes that give a right, each beside those that any token has."""
    return {"security": [{_SCHEME: [scope]} for scope in scopes]}


def complete(document: dict[str, Any], scopes: Mapping[str, str] | None = None, read_scope: str | None = None) -> None:
    """Add the parts that operations share to FastAPI's document: error answers, headers and scopes.

    `scopes` are described at the security scheme; `read_scope` is enough for every GET.
    """
    document.setdefault("servers", [{"url": "/"}])
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):  # no answer has these schemas
        schemas.pop(name, None)
    schemas["Problem"] = _PROBLEM_SCHEMA
    components["headers"] = _HEADERS
    answers = components.setdefault("responses", {})
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method == "patch" and "requestBody" in operation:
                content = operation["requestBody"]["content"]
                content["application/merge-patch+json"] = content["application/json"]  # RFC 7396
            if method == "get" and read_scope is not None and "security" in operation:
                operation["security"].append({_SCHEME: [read_scope]})
            operation.setdefault("security", [])  # said of public ones too: nobody forgot it
            found = _problems_of(path, method, operation)
            answers.update({_name(kinds): _answer(kinds) for kinds in found.values()})
            operation["responses"] = _successes(method, operation) | {
                str(status): _ref("responses", _name(kinds)) for status, kinds in found.items()
            }
            if "parameters" in operation:
                # OpenAPI ignores a parameter `Accept`: the answers list their media types.
                kept = (it for it in operation["parameters"] if (it["in"], it["name"].lower()) != ("header", "accept"))
                operation["parameters"] = [_as_sent(it) for it in kept]
    if scopes and _SCHEME in components.get("securitySchemes", {}):
        listed = "".join(f"\n- `{name}`: {meaning}" for name, meaning in scopes.items())
        components["securitySchemes"][_SCHEME]["description"] += f"\n\nScopes add rights:\n{listed}"
    for section in components:
        components[section] = dict(sorted(components[section].items()))
    _merge_null(document)


def _merge_null(node: Any) -> None:
    """Write nullable types, but not references, as one schema: client generators make a class of each `anyOf`."""
    if isinstance(node, list):
        for item in node:
            _merge_null(item)
    elif isinstance(node, dict):
        for member in node.values():
            _merge_null(member)
        match node:
            case {"anyOf": [{"type": str(kind)} as other, {"type": "null"}]} if "const" not in other:
                del node["anyOf"]
                node |= other | node | {"type": [kind, "null"]}
                if "enum" in node:
                    node["enum"] = [*node["enum"], None]
            case {"anyOf": [{"type": str(kind)} as other, *more, {"type": "null"}]} if more:
                node["anyOf"] = [other | {"type": [kind, "null"]}, *more]


def _problems_of(path: str, method: str, operation: dict[str, Any]) -> dict[int, list[type[Problem]]]:
    """Return the kinds of problem that an operation can return, by status, in order."""
    types = problem_types()
    kinds = set(_evident_problems(path, method, operation))
    for response in operation["responses"].values():
        kinds.update(types[slug] for slug in response.get(_PROBLEMS_KEY, ()))
    found: defaultdict[int, list[type[Problem]]] = defaultdict(list)
    for kind in types.values():
        if kind in kinds:
            found[kind.status].append(kind)
    return found


def _evident_problems(path: str, method: str, operation: dict[str, Any]) -> Iterator[type[Problem]]:
    parameters = operation.get("parameters", ())
    sent = _request_headers(operation)
    if path.startswith("/api/"):
        yield from (known.BadRequest, known.ValidationFailed, known.InternalError, known.Unavailable)
    if operation["security"]:
        yield from (known.Unauthorized, known.NoOwner, known.TooManyRequests)
        if method != "get":
            yield known.InsufficientScope
    if any(parameter["in"] == "path" for parameter in parameters):
        yield known.NotFound
    if method != "get":  # an unwanted body is read too, and refused
        yield from (known.BadRequest, known.ContentTooLarge, known.UnsupportedMediaType)
    if parameters or "requestBody" in operation:
        yield known.ValidationFailed
    if "accept" in sent:
        yield known.NotAcceptable
    if sent & ({"if-match"} if method == "get" else _CONDITIONS):
        yield known.PreconditionFailed
    if "idempotency-key" in sent:
        yield from (IdempotencyKeyInUse, IdempotencyKeyReused, AnswerErased)


def _successes(method: str, operation: dict[str, Any]) -> dict[str, Any]:
    """Return the answers that are not problems, with the headers that the operation implies."""
    sent = _request_headers(operation)
    responses = {status: it for status, it in operation["responses"].items() if int(status) < 400}  # noqa: PLR2004
    if method == "get" and "if-none-match" in sent:
        responses.setdefault("304", {"description": "Not modified"})
    for status, response in responses.items():
        names = ["X-Request-Id"]
        if status in {"200", "304"} and sent & _CONDITIONS:
            names.append("ETag")
        if "idempotency-key" in sent:
            names.append("Idempotency-Replayed")
        response["headers"] = dict(sorted((response.get("headers", {}) | _refs(names)).items()))
    return responses


def _request_headers(operation: dict[str, Any]) -> set[str]:
    return {it["name"].lower() for it in operation.get("parameters", ()) if it["in"] == "header"}


def _as_sent(parameter: dict[str, Any]) -> dict[str, Any]:
    """Return a parameter as HTTP sends it: never null, and with the capitals of `If-Match`."""
    name, schema = parameter["name"], dict(parameter["schema"])
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        del schema["anyOf"]
        schema |= kinds[0]
    return parameter | {"name": name.title() if parameter["in"] == "header" else name, "schema": schema}


def _name(kinds: list[type[Problem]]) -> str:
    return "Or".join(kind.__name__ for kind in kinds)


def _answer(kinds: list[type[Problem]]) -> dict[str, Any]:
    """Return the response object of problems that share a status."""
    status = kinds[0].status
    return {
        "description": "\n\n".join(f"[{kind.title}](/problems/{kind.slug}): {paragraphs(kind)[0]}" for kind in kinds),
        "headers": _refs(sorted({"X-Request-Id", _HEADERS_OF_STATUS.get(status, "X-Request-Id")})),
        "content": {
            known.MEDIA_TYPE: {
                "schema": _ref("schemas", "Problem"),
                "examples": {kind.slug: {"summary": kind.title, "value": _example(kind)} for kind in kinds},
            }
        },
    }


def _example(kind: type[Problem]) -> dict[str, Any]:
    example = kind.document(paragraphs(kind)[0], "/api/v1/example", "0b8f6a4e-7c1d-4f2a-9a53-3d1e5c7b9f20")
    if kind is known.ValidationFailed:
        example["errors"] = [{"pointer": "#/name", "detail": "String should have at least 1 character"}]
    return example


def _refs(names: Iterable[str]) -> dict[str, dict[str, str]]:
    return {name: _ref("headers", name) for name in names}


def _ref(section: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{section}/{name}"}
