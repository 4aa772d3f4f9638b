"""What people read: `/docs`, `/redoc`, `/problems`, and the OpenAPI document behind them.

Every page works without internet and under a Content Security Policy that allows neither inline
code nor another host: scripts and styles are files of this service.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from hashlib import sha256
from html import escape
from importlib.metadata import distribution
from inspect import getdoc
from pathlib import Path
from string import Template
from typing import Any

from fastapi import FastAPI, Request, Response

from shared import errors
from shared.api import preferred
from shared.errors import Problem, problem_types
from shared.idempotency import AnswerErased, IdempotencyKeyInUse, IdempotencyKeyReused

Responses = dict[int | str, dict[str, Any]]
"""The `responses` argument of a FastAPI route."""


def add_docs(app: FastAPI) -> None:
    """Serve the pages and complete `app.openapi`; `app` is made with `docs_url=None, redoc_url=None`."""

    @cache
    def openapi() -> dict[str, Any]:
        return _complete(FastAPI.openapi(app))

    async def swagger_ui(_: Request) -> Response:
        return _page(app.title, _SWAGGER_UI, _SWAGGER_UI_POLICY)

    async def redoc(_: Request) -> Response:
        return _page(app.title, _REDOC, _REDOC_POLICY)

    app.openapi = openapi  # type: ignore[method-assign]  # the way FastAPI has for it
    # Starlette's plain routes: these answers have no parameters that FastAPI would have to check.
    for path, endpoint in {
        "/docs": swagger_ui,
        "/redoc": redoc,
        "/docs/assets/{name}": _serve_asset,
        "/problems": _list_problems,
        "/problems/{slug}": _explain_problem,
    }.items():
        app.add_route(path, endpoint, methods=["GET"], include_in_schema=False)


# --- Pages ---------------------------------------------------------------------------------------

_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src 'self'"

_SWAGGER_UI_POLICY = f"{_POLICY}; script-src 'self'; connect-src 'self'; img-src 'self' data:"

# ReDoc makes its style sheet by script: in an empty <style> element (the first hash) and, for the
# scroll bar, in one with a constant text (the second). Its search runs in a worker made of a blob.
_REDOC_POLICY = (
    f"{_POLICY} 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
    " 'sha256-QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc='"
    "; script-src 'self'; connect-src 'self'; img-src 'self' data:; worker-src blob:"
)

_PROBLEMS_POLICY = f"{_POLICY}; img-src 'self'"

_FRAME = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<link rel="icon" href="/docs/assets/favicon.png">
<link rel="stylesheet" href="/docs/assets/pages.css">
</head>
<body>
$body
</body>
</html>
""")

_SWAGGER_UI = """\
<link rel="stylesheet" href="/docs/assets/swagger-ui.css">
<div id="swagger-ui"></div>
<script src="/docs/assets/swagger-ui-bundle.js"></script>
<script src="/docs/assets/start-swagger-ui.js"></script>"""

_REDOC = """\
<redoc spec-url="/openapi.json"></redoc>
<script src="/docs/assets/redoc.standalone.js"></script>"""

_START_SWAGGER_UI = """\
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  persistAuthorization: false, // a token does not outlive the page
});
"""

_PAGES_CSS = """\
body { margin: 0; }
main { max-width: 44rem; margin: 0 auto; padding: 1.5rem; font: 1rem/1.6 system-ui, sans-serif; }
code { overflow-wrap: anywhere; }
dt { margin-top: 1rem; font-weight: 600; }
/* An empty column, since no operation has links, that pushes the table out of a phone's window. */
.swagger-ui .response-col_links { display: none; }
/* Two buttons, once a body is edited, that do not fit beside each other in a phone's window. */
.swagger-ui .try-out.btn-group { display: flex; flex-wrap: wrap; gap: .5rem; justify-content: flex-end; }
/* Room for the buttons that lie on an answer, which would cover its end. Against the element's own style. */
.swagger-ui .highlight-code:has(.download-contents) .microlight { padding-bottom: 3.25rem !important; }
"""

_PACKAGED = {
    "favicon.png": "image/png",
    "redoc.standalone.js": "text/javascript",
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
}
_OWN = {
    "pages.css": ("text/css", _PAGES_CSS),
    "start-swagger-ui.js": ("text/javascript", _START_SWAGGER_UI),
}


def _page(title: str, body: str, policy: str) -> Response:
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-cache"}
    return Response(_FRAME.substitute(title=escape(title), body=body), headers=headers, media_type="text/html")


async def _serve_asset(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _PACKAGED and name not in _OWN:
        raise errors.NotFound("There is nothing at this path.")
    content, media_type, etag = _asset(name)
    headers = {"ETag": etag, "Cache-Control": "public, max-age=86400"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=media_type)


@cache
def _asset(name: str) -> tuple[bytes, str, str]:
    """Return the content, media type and entity tag of a file, read once, at its first request."""
    if name in _OWN:
        media_type, text = _OWN[name]
        content = text.encode()
    else:
        # By its metadata, since to import the package would cost every cold start.
        folder = Path(str(distribution("fastapi-offline").locate_file("fastapi_offline/static")))
        media_type = _PACKAGED[name]
        # ReDoc shows its maker's logo from another host; an empty picture hides it.
        content = (folder / name).read_bytes().replace(b"https://cdn.redoc.ly/redoc/logo-mini.svg", b"data:,")
    return content, media_type, f'"{sha256(content).hexdigest()[:32]}"'


# --- Problems ------------------------------------------------------------------------------------


async def _list_problems(request: Request) -> Response:
    kinds = problem_types().values()
    if _wants_json(request):
        return _json({"items": [_problem(kind) for kind in kinds]})
    items = "\n".join(
        f'<dt>{kind.status} <a href="/problems/{kind.slug}">{escape(kind.title)}</a></dt>'
        f"<dd>{_html(_paragraphs(kind)[0])}</dd>"
        for kind in kinds
    )
    return _problem_page("Problems", f"<h1>Problems</h1>\n<dl>\n{items}\n</dl>")


async def _explain_problem(request: Request) -> Response:
    kind = problem_types().get(request.path_params["slug"])
    if kind is None:
        raise errors.NotFound("There is no such problem type.")
    if _wants_json(request):
        return _json(_problem(kind))
    paragraphs = "\n".join(f"<p>{_html(text)}</p>" for text in _paragraphs(kind))
    return _problem_page(
        kind.title,
        f"<h1>{escape(kind.title)}</h1>\n"
        f"<p>HTTP status {kind.status}, type <code>/problems/{kind.slug}</code></p>\n"
        f'{paragraphs}\n<p><a href="/problems">All problems</a></p>',
    )


def _problem_page(title: str, body: str) -> Response:
    response = _page(title, f"<main>\n{body}\n</main>", _PROBLEMS_POLICY)
    response.headers["Vary"] = "Accept"
    return response


def _json(content: dict[str, Any]) -> Response:
    headers = {"Cache-Control": "no-cache", "Vary": "Accept"}
    return Response(json.dumps(content), headers=headers, media_type="application/json")


def _wants_json(request: Request) -> bool:
    return preferred(request.headers.get("accept"), ("text/html", "application/json")) == "application/json"


def _problem(kind: type[Problem]) -> dict[str, Any]:
    return {
        "type": f"/problems/{kind.slug}",
        "title": kind.title,
        "status": kind.status,
        "description": "\n\n".join(_paragraphs(kind)),
    }


def _paragraphs(kind: type[Problem]) -> list[str]:
    return [" ".join(text.split()) for text in (getdoc(kind) or kind.title).split("\n\n")]


def _html(text: str) -> str:
    """Return a docstring's paragraph as HTML: every second piece between backticks is code."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if n % 2 else piece for n, piece in enumerate(pieces))


# --- OpenAPI -------------------------------------------------------------------------------------

_PROBLEMS_KEY = "x-problems"

_HEADERS: dict[str, dict[str, Any]] = {
    "Content-Location": {
        "description": "Path of the very version that is in the answer (RFC 9110 §8.7).",
        "required": True,
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "ETag": {
        "description": "Entity tag of the answer, for `If-Match` and `If-None-Match` (RFC 9110 §8.8.3).",
        "required": True,
        "schema": {"type": "string"},
    },
    "Idempotency-Replayed": {
        "description": "Present when this is the stored answer of an earlier request with the same key.",
        "schema": {"type": "string", "const": "true"},
    },
    "Link": {
        "description": 'The next page as `rel="next"` (RFC 8288); absent on the last page.',
        "schema": {"type": "string"},
    },
    "Location": {
        "description": "Path of the resource that was made (RFC 9110 §10.2.2).",
        "required": True,
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "Retry-After": {
        "description": "Seconds to wait before the request is sent again (RFC 9110 §10.2.3).",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    },
    "WWW-Authenticate": {
        "description": "`Bearer`, and what is wrong with the token if one was sent (RFC 6750 §3).",
        "required": True,
        "schema": {"type": "string"},
    },
    "X-Request-Id": {
        "description": "The request's id: the one that was sent, or a new one. It is in every log line.",
        "required": True,
        "schema": {"type": "string"},
    },
}

_HEADERS_OF_STATUS = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}

_CONDITIONS = {"if-match", "if-none-match"}

_PROBLEM_SCHEMA = {
    "title": "Problem",
    "description": "A problem detail (RFC 9457). Some types have members beyond these.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "request_id"],
    "properties": {
        "type": {
            "type": "string",
            "format": "uri-reference",
            "description": "What kind of problem it is, and the page that explains it.",
        },
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "What happened this time, for people."},
        "instance": {
            "type": "string",
            "format": "uri-reference",
            "description": "Path of the request.",
        },
        "request_id": {"type": "string", "description": "Quote it when you ask about this answer."},
        "errors": {
            "type": "array",
            "description": "Where and why the request does not fit; only for `validation-failed`.",
            "maxItems": errors.MAX_ERRORS,
            "items": {
                "type": "object",
                "required": ["detail"],
                "properties": {
                    "pointer": {
                        "type": "string",
                        "description": "Place in the body: a JSON pointer as a URI fragment (RFC 6901 §6).",
                    },
                    "parameter": {"type": "string"},
                    "header": {"type": "string"},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}


def problems(*kinds: type[Problem]) -> Responses:
    """Return what a route adds to its `responses` for problems that are not evident from its shape.

    Evident, and so never declared: what every API route, a secured one, or one with a path
    parameter, a body, `Accept`, a condition or `Idempotency-Key` can answer.
    """
    declared: Responses = {}
    for kind in kinds:
        declared.setdefault(kind.status, {_PROBLEMS_KEY: []})[_PROBLEMS_KEY].append(kind.slug)
    return declared


def headers(status: int, *names: str) -> Responses:
    """Return what a route adds to its `responses` for the headers of its answer with `status`.

    Evident, and so never declared: `X-Request-Id`, `Idempotency-Replayed` where a key is taken, and
    `ETag` of a 200 or 304 where a condition is taken.
    """
    return {status: {"headers": _refs(names)}}


def _complete(document: dict[str, Any]) -> dict[str, Any]:
    """Add to FastAPI's document what is the same for many operations: error answers and headers."""
    document.setdefault("servers", [{"url": "/"}])
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):  # an answer that this service never gives
        schemas.pop(name, None)
    schemas["Problem"] = _PROBLEM_SCHEMA
    components["headers"] = _HEADERS
    answers = components.setdefault("responses", {})
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method == "patch" and "requestBody" in operation:
                content = operation["requestBody"]["content"]
                content["application/merge-patch+json"] = content["application/json"]  # RFC 7396
            found = _problems_of(path, method, operation)
            answers.update({_name(kinds): _answer(kinds) for kinds in found.values()})
            operation["responses"] = _successes(method, operation) | {
                str(status): _ref("responses", _name(kinds)) for status, kinds in found.items()
            }
            if "parameters" in operation:
                operation["parameters"] = [_as_sent(it) for it in operation["parameters"] if not _is_accept(it)]
    for section in components:
        components[section] = dict(sorted(components[section].items()))
    return document


def _problems_of(path: str, method: str, operation: dict[str, Any]) -> dict[int, list[type[Problem]]]:
    """Return the kinds of problem that an operation can answer, by status, in order."""
    known = problem_types()
    kinds = set(_evident_problems(path, method, operation))
    for response in operation["responses"].values():
        kinds.update(known[slug] for slug in response.get(_PROBLEMS_KEY, ()))
    found: dict[int, list[type[Problem]]] = defaultdict(list)
    for kind in known.values():
        if kind in kinds:
            found[kind.status].append(kind)
    return found


def _evident_problems(path: str, method: str, operation: dict[str, Any]) -> Iterator[type[Problem]]:
    parameters = operation.get("parameters", ())
    sent = _request_headers(operation)
    if path.startswith("/api/"):
        yield from (errors.BadRequest, errors.ValidationFailed, errors.InternalError, errors.Unavailable)
    if "security" in operation:
        yield errors.Unauthorized
    if any(parameter["in"] == "path" for parameter in parameters):
        yield errors.NotFound
    if "requestBody" in operation:
        yield from (errors.BadRequest, errors.ContentTooLarge, errors.UnsupportedMediaType)
    if parameters or "requestBody" in operation:
        yield errors.ValidationFailed
    if "accept" in sent:
        yield errors.NotAcceptable
    if method != "get" and sent & _CONDITIONS:
        yield errors.PreconditionFailed
    if "idempotency-key" in sent:
        yield from (IdempotencyKeyInUse, IdempotencyKeyReused, AnswerErased)


def _successes(method: str, operation: dict[str, Any]) -> dict[str, Any]:
    """Return the answers that are not problems, with the headers that go without saying."""
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


def _is_accept(parameter: dict[str, Any]) -> bool:
    """Tell what OpenAPI's Parameter Object is to ignore: the media types of the answers say it all."""
    return (parameter["in"], parameter["name"].lower()) == ("header", "accept")


def _as_sent(parameter: dict[str, Any]) -> dict[str, Any]:
    """Return a parameter as HTTP has it, which knows no null and spells `If-Match` with capitals."""
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
        "description": "\n\n".join(f"[{kind.title}](/problems/{kind.slug}): {_paragraphs(kind)[0]}" for kind in kinds),
        "headers": _refs(sorted({"X-Request-Id", _HEADERS_OF_STATUS.get(status, "X-Request-Id")})),
        "content": {
            errors.MEDIA_TYPE: {
                "schema": _ref("schemas", "Problem"),
                "examples": {kind.slug: {"summary": kind.title, "value": _example(kind)} for kind in kinds},
            }
        },
    }


def _example(kind: type[Problem]) -> dict[str, Any]:
    example: dict[str, Any] = {
        "type": f"/problems/{kind.slug}",
        "title": kind.title,
        "status": kind.status,
        "detail": _paragraphs(kind)[0],
        "instance": "/api/v1/example",
        "request_id": "0b8f6a4e-7c1d-4f2a-9a53-3d1e5c7b9f20",
    }
    if kind is errors.ValidationFailed:
        example["errors"] = [{"pointer": "#/name", "detail": "String should have at least 1 character"}]
    return example


def _refs(names: Iterable[str]) -> dict[str, dict[str, str]]:
    return {name: _ref("headers", name) for name in names}


def _ref(section: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{section}/{name}"}
