"""The pages for people, `/docs`, `/redoc` and `/problems`, and the document that they show, `/openapi.json`.

Each page works without internet. Its Content Security Policy allows neither inline code nor another
host: this service has all scripts and styles as files.
"""

import json
from hashlib import sha256
from html import escape
from os import PathLike, stat_result
from pathlib import Path
from string import Template
from typing import Any, override

from fastapi import FastAPI, Request, Response
from starlette.datastructures import Headers
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Scope

from shared.http.conditional import cacheable
from shared.http.negotiation import preferred
from shared.http.problems import NotFound, Problem, paragraphs, problem_types

_DOCUMENT_AGE = 300
"""Seconds for which a client may keep the OpenAPI document."""


def add_pages(app: FastAPI) -> None:
    """Serve the pages, in an `app` without FastAPI's own."""

    async def swagger_ui(_: Request) -> Response:
        return _page(app.title, _SWAGGER_UI, _SWAGGER_UI_POLICY)

    async def redoc(_: Request) -> Response:
        return _page(app.title, _REDOC, _REDOC_POLICY)

    async def document(request: Request) -> Response:
        content = json.dumps(app.openapi(), ensure_ascii=False, separators=(",", ":")).encode()
        return cacheable(content, "application/json", _DOCUMENT_AGE, request.headers.get("if-none-match"))

    # Starlette's plain routes: there are no parameters for FastAPI to check.
    for path, endpoint in {
        "/openapi.json": document,
        "/docs": swagger_ui,
        "/redoc": redoc,
        "/problems": _list_problems,
        "/problems/{slug}": _explain_problem,
    }.items():
        app.add_route(path, endpoint, methods=["GET"], include_in_schema=False)
    app.mount("/docs/assets", _Assets(packages=[(__package__ or "", "static"), ("fastapi_offline", "static")]))


class _Assets(StaticFiles):
    """The files in `static/`, and those of Swagger UI and ReDoc in the package fastapi-offline."""

    @override
    def file_response(
        self, full_path: str | PathLike[str], stat_result: stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        if Path(full_path).name == "redoc.standalone.js":
            # ReDoc loads a logo from another host; an empty picture replaces it.
            script = Path(full_path).read_bytes().replace(b"https://cdn.redoc.ly/redoc/logo-mini.svg", b"data:,")
            etag = f'"{sha256(script).hexdigest()[:32]}"'
            response = Response(script, status_code, {"ETag": etag}, "text/javascript")
            if self.is_not_modified(response.headers, Headers(scope=scope)):
                response = NotModifiedResponse(response.headers)
        response.headers["Cache-Control"] = "public, max-age=86400"
        return response


_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src 'self'"

_SWAGGER_UI_POLICY = f"{_POLICY}; script-src 'self'; connect-src 'self'; img-src 'self' data:"

# ReDoc's script fills an empty <style> element (the first hash); another, for the scroll bar, has a
# constant text (the second hash). Its search runs in a worker made of a blob.
_REDOC_POLICY = (
    f"{_POLICY} 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
    " 'sha256-QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc='"
    "; script-src 'self'; connect-src 'self'; img-src 'self' data:; worker-src blob:"
)

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


def _page(title: str, body: str, policy: str) -> Response:
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-cache"}
    return Response(_FRAME.substitute(title=escape(title), body=body), headers=headers, media_type="text/html")


async def _list_problems(request: Request) -> Response:
    kinds = problem_types().values()
    if _wants_json(request):
        return _json({"items": [_problem(kind) for kind in kinds]})
    items = "\n".join(
        f'<dt>{kind.status} <a href="/problems/{kind.slug}">{escape(kind.title)}</a></dt>'
        f"<dd>{_html(paragraphs(kind)[0])}</dd>"
        for kind in kinds
    )
    return _problem_page("Problems", f"<dl>\n{items}\n</dl>")


async def _explain_problem(request: Request) -> Response:
    kind = problem_types().get(request.path_params["slug"])
    if kind is None:
        raise NotFound("There is no such problem type.")
    if _wants_json(request):
        return _json(_problem(kind))
    text = "\n".join(f"<p>{_html(paragraph)}</p>" for paragraph in paragraphs(kind))
    head = f"<p>HTTP status {kind.status}, type <code>/problems/{kind.slug}</code></p>"
    return _problem_page(kind.title, f'{head}\n{text}\n<p><a href="/problems">All problems</a></p>')


def _problem_page(title: str, body: str) -> Response:
    response = _page(title, f"<main>\n<h1>{escape(title)}</h1>\n{body}\n</main>", f"{_POLICY}; img-src 'self'")
    response.headers["Vary"] = "Accept"
    return response


def _json(content: dict[str, Any]) -> Response:
    headers = {"Cache-Control": "no-cache", "Vary": "Accept"}
    return Response(json.dumps(content), headers=headers, media_type="application/json")


def _wants_json(request: Request) -> bool:
    return preferred(request.headers.get("accept"), ("text/html", "application/json")) == "application/json"


def _problem(kind: type[Problem]) -> dict[str, Any]:
    text = "\n\n".join(paragraphs(kind))
    return {"type": f"/problems/{kind.slug}", "title": kind.title, "status": kind.status, "description": text}


def _html(text: str) -> str:
    """Return a docstring's paragraph as HTML: text between backticks becomes code."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if n % 2 else piece for n, piece in enumerate(pieces))
