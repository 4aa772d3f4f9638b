"""Texts of twins and personas: the limit holds for what is kept, so that it can be read again."""

from typing import Any

import pytest

from tests.support.app import ALEX, Client, is_problem, make_twin

QA = "\u0958"
"""One character that NFC writes as two."""


PLACES = [
    pytest.param("POST", "", lambda text: ALEX | {"twin_name": text}, "#/twin_name", 100, id="twin_name"),
    pytest.param("POST", "", lambda text: ALEX | {"tone": text}, "#/tone", 200, id="tone"),
    pytest.param("PUT", "/persona", lambda text: {"summary": text}, "#/summary", 10_000, id="prose"),
    pytest.param("PUT", "/persona", lambda text: {"traits": [text]}, "#/traits/0", 200, id="phrase"),
    pytest.param("PUT", "/persona", lambda text: {"boundaries": [text]}, "#/boundaries/0", 500, id="sentence"),
]


@pytest.mark.parametrize(("method", "below", "body", "pointer", "most"), PLACES)
async def test_a_text_that_would_be_kept_too_long_is_refused_and_the_longest_is_read_again(
    alice: Client, method: str, below: str, body: Any, pointer: str, most: int
) -> None:
    path = (await make_twin(alice)) + below if below else "/api/v1/twins"
    refused = await alice.request(method, path, json=body(QA * (most // 2 + 1)))
    kept = await alice.request(method, path, json=body(QA * (most // 2)))

    assert is_problem(refused, 422, "validation-failed")
    detail = f"must be at most {most:,} characters once NFC-normalised"
    assert refused.json()["errors"] == [{"pointer": pointer, "detail": detail}]
    assert kept.is_success, kept.text
    read = await alice.get(kept.headers.get("location", path))
    assert read.status_code == 200
    assert ("\u0915\u093c" * (most // 2)) in read.text


async def test_a_filter_that_composing_makes_too_long_is_refused_by_its_name(alice: Client) -> None:
    answer = await alice.get("/api/v1/twins", params={"q": QA * 51})

    assert is_problem(answer, 422, "validation-failed")
    assert [error["parameter"] for error in answer.json()["errors"]] == ["q"]
