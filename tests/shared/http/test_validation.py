"""What does not fit is named and pointed at, and never repeated."""

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from shared.http.text import REFUSED as TEXT
from shared.http.validation import from_validation
from tests.support.app import ALEX, MISSING, Client, is_problem
from tests.support.consent import NOTICE

MISSING_TWIN = f"/api/v1/twins/{MISSING}"
OBJECT = "must be an object"
TAG = "must be a language tag (BCP 47), such as pt-BR"
PURPOSE = r"must match [a-z][a-z0-9._\-]{0,62}"
LANGUAGE = "must match [A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*"


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
    many = await alice.post("/api/v1/twins", json={f"member-{n}": 1 for n in range(900)})
    long = await alice.post("/api/v1/twins", json=ALEX | {"/" * 15_000: 1})
    deep = await alice.put(f"{MISSING_TWIN}/persona", json={"style": {"x" * 500_000: 1}})

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
    path = f"{MISSING_TWIN}{below}" if below else "/api/v1/twins"
    answer = await alice.request(method, path, json=wholes[below] | sent)

    assert is_problem(answer, 422, "validation-failed")
    assert {error["pointer"]: error["detail"] for error in answer.json()["errors"]} == details


async def test_a_header_is_named_as_the_standards_spell_it(alice: Client) -> None:
    for method, path, name, value, detail in (
        ("POST", "/api/v1/twins", "Idempotency-Key", "a b", "must match [!-~]+"),
        ("POST", "/api/v1/twins", "Idempotency-Key", "a" * 256, "String should have at most 255 characters"),
        ("DELETE", MISSING_TWIN, "If-Match", "a" * 1001, "String should have at most 1000 characters"),
        ("GET", MISSING_TWIN, "If-None-Match", "a" * 1001, "String should have at most 1000 characters"),
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
    for method, path in (("POST", "/api/v1/twins"), ("PATCH", MISSING_TWIN)):
        answer = await alice.request(method, path, content=body, headers={"Content-Type": "application/json"})
        assert is_problem(answer, 422, "validation-failed")
        assert answer.json()["errors"] == [{"pointer": "#", "detail": OBJECT}]


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/api/v1/twins/not-an-id", "twin_id"),
        (MISSING_TWIN[:-1], "twin_id"),
        (f"{MISSING_TWIN}/persona/versions/0", "version"),
        (f"{MISSING_TWIN}/persona/versions/x", "version"),
        (f"{MISSING_TWIN}/persona/versions/{2**63}", "version"),
        (f"{MISSING_TWIN}/persona/diff?from=1", "to"),
        (f"{MISSING_TWIN}/persona/diff?from=1&to=-1", "to"),
        ("/api/v1/twins?limit=x", "limit"),
    ],
)
async def test_a_parameter_that_does_not_fit_is_named(alice: Client, path: str, parameter: str) -> None:
    answer = await alice.get(path)

    assert is_problem(answer, 422, "validation-failed")
    assert [error["parameter"] for error in answer.json()["errors"]] == [parameter]


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
