"""Problem documents: every kind has its own name, and a refusal never repeats a value that was sent."""

import json
import re
from http import HTTPStatus
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict, Field

from shared.asgi import Shell
from shared.errors import Problem, add_handlers, from_validation, problem_types
from shared.text import REFUSED as TEXT
from tests.conftest import ALEX, Client, is_problem
from tests.consent.steps import NOTICE
from twins.app import create_app

OBJECT = "must be an object"
TAG = "must be a language tag (BCP 47), such as pt-BR"
PURPOSE = "must match [a-z][a-z0-9._-]{0,62}"
LANGUAGE = "must match [A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*"


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
    document = create_app().app.openapi()
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
        ("DELETE", "/api/v1/twins", "GET, POST"),
        ("PUT", "/api/v1/twins", "GET, POST"),
        ("HEAD", "/api/v1/twins", "GET, POST"),
        ("OPTIONS", "/api/v1/twins", "GET, POST"),
        ("POST", "/api/v1/twins/019ab3f2-7d55-7c0e-9a3e-0d5b8f6c1a2b", "GET, PATCH, DELETE"),
        ("PUT", "/api/v1/twins/not-an-id", "GET, PATCH, DELETE"),
        ("DELETE", "/api/v1/twins/019ab3f2-7d55-7c0e-9a3e-0d5b8f6c1a2b/persona", "GET, PUT, PATCH"),
        ("GET", "/api/v1/twins/019ab3f2-7d55-7c0e-9a3e-0d5b8f6c1a2b/persona/versions/1/restore", "POST"),
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


async def test_a_member_that_does_not_fit_is_pointed_at_and_never_repeated(alice: Client) -> None:
    sent = {"twin_name": 73_951, "use_case": "\u202ehidden", "tone": "t" * 201, "consent": "yes", "~a/b": "extra"}
    answer = await alice.post("/api/v1/twins", json=sent)

    assert is_problem(answer, 422, "validation-failed")
    assert {error["pointer"] for error in answer.json()["errors"]} == {
        "#/twin_name", "#/use_case", "#/tone", "#/consent", "#/~0a~1b",
    }  # fmt: skip
    assert all(error.keys() == {"pointer", "detail"} for error in answer.json()["errors"])
    for value in ("73951", "hidden", "tttt", "yes", 'extra"', "pydantic"):
        assert value not in answer.text


async def test_errors_are_twenty_at_most_and_names_are_cut(alice: Client) -> None:
    many = await alice.post("/api/v1/twins", json={f"member-{n}": 1 for n in range(60_000)})
    long = await alice.post("/api/v1/twins", json=ALEX | {"/" * 500_000: 1})
    deep = await alice.put(
        "/api/v1/twins/019ab3f2-7d55-7c0e-9a3e-0d5b8f6c1a2b/persona", json={"style": {"x" * 500_000: 1}}
    )

    assert is_problem(many, 422, "validation-failed")
    assert len(many.json()["errors"]) == 20
    assert long.json()["errors"] == [{"pointer": "#/" + "~1" * 100, "detail": "is not a member of this"}]
    assert deep.json()["errors"] == [{"pointer": "#/style/" + "x" * 100, "detail": "is not a member of this"}]


@pytest.mark.parametrize(
    ("method", "below", "sent", "details"),
    [
        ("POST", "", {"twin_name": "a\nb"}, {"#/twin_name": TEXT}),
        ("POST", "", {"twin_name": "\U000e0041"}, {"#/twin_name": TEXT}),
        ("PUT", "/persona", {"languages": ["en_US"]}, {"#/languages/0": TAG}),
        ("PUT", "/persona", {"style": [], "facts": [7]}, {"#/style": OBJECT, "#/facts/0": OBJECT}),
        ("PUT", "/persona", {"traits": {}, "extensions": []}, {"#/traits": "must be an array", "#/extensions": OBJECT}),
        ("POST", "/consents", {"purposes": ["Voice", "", "a" * 64]}, {f"#/purposes/{n}": PURPOSE for n in range(3)}),
        ("POST", "/consents", {"method": "Web Form"}, {"#/method": PURPOSE}),
        ("POST", "/consents", {"notice": NOTICE | {"language": "en_US"}}, {"#/notice/language": LANGUAGE}),
        ("POST", "/consents", {"notice": NOTICE | {"text": "\u200b"}}, {"#/notice/text": TEXT}),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_said_of_what_was_sent(
    alice: Client, method: str, below: str, sent: dict[str, Any], details: dict[str, str]
) -> None:
    wholes: dict[str, Any] = {"": ALEX, "/persona": {}, "/consents": {"purposes": ["voice"], "notice": NOTICE}}
    path = "/api/v1/twins" + (f"/019ab3f2-7d55-7c0e-9a3e-0d5b8f6c1a2b{below}" if below else "")
    answer = await alice.request(method, path, json=wholes[below] | sent)

    assert is_problem(answer, 422, "validation-failed")
    assert {error["pointer"]: error["detail"] for error in answer.json()["errors"]} == details


async def test_a_header_is_named_as_the_standards_spell_it(alice: Client) -> None:
    twin = "/api/v1/twins/019ab3f2-7d55-7c0e-9a3e-0d5b8f6c1a2b"
    for method, path, name, value, detail in (
        ("POST", "/api/v1/twins", "Idempotency-Key", "a b", "must match [!-~]+"),
        ("POST", "/api/v1/twins", "Idempotency-Key", "a" * 256, "String should have at most 255 characters"),
        ("DELETE", twin, "If-Match", "a" * 1001, "String should have at most 1000 characters"),
        ("GET", twin, "If-None-Match", "a" * 1001, "String should have at most 1000 characters"),
    ):
        body = ALEX if method == "POST" else None
        answer = await alice.request(method, path, headers={name.lower(): value}, json=body)
        assert is_problem(answer, 422, "validation-failed")
        assert answer.json()["errors"] == [{"header": name, "detail": detail}]


async def test_a_missing_member_does_not_bring_the_rest_back(alice: Client) -> None:
    answer = await alice.post("/api/v1/twins", json={"twin_name": "Somebody Real", "use_case": "x", "tone": "y"})

    assert answer.json()["errors"] == [{"pointer": "#/consent", "detail": "is required"}]
    assert "Somebody" not in answer.text


@pytest.mark.parametrize("body", ["[]", "null", "7", '"text"', "true", "[{}]"])
async def test_a_body_that_is_no_object_is_pointed_at_as_a_whole(alice: Client, body: str) -> None:
    for method, path in (("POST", "/api/v1/twins"), ("PATCH", "/api/v1/twins/019ab3f2-7d55-7c0e-9a3e-0d5b8f6c1a2b")):
        answer = await alice.request(method, path, content=body, headers={"Content-Type": "application/json"})
        assert is_problem(answer, 422, "validation-failed")
        assert answer.json()["errors"] == [{"pointer": "#", "detail": OBJECT}]


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/api/v1/twins/not-an-id", "twin_id"),
        ("/api/v1/twins/019ab3f2-7d55-7c0e-9a3e-0d5b8f6c1a2", "twin_id"),
        ("/api/v1/twins/019ab3f2-7d55-7c0e-9a3e-0d5b8f6c1a2b/persona/versions/0", "version"),
        ("/api/v1/twins/019ab3f2-7d55-7c0e-9a3e-0d5b8f6c1a2b/persona/versions/x", "version"),
        (f"/api/v1/twins/019ab3f2-7d55-7c0e-9a3e-0d5b8f6c1a2b/persona/versions/{2**63}", "version"),
        ("/api/v1/twins/019ab3f2-7d55-7c0e-9a3e-0d5b8f6c1a2b/persona/diff?from=1", "to"),
        ("/api/v1/twins/019ab3f2-7d55-7c0e-9a3e-0d5b8f6c1a2b/persona/diff?from=1&to=-1", "to"),
        ("/api/v1/twins?limit=x", "limit"),
    ],
)
async def test_a_parameter_that_does_not_fit_is_named(alice: Client, path: str, parameter: str) -> None:
    answer = await alice.get(path)

    assert is_problem(answer, 422, "validation-failed")
    assert [error["parameter"] for error in answer.json()["errors"]] == [parameter]


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


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    sizes: list[int] = Field(max_length=2)


class Outer(BaseModel):
    inner: dict[str, Inner]


def test_a_pointer_leads_through_objects_lists_and_odd_names() -> None:
    with pytest.raises(ValueError, match="validation error") as refused:
        Outer.model_validate({"inner": {"a/b~c": {"sizes": [1, "x"]}}})
    problem = from_validation(refused.value)  # type: ignore[arg-type]

    assert problem.members["errors"][0]["pointer"] == "#/inner/a~1b~0c/sizes/1"


async def answer_of(error: Exception) -> httpx.Response:
    app = FastAPI()
    add_handlers(app)

    @app.get("/x")
    async def raising() -> None:
        raise error

    async def close() -> None:
        pass

    async with Client(transport=httpx.ASGITransport(Shell(app, close, close)), base_url="http://twins.test") as client:
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
