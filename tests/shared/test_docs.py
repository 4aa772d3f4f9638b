"""The pages that people read, and the OpenAPI document behind them."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from html.parser import HTMLParser
from typing import Annotated, Any

import httpx
import jsonschema_rs
import pytest
import uvicorn
from azure.functions import AsgiMiddleware, HttpRequest
from fastapi import APIRouter, Depends, FastAPI, Header, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from shared import docs, errors
from shared.asgi import Shell
from tests.browser import DESKTOP, SIZES, Browser, Size, assert_sound, chromium


class NoteLocked(errors.Conflict):
    """The note is locked by its `author` & nobody may write <b>into</b> it.

    Wait until the author
    unlocks it.
    """

    slug, title = "note-locked", "Note <locked>"


class Note(BaseModel):
    text: str


async def token_of(
    given: Annotated[HTTPAuthorizationCredentials | None, Security(HTTPBearer(scheme_name="bearer", auto_error=False))],
) -> str:
    if given is None:
        raise errors.Unauthorized("A token is needed.", headers={"WWW-Authenticate": "Bearer"})
    return given.credentials


Token = Annotated[str, Depends(token_of)]
router = APIRouter(prefix="/api/v1/notes", tags=["notes"])


@router.post("", status_code=201, responses=docs.headers(201, "ETag", "Location") | docs.problems(NoteLocked))
async def add_note(note: Note, idempotency_key: Annotated[str | None, Header()] = None) -> Note:
    return note


@router.get("/{note_id}")
async def read_note(note_id: str, token: Token, if_none_match: Annotated[str | None, Header()] = None) -> Note:
    """Read a note that shows the token which came with the request."""
    return Note(text=f"note {note_id} for {token}")


@router.patch("/{note_id}", responses=docs.problems(NoteLocked))
async def change_note(note_id: str, note: Note, token: Token, if_match: Annotated[str | None, Header()] = None) -> Note:
    return note


@router.delete("/{note_id}", status_code=204, responses=docs.problems(errors.Forbidden))
async def delete_note(note_id: str, token: Token, if_none_match: Annotated[str | None, Header()] = None) -> None:
    pass


@router.get("", summary="Find the newest notes")
async def find_notes(accept: Annotated[str | None, Header()] = None) -> list[Note]:
    return []


def make_app() -> FastAPI:
    app = FastAPI(title="Notes & <more>", version="1", docs_url=None, redoc_url=None)
    errors.add_handlers(app)
    app.include_router(router)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "healthy"}

    docs.add_docs(app)
    return app


async def close() -> None:
    pass


@pytest.fixture(scope="module")
def app() -> Shell:
    return Shell(make_app(), close, close)


@pytest.fixture
async def client(app: Shell) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


@pytest.fixture(scope="module")
def document(app: Shell) -> dict[str, Any]:
    return app.app.openapi()


# --- Over HTTP -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/docs/assets/nothing.js",
        "/docs/assets/..%2F__init__.py",
        "/docs/assets/%2e%2e/core.py",
        "/problems/nothing",
        "/problems/Problem",
    ],
)
async def test_what_is_not_there_is_a_404_problem(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert response.status_code == 404
    assert response.headers["content-type"] == errors.MEDIA_TYPE
    assert response.json()["type"] == "/problems/not-found"


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/docs/assets/pages.css", "/problems", "/problems/gone"])
async def test_pages_can_only_be_read(client: httpx.AsyncClient, path: str) -> None:
    response = await client.post(path)
    assert response.status_code == 405
    assert response.json()["type"] == "/problems/method-not-allowed"


class Inline(HTMLParser):
    """Collects what a page would run or show without asking this host for it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        url = given.get("src") or given.get("href") or "/"
        inline = (tag == "script" and "src" not in given) or tag == "style" or "style" in given
        if inline or not url.startswith("/") or any(name.startswith("on") for name in given):
            self.found.append((tag, given))


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/problems", "/problems/note-locked"])
async def test_pages_hold_no_inline_code_and_name_no_other_host(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    parser = Inline()
    parser.feed(response.text)
    assert parser.found == []


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/problems", "/problems/note-locked"])
async def test_pages_allow_nothing_that_is_not_named(client: httpx.AsyncClient, path: str) -> None:
    policy = (await client.get(path)).headers["content-security-policy"]
    allowed = dict(directive.strip().split(" ", 1) for directive in policy.split(";"))
    assert [allowed[name] for name in ("default-src", "frame-ancestors", "base-uri", "form-action")] == ["'none'"] * 4
    assert allowed.get("script-src", "'self'") == "'self'"
    assert "unsafe" not in policy
    assert "http" not in policy


@pytest.mark.parametrize(
    ("name", "media_type", "size"),
    [
        ("swagger-ui-bundle.js", "text/javascript; charset=utf-8", 1_000_000),
        ("redoc.standalone.js", "text/javascript; charset=utf-8", 500_000),
        ("start-swagger-ui.js", "text/javascript; charset=utf-8", 100),
        ("swagger-ui.css", "text/css; charset=utf-8", 100_000),
        ("pages.css", "text/css; charset=utf-8", 100),
        ("favicon.png", "image/png", 1000),
    ],
)
async def test_assets_are_kept_by_the_browser_and_checked_by_their_tag(
    client: httpx.AsyncClient, name: str, media_type: str, size: int
) -> None:
    response = await client.get(f"/docs/assets/{name}")
    assert response.status_code == 200
    assert response.headers["content-type"] == media_type
    assert response.headers["cache-control"] == "public, max-age=86400"
    assert len(response.content) > size
    etag = response.headers["etag"]
    for tags in (etag, f"W/{etag}", f'"other", {etag}'):
        again = await client.get(f"/docs/assets/{name}", headers={"If-None-Match": tags})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    changed = await client.get(f"/docs/assets/{name}", headers={"If-None-Match": '"other"'})
    assert changed.status_code == 200


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/docs", "text/html; charset=utf-8"),
        ("/redoc", "text/html; charset=utf-8"),
        ("/problems/gone", "text/html; charset=utf-8"),
        ("/docs/assets/redoc.standalone.js", "text/javascript; charset=utf-8"),
        ("/docs/assets/favicon.png", "image/png"),
    ],
)
async def test_pages_arrive_whole_through_the_functions_adapter(
    app: Shell, client: httpx.AsyncClient, path: str, media_type: str
) -> None:
    request = HttpRequest("GET", f"http://test{path}", headers={"host": "test"}, body=b"")
    adapter: Any = AsgiMiddleware
    answer = await adapter(app).handle_async(request)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == media_type
    assert answer.get_body() == (await client.get(path)).content


# --- Problems ------------------------------------------------------------------------------------


async def test_every_problem_type_leads_to_its_explanation(client: httpx.AsyncClient) -> None:
    items = (await client.get("/problems", headers={"Accept": "application/json"})).json()["items"]
    assert {item["type"] for item in items} == {f"/problems/{slug}" for slug in errors.problem_types()}
    page = await client.get("/problems")
    for item in items:
        assert f'href="{item["type"]}"' in page.text
        assert (await client.get(item["type"], headers={"Accept": "application/json"})).json() == item
        assert (await client.get(item["type"])).status_code == 200


async def test_an_explanation_is_the_docstring_as_text(client: httpx.AsyncClient) -> None:
    page = await client.get("/problems/note-locked", headers={"Accept": "text/html,*/*;q=0.8"})
    assert page.headers["vary"] == "Accept"
    assert "<h1>Note &lt;locked&gt;</h1>" in page.text
    assert "<title>Note &lt;locked&gt;</title>" in page.text
    assert "by its <code>author</code> &amp; nobody may write &lt;b&gt;into&lt;/b&gt; it.</p>" in page.text
    assert "<p>Wait until the author unlocks it.</p>" in page.text
    answer = await client.get("/problems/note-locked", headers={"Accept": "application/json"})
    assert answer.headers["vary"] == "Accept"
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "type": "/problems/note-locked",
        "title": "Note <locked>",
        "status": 409,
        "description": "The note is locked by its `author` & nobody may write <b>into</b> it.\n\n"
        "Wait until the author unlocks it.",
    }


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, "text/html"),
        ("*/*", "text/html"),
        ("text/html, application/json;q=0.1", "text/html"),
        ("text/html;q=0.1, application/json", "application/json"),
        ("application/*", "application/json"),
        ("application/json;q=0, */*", "text/html"),
        ("image/png", "text/html"),
    ],
)
async def test_an_explanation_comes_as_the_client_likes_it_best(
    client: httpx.AsyncClient, accept: str | None, media_type: str
) -> None:
    client.headers.pop("accept")
    for path in ("/problems", "/problems/gone"):
        answer = await client.get(path, headers={} if accept is None else {"Accept": accept})
        assert answer.headers["content-type"].partition(";")[0] == media_type


# --- The OpenAPI document ------------------------------------------------------------------------


def test_fastapis_own_validation_error_is_nowhere(document: dict[str, Any]) -> None:
    assert "ValidationError" not in json.dumps(document)


def test_the_pages_are_not_in_the_document(document: dict[str, Any]) -> None:
    assert set(document["paths"]) == {"/api/v1/notes", "/api/v1/notes/{note_id}", "/health"}


@pytest.mark.parametrize(
    ("method", "path", "statuses"),
    [
        ("get", "/health", "200"),
        ("get", "/api/v1/notes", "200 400 406 422 500 503"),
        ("post", "/api/v1/notes", "201 400 409 410 413 415 422 500 503"),
        ("get", "/api/v1/notes/{note_id}", "200 304 400 401 404 422 500 503"),
        ("patch", "/api/v1/notes/{note_id}", "200 400 401 404 409 412 413 415 422 500 503"),
        ("delete", "/api/v1/notes/{note_id}", "204 400 401 403 404 412 422 500 503"),
    ],
)
def test_an_operation_names_each_answer_it_can_give(
    document: dict[str, Any], method: str, path: str, statuses: str
) -> None:
    assert list(document["paths"][path][method]["responses"]) == statuses.split()


def test_problems_that_share_a_status_are_told_apart(document: dict[str, Any]) -> None:
    post, patch = (
        document["paths"][path][method]["responses"]["409"]
        for path, method in (("/api/v1/notes", "post"), ("/api/v1/notes/{note_id}", "patch"))
    )
    assert post == {"$ref": "#/components/responses/IdempotencyKeyInUseOrNoteLocked"}
    assert patch == {"$ref": "#/components/responses/NoteLocked"}
    response = document["components"]["responses"]["IdempotencyKeyInUseOrNoteLocked"]
    examples = response["content"][errors.MEDIA_TYPE]["examples"]
    assert list(examples) == ["idempotency-key-in-use", "note-locked"]
    assert examples["note-locked"]["value"]["title"] == "Note <locked>"
    assert "[Note <locked>](/problems/note-locked): The note is locked" in response["description"]


def test_each_error_answer_is_written_once(document: dict[str, Any]) -> None:
    references = [
        response
        for item in document["paths"].values()
        for operation in item.values()
        for status, response in operation["responses"].items()
        if int(status) >= 400
    ]
    assert all(set(reference) == {"$ref"} for reference in references)
    used = {reference["$ref"].rpartition("/")[2] for reference in references}
    assert used == set(document["components"]["responses"])


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _references(item)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in _references(document):
        _, _, section, name = reference.split("/")
        assert name in document["components"][section], reference


def test_examples_and_real_answers_fit_the_problem_schema(document: dict[str, Any]) -> None:
    validator = jsonschema_rs.validator_for(
        document["components"]["schemas"]["Problem"] | {"additionalProperties": False}
    )
    for response in document["components"]["responses"].values():
        for example in response["content"][errors.MEDIA_TYPE]["examples"].values():
            validator.validate(example["value"])


@pytest.mark.parametrize("name", ["Unauthorized", "ValidationFailed"])
async def test_a_real_problem_is_as_declared(client: httpx.AsyncClient, document: dict[str, Any], name: str) -> None:
    if name == "Unauthorized":
        response = await client.get("/api/v1/notes/1")
    else:
        response = await client.post("/api/v1/notes", json={"text": 1})
    declared = document["components"]["responses"][name]
    assert response.headers["content-type"] in declared["content"]
    assert {header.lower() for header in declared["headers"]} <= set(response.headers)
    schema = document["components"]["schemas"]["Problem"] | {"additionalProperties": False}
    jsonschema_rs.validator_for(schema).validate(response.json())


def test_headers_are_declared_where_they_are_sent(document: dict[str, Any]) -> None:
    def names(method: str, path: str, status: str) -> set[str]:
        response = document["paths"][path][method]["responses"][status]
        if "$ref" in response:
            response = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
        return set(response["headers"])

    note = "/api/v1/notes/{note_id}"
    assert names("get", "/health", "200") == {"X-Request-Id"}
    assert names("post", "/api/v1/notes", "201") == {
        "ETag",
        "Idempotency-Replayed",
        "Location",
        "X-Request-Id",
    }
    assert names("get", note, "200") == names("get", note, "304") == {"ETag", "X-Request-Id"}
    assert names("patch", note, "200") == {"ETag", "X-Request-Id"}
    assert names("get", note, "401") == {"WWW-Authenticate", "X-Request-Id"}
    assert names("get", note, "404") == {"X-Request-Id"}
    assert names("get", note, "503") == {"Retry-After", "X-Request-Id"}


def test_parameters_are_written_as_http_has_them(document: dict[str, Any]) -> None:
    note_id, if_match = document["paths"]["/api/v1/notes/{note_id}"]["patch"]["parameters"]
    assert (note_id["name"], note_id["in"]) == ("note_id", "path")
    assert document["paths"]["/api/v1/notes"]["get"]["parameters"] == []
    assert if_match == {
        "name": "If-Match",
        "in": "header",
        "required": False,
        "schema": {"title": "If-Match", "type": "string"},
    }


def test_a_patch_is_a_merge_patch_or_plain_json(document: dict[str, Any]) -> None:
    content = document["paths"]["/api/v1/notes/{note_id}"]["patch"]["requestBody"]["content"]
    assert list(content) == ["application/json", "application/merge-patch+json"]
    assert content["application/json"] == content["application/merge-patch+json"]


def test_servers_are_relative_unless_the_app_names_some(document: dict[str, Any]) -> None:
    assert document["servers"] == [{"url": "/"}]
    app = FastAPI(docs_url=None, redoc_url=None, servers=[{"url": "/here"}])
    docs.add_docs(app)
    assert app.openapi()["servers"] == [{"url": "/here"}]


def test_the_document_is_the_same_in_every_process() -> None:
    program = "import json; from tests.shared.test_docs import make_app; print(json.dumps(make_app().openapi()))"
    texts = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(texts) == 1


# --- In a browser --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(app: Shell) -> Iterator[str]:
    """Serve the application under a name that is not localhost."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"http://notes.test:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


async def test_a_missing_browser_fails_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"):
        async with chromium():
            pass


async def test_the_helper_notices_errors_and_other_hosts(browser: Browser, site: str) -> None:
    page = await browser.page(DESKTOP)
    await page.open(f"{site}/problems")
    await page.wait_for("document.querySelector('h1')")
    assert page.errors == []
    await page.evaluate("console.error('seen'); document.body.innerHTML = '<img src=//elsewhere.test/x>'; 0")
    await page.wait_for("document.images[0].complete")
    assert page.errors[0] == "seen"
    assert any("Content Security Policy" in error for error in page.errors)
    with pytest.raises(AssertionError):
        await assert_sound(page, site)


@SIZES
async def test_an_operation_runs_from_swagger_ui_with_a_bearer_token(browser: Browser, site: str, size: Size) -> None:
    page = await browser.page(size)
    await page.open(f"{site}/docs")
    await page.wait_for("document.querySelectorAll('.opblock').length === 6")
    await page.click(".btn.authorize")
    await page.fill("#auth-bearer-value", "token-of-alice")
    await page.click(".modal-ux .btn.authorize")
    await page.click(".modal-ux .btn-done")
    await page.click("#operations-notes-read_note_api_v1_notes__note_id__get .opblock-summary-control")
    await page.click(".try-out__btn")
    await page.fill("tr[data-param-name=note_id] input", "42")
    await page.click(".execute")
    await page.wait_for_text(".live-responses-table .response", "note 42 for token-of-alice")
    await page.wait_for_text(".live-responses-table .response-col_status", "200")
    await assert_sound(page, site)


async def test_a_token_does_not_outlive_the_page(browser: Browser, site: str) -> None:
    page = await browser.page(DESKTOP)
    await page.open(f"{site}/docs")
    await page.click(".btn.authorize.unlocked")
    await page.fill("#auth-bearer-value", "token-of-alice")
    await page.click(".modal-ux .btn.authorize")
    await page.wait_for("document.querySelector('.auth-wrapper .authorize.locked')")
    assert await page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
    await page.open(f"{site}/docs")
    await page.wait_for("document.querySelector('.auth-wrapper .authorize.unlocked')")


@SIZES
async def test_every_part_of_swagger_ui_opens(browser: Browser, site: str, size: Size) -> None:
    page = await browser.page(size)
    await page.open(f"{site}/docs")
    await page.wait_for("document.querySelectorAll('.opblock').length === 6")
    await page.evaluate("document.querySelectorAll('.opblock-summary-control').forEach((it) => it.click())")
    await page.wait_for("document.querySelectorAll('.opblock.is-open .responses-table').length === 6")
    await page.evaluate("document.querySelectorAll('.json-schema-2020-12-accordion').forEach((it) => it.click())")
    await page.wait_for_text(".models", "request_id")
    await assert_sound(page, site)


@SIZES
async def test_redoc_shows_every_operation(browser: Browser, site: str, size: Size) -> None:
    page = await browser.page(size)
    await page.open(f"{site}/redoc")
    operations = "[...document.querySelectorAll('[id^=\"operation/\"]')].map((it) => it.id)"
    await page.wait_for(f"new Set({operations}).size === 6")
    await page.wait_for_text("h2", "Find the newest notes")
    await assert_sound(page, site)


async def test_redoc_searches_in_its_worker(browser: Browser, site: str) -> None:
    page = await browser.page(DESKTOP)
    await page.open(f"{site}/redoc")
    await page.fill("input[aria-label=Search]", "newest")
    await page.wait_for_text("[data-role='search:results']", "Find the newest notes")
    await assert_sound(page, site)


@SIZES
@pytest.mark.parametrize("path", ["/problems", "/problems/note-locked"])
async def test_problem_pages_are_readable(browser: Browser, site: str, path: str, size: Size) -> None:
    page = await browser.page(size)
    await page.open(f"{site}{path}")
    await page.wait_for_text("main", "Note <locked>")
    await assert_sound(page, site)
