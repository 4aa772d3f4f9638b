"""Two owners, every route: the other's resource is a missing one, in every byte that an answer has."""

import re

import httpx
import pytest

from tests.hostile.operations import Operation, operations, possessions, state
from tests.support.app import ALEX, MISSING, Client, ClientOf, is_problem, make_twin


@pytest.fixture(scope="module", name="operations")
def _operations(environment: dict[str, str]) -> list[Operation]:
    return operations()


def seen(answer: httpx.Response, ids: dict[str, str]) -> tuple[int, str, dict[str, str]]:
    """Return all that a client gets, but for what it has sent itself and what differs each time."""
    moving = {"x-request-id", "content-length"}
    text = answer.text.replace(answer.headers["x-request-id"], "<request id>")
    for value in sorted(ids.values(), key=len, reverse=True):
        if len(value) > 1:
            text = text.replace(value, "<id>")
    text = re.sub(r'"evaluated_at":"[^"]+"', "<now>", text)
    return answer.status_code, text, {k: v for k, v in answer.headers.items() if k not in moving}


async def test_another_owner_cannot_tell_anything_from_what_is_not_there(
    alice: Client, bob: Client, anyone: Client, operations: list[Operation]
) -> None:
    ids = await possessions(alice)
    nothing = {name: MISSING if len(value) > 1 else value for name, value in ids.items()}
    before = await state(alice, ids)
    walked = 0

    for operation in operations:
        assert operation.ids <= ids.keys(), f"{operation}: teach `possessions` to make what the path names"
        without_token = await anyone.send(operation.request(anyone, ids))
        assert is_problem(without_token, 401, "unauthorized"), operation
        foreign = await bob.send(operation.request(bob, ids))
        missing = await bob.send(operation.request(bob, nothing))
        assert "ecret" not in foreign.text, operation
        if operation.ids:
            assert is_problem(foreign, 404, "not-found"), operation
            assert seen(foreign, ids) == seen(missing, nothing), operation
            walked += 1
        elif operation.body is not None and "twin_id" in str(operation.body):
            assert seen(foreign, ids) == seen(missing, nothing), operation
            walked += 1

    assert walked > 20
    assert await state(alice, ids) == before


async def test_each_id_of_a_path_is_judged_by_itself(alice: Client, bob: Client, operations: list[Operation]) -> None:
    """Bob's own twin in the path does not open what is below Alice's."""
    hers, his = await possessions(alice), await possessions(bob)
    before = await state(alice, hers)

    for operation in operations:
        for name in operation.ids - {"twin_id", "version"}:
            for mixed in (his | {name: hers[name]}, hers | {name: his[name]}):
                if mixed[name] == hers[name] or "twin_id" in operation.ids:
                    answer = await bob.send(operation.request(bob, mixed))
                    assert is_problem(answer, 404, "not-found"), (operation, name)
    assert await state(alice, hers) == before


async def test_no_list_shows_what_is_of_another(alice: Client, bob: Client, operations: list[Operation]) -> None:
    ids = await possessions(alice)
    await make_twin(bob, twin_name="Bob's own")

    for query in ("", "?q=secret", "?use_case=secret%20use", "?tone=secret%20tone", "?consent=true"):
        text = (await bob.get(f"/api/v1/twins{query}")).text
        assert "ecret" not in text
        assert ids["twin_id"] not in text
    account = (await bob.get("/api/v1/me")).json()
    assert account["twins"] == 1


@pytest.mark.parametrize("scope", ["twins:decide admin", "admin twins:* *", "twins"])
async def test_a_scope_opens_the_gate_and_nothing_else(
    alice: Client, client_of: ClientOf, operations: list[Operation], scope: str
) -> None:
    service = client_of("a-service", scope)
    ids = await possessions(alice)
    gate = {"GET /api/v1/twins/{twin_id}/decision"} if "twins:decide" in scope.split() else set()

    for operation in operations:
        if operation.ids:
            answer = await service.send(operation.request(service, ids))
            if str(operation) in gate:
                assert answer.json()["decision"] is True
            else:
                assert is_problem(answer, 404, "not-found"), operation


async def test_the_owner_is_who_the_token_says_whatever_the_request_says(alice: Client, bob: Client) -> None:
    path = await make_twin(alice)
    sub = (await alice.get("/api/v1/me")).json()["sub"]
    for headers in (
        {"X-User": sub},
        {"X-Ms-Client-Principal-Id": sub},
        {"X-Forwarded-User": sub},
        {"Cookie": f"sub={sub}"},
    ):
        assert is_problem(await bob.get(path, headers=headers), 404, "not-found")
    assert is_problem(await bob.post("/api/v1/twins", json=ALEX | {"owner": sub}), 422, "validation-failed")
    assert is_problem(await bob.get(f"/api/v1/twins?owner={sub}"), 422, "validation-failed")
