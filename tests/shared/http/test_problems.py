"""Problem documents: every kind has its own name, page, status and type."""

import json
import re
from http import HTTPStatus
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException

from shared.http.middleware import wrap
from shared.http.problems import Problem, problem_types
from shared.http.validation import add_handlers
from tests.support.app import ALEX, MISSING, Client, is_problem
from twins.app import create_app

MISSING_TWIN = f"/api/v1/twins/{MISSING}"


def product_kinds() -> dict[str, type[Problem]]:
    """Return the kinds that this service answers; other tests define kinds of their own."""
    return {
        slug: kind for slug, kind in problem_types().items() if kind.__module__.split(".")[0] in {"shared", "twins"}
    }


def test_each_kind_has_one_slug_a_fitting_status_a_title_and_an_explanation() -> None:
    kinds = list(product_kinds().values())

    assert len({kind.slug for kind in kinds}) == len(kinds)
    assert {kind.status for kind in kinds} >= {
        400, 401, 403, 404, 405, 406, 409, 410, 412, 413, 415, 422, 429, 500, 503,
    }  # fmt: skip
    for kind in kinds:
        HTTPStatus(kind.status)
        assert kind.slug == kind.slug.lower().replace(" ", "-").replace("_", "-")
        assert kind.title == kind.title.strip() != ""
        assert vars(kind).get("__doc__"), f"{kind.__name__} is not explained"


async def test_every_kind_has_its_page(anyone: Client) -> None:
    for slug, kind in product_kinds().items():
        answer = await anyone.get(f"/problems/{slug}", headers={"Accept": "application/json"})
        assert answer.status_code == 200, slug
        assert answer.json()["title"] == kind.title
        assert answer.json()["status"] == kind.status
    assert is_problem(await anyone.get("/problems/nothing"), 404, "not-found")


def test_every_kind_that_an_operation_can_answer_is_declared() -> None:
    document = create_app().openapi()
    declared = {
        example
        for response in document["components"]["responses"].values()
        for content in response["content"].values()
        for example in content["examples"]
    }
    # A method that a path has not is no operation of the document; nothing limits rates yet; the
    # bare kinds are what more telling ones derive from.
    undeclared = {"method-not-allowed", "too-many-requests", "forbidden", "conflict", "gone"}

    assert declared | undeclared == set(product_kinds()) | undeclared


# --- Over HTTP -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/api/v1/twins", "GET, HEAD, POST"),
        ("PUT", "/api/v1/twins", "GET, HEAD, POST"),
        ("HEAD", "/api/v1/decisions", "POST"),
        ("OPTIONS", "/api/v1/twins", "GET, HEAD, POST"),
        ("POST", MISSING_TWIN, "GET, HEAD, PATCH, DELETE"),
        ("PUT", "/api/v1/twins/not-an-id", "GET, HEAD, PATCH, DELETE"),
        ("DELETE", f"{MISSING_TWIN}/persona", "GET, HEAD, PUT, PATCH"),
        ("GET", f"{MISSING_TWIN}/persona/versions/1/restore", "POST"),
        ("POST", "/health", "GET, HEAD"),
        ("DELETE", "/ready", "GET, HEAD"),
        ("TRACE", "/health", "GET, HEAD"),
        ("BREW", "/health", "GET, HEAD"),
    ],
)
async def test_a_method_that_is_not_there_is_refused_with_all_that_are(
    alice: Client, method: str, path: str, allow: str
) -> None:
    answer = await alice.request(method, path)

    assert answer.status_code == 405
    assert answer.headers["allow"] == allow
    if method != "HEAD":
        assert is_problem(answer, 405, "method-not-allowed")


@pytest.mark.parametrize(
    "path", ["/", "/api", "/api/v1", "/api/v1/twins/", "/api/v2/twins", "/API/v1/twins", "/health/", "/favicon.ico"]
)
async def test_a_path_that_is_not_there_is_a_problem(alice: Client, path: str) -> None:
    answer = await alice.get(path)

    assert is_problem(answer, 404, "not-found")
    assert answer.json()["instance"] == path


@pytest.mark.parametrize(
    "path", ["/%20", "/a%22b", "/%C3%A9", "/100%25", "/%3Cb%3E", "/a%3Fb", "/%19%C2%9A", "/~a-b_c.d;e=f@g:h!$&'()*+,"]
)
async def test_an_instance_is_the_path_as_a_uri_has_it(alice: Client, path: str) -> None:
    answer = await alice.get(f"/api/v1{path}")

    assert is_problem(answer, 404, "not-found")
    assert re.fullmatch(r"(/|[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-F]{2})+", answer.json()["instance"])


async def test_the_detail_of_a_problem_does_not_depend_on_the_path(alice: Client) -> None:
    answer = await alice.get("/api/v1/%22%3Cscript%3E")

    assert is_problem(answer, 404, "not-found")
    assert "script" not in answer.json()["detail"]


# --- Handlers ------------------------------------------------------------------------------------


async def answer_of(error: Exception) -> httpx.Response:
    app = FastAPI()
    add_handlers(app)

    @app.get("/x")
    async def raising() -> None:
        raise error

    async def close() -> None:
        pass

    async with Client(transport=httpx.ASGITransport(wrap(app, close, close)), base_url="http://twins.test") as client:
        return await client.get("/x")


@pytest.mark.parametrize("kind", product_kinds().values(), ids=lambda kind: kind.slug)
async def test_each_kind_is_answered_with_its_own_status_and_type(kind: Any) -> None:
    error = kind([{"pointer": "#", "detail": "x"}]) if kind.status == 422 else kind("What happened.")
    answer = await answer_of(error)

    assert is_problem(answer, kind.status, kind.slug)
    assert answer.json()["title"] == kind.title
    if kind.status == 503:
        assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("status", [400, 418, 426])
async def test_what_the_framework_refuses_is_a_problem_too(status: int) -> None:
    assert is_problem(await answer_of(HTTPException(status, "its own words")), 400, "bad-request")


async def test_members_and_headers_of_a_problem_are_sent_and_odd_text_survives() -> None:
    answer = await answer_of(product_kinds()["conflict"]("Zoë \ud800", headers={"X-Hint": "h"}, state="withdrawn"))

    assert answer.json()["state"] == "withdrawn"
    assert answer.headers["x-hint"] == "h"
    assert json.loads(answer.content)["detail"] == "Zoë ?"


async def test_a_problem_has_the_members_of_the_standard_and_no_others(alice: Client) -> None:
    answer = await alice.post("/api/v1/twins", json=ALEX | {"tone": ""})

    assert list(answer.json()) == ["type", "title", "status", "detail", "instance", "request_id", "errors"]
