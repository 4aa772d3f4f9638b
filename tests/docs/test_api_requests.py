"""What docs/API_STANDARDS.md says of requests that are sent again, and of what is ignored."""

import pytest

from tests.conftest import Client, is_problem, make_twin
from tests.consent.steps import grant, location
from tests.docs.markdown import read

NAME = "docs/API_STANDARDS.md"


async def test_a_body_where_none_is_expected_is_ignored(alice: Client) -> None:
    consent = await grant(alice, await make_twin(alice, consent=False))
    answer = await alice.post(f"{location(consent)}/withdraw", content=b"{", headers={"Content-Type": "text/plain"})

    assert answer.json()["state"] == "withdrawn"
    assert "a body is ignored" in read(NAME)


async def test_what_is_said_of_requests_that_are_sent_again(alice: Client) -> None:
    path = await make_twin(alice)
    patched = [await alice.patch(path, json={"tone": "warm"}) for _ in range(2)]
    put = [await alice.put(f"{path}/persona", json={}) for _ in range(2)]
    tag = {"If-Match": put[1].headers["etag"]}
    guarded = [await alice.put(f"{path}/persona", json={}, headers=tag) for _ in range(2)]
    deleted = [await alice.delete(path) for _ in range(2)]

    assert patched[0].content == patched[1].content
    assert [answer.json()["version"] for answer in put] == [1, 2]
    assert [answer.status_code for answer in guarded] == [200, 412]
    assert [answer.status_code for answer in deleted] == [204, 404]


async def test_a_first_version_is_made_once_where_if_none_match_asks_for_it(alice: Client) -> None:
    path = await make_twin(alice)
    made = [await alice.put(f"{path}/persona", json={}, headers={"If-None-Match": "*"}) for _ in range(2)]

    assert made[0].json()["version"] == 1
    assert is_problem(made[1], 412, "precondition-failed")


@pytest.mark.parametrize("path", ["/health", "/ready", "/docs", "/redoc", "/problems", "/openapi.json"])
async def test_head_is_answered_beside_the_api(anyone: Client, path: str) -> None:
    answer = await anyone.head(path)

    assert (answer.status_code, answer.content) == (200, b"")


async def test_nothing_else_of_the_api_has_head(alice: Client) -> None:
    assert (await alice.head("/api/v1/twins")).status_code == 405
