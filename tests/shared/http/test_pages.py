"""The pages that people read."""

import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
import uvicorn
from azure.functions import AsgiMiddleware, HttpRequest
from playwright.async_api import Browser, expect

from shared.http import problems as errors
from shared.http.application import Application
from tests.shared.http.notes import make_app
from tests.support.browser import SIZES, Size, chromium, visiting


@pytest.fixture(scope="module")
def app() -> Application:
    return make_app()


@pytest.fixture
async def client(app: Application) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


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
    app: Application, client: httpx.AsyncClient, path: str, media_type: str
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


# --- In a browser --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(app: Application) -> Iterator[str]:
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


@SIZES
async def test_an_operation_runs_from_swagger_ui_with_a_bearer_token(browser: Browser, site: str, size: Size) -> None:
    async with visiting(browser, f"{site}/docs", size) as page:
        await expect(page.locator(".opblock")).to_have_count(6)
        await page.locator(".btn.authorize").click()
        await page.locator("#auth-bearer-value").fill("token-of-alice")
        await page.locator(".modal-ux .btn.authorize").click()
        await page.locator(".modal-ux .btn-done").click()
        block = page.locator("#operations-notes-read_note_api_v1_notes__note_id__get")
        await block.locator(".opblock-summary-control").click()
        await block.locator(".try-out__btn").click()
        await block.locator("tr[data-param-name=note_id] input").fill("42")
        await block.locator(".execute").click()
        answer = block.locator(".live-responses-table .response")
        await expect(answer).to_contain_text("note 42 for token-of-alice")
        await expect(answer.locator(".response-col_status")).to_contain_text("200")


async def test_a_token_does_not_outlive_the_page(browser: Browser, site: str) -> None:
    async with visiting(browser, f"{site}/docs") as page:
        await page.locator(".btn.authorize.unlocked").click()
        await page.locator("#auth-bearer-value").fill("token-of-alice")
        await page.locator(".modal-ux .btn.authorize").click()
        await expect(page.locator(".auth-wrapper .authorize.locked")).to_be_visible()
        assert await page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
        await page.goto(f"{site}/docs")
        await expect(page.locator(".auth-wrapper .authorize.unlocked")).to_be_visible()


@SIZES
async def test_every_part_of_swagger_ui_opens(browser: Browser, site: str, size: Size) -> None:
    async with visiting(browser, f"{site}/docs", size) as page:
        await expect(page.locator(".opblock")).to_have_count(6)
        for control in await page.locator(".opblock-summary-control").all():
            await control.click()
        await expect(page.locator(".opblock.is-open .responses-table")).to_have_count(6)
        await page.locator(".json-schema-2020-12-accordion").evaluate_all("them => them.forEach(it => it.click())")
        await expect(page.locator(".models")).to_contain_text("request_id")


@SIZES
async def test_redoc_shows_every_operation(browser: Browser, site: str, size: Size) -> None:
    async with visiting(browser, f"{site}/redoc", size) as page:
        await expect(page.locator("h2", has_text="Find the newest notes")).to_be_visible()
        operations = {
            f"operation/{it['operationId']}" for item in make_app().openapi()["paths"].values() for it in item.values()
        }
        for operation in operations:
            await expect(page.locator(f"[id='{operation}']").first).to_be_attached()
        shown = page.locator("[id^='operation/']")
        assert set(await shown.evaluate_all("them => them.map(it => it.id)")) == operations


async def test_redoc_searches_in_its_worker(browser: Browser, site: str) -> None:
    async with visiting(browser, f"{site}/redoc") as page:
        await page.locator("input[aria-label=Search]").fill("newest")
        await expect(page.locator("[data-role='search:results']")).to_contain_text("Find the newest notes")


@SIZES
@pytest.mark.parametrize("path", ["/problems", "/problems/note-locked"])
async def test_problem_pages_are_readable(browser: Browser, site: str, path: str, size: Size) -> None:
    async with visiting(browser, f"{site}{path}", size) as page:
        await expect(page.locator("main")).to_contain_text("Note <locked>")
