"""What docs/API_STANDARDS.md says of requests that are sent again, and of bodies nobody asked for."""

import pytest

from tests.docs.markdown import read
from tests.support.app import MISSING, Client, is_problem, make_twin
from tests.support.consent import grant, location

NAME = "docs/API_STANDARDS.md"


async def test_a_body_is_refused_where_none_is_taken_and_ignored_by_a_get(alice: Client) -> None:
    consent = await grant(alice, await make_twin(alice, consent=False))
    answers = [await alice.post(f"{location(consent)}/withdraw", json=body) for body in ({"purposes": ["voice"]}, {})]

    assert is_problem(answers[0], 422, "validation-failed")
    assert answers[1].json()["state"] == "withdrawn"
    assert (await alice.request("GET", "/api/v1/me", json={"dry_run": True})).status_code == 200
    assert "accepts an empty one and `{}`" in " ".join(read(NAME).split())
    assert "The body of a GET is ignored" in read(NAME)


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
    assert [answer.status_code for answer in deleted] == [204, 204]
    assert deleted[0].headers["location"] == deleted[1].headers["location"]


async def test_a_first_version_is_made_once_where_if_none_match_asks_for_it(alice: Client) -> None:
    path = await make_twin(alice)
    made = [await alice.put(f"{path}/persona", json={}, headers={"If-None-Match": "*"}) for _ in range(2)]

    assert made[0].json()["version"] == 1
    assert is_problem(made[1], 412, "precondition-failed")


@pytest.mark.parametrize("path", ["/health", "/ready", "/docs", "/redoc", "/problems", "/openapi.json"])
async def test_head_is_answered_beside_the_api(anyone: Client, path: str) -> None:
    answer = await anyone.head(path)

    assert (answer.status_code, answer.content) == (200, b"")


async def test_head_is_a_get_without_a_body(anyone: Client, alice: Client) -> None:
    path = await make_twin(alice)
    for client, url in (
        (anyone, path), (alice, f"{path}/nothing"), (alice, f"/api/v1/twins/{MISSING}"), (alice, "/api/v1/decisions"),
        (alice, f"{path}?x=1"), (alice, path), (alice, "/api/v1/twins?limit=1"), (alice, f"{path}/decision"),
        (alice, f"{path}/ledger"), (alice, "/.well-known/jwks.json"),
    ):  # fmt: skip
        got, head = await client.get(url), await client.head(url)
        assert (head.status_code, head.content) == (got.status_code, b""), url
        varying = {"x-request-id", "content-length", "date"}
        assert {k: v for k, v in head.headers.items() if k not in varying} == {
            k: v for k, v in got.headers.items() if k not in varying
        }
    tag = (await alice.head(path)).headers["etag"]
    assert (await alice.head(path, headers={"If-None-Match": tag})).status_code == 304
