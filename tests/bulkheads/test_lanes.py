"""Work that is heavy for the processor holds up nothing but its own kind."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from shared.http import arguments
from shared.lane import Lane
from tests.support.app import Client, is_problem, make_twin
from tests.support.consent import verify
from twins.ledger import verification
from twins.persona import documents, service

LARGE = {"facts": [{"text": "Ä fact. " * 20} for _ in range(200)]}
SMALL = {"summary": "Alex helps customers."}


@asynccontextmanager
async def full(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Occupy a lane for the block, so that requests soon give up."""
    go_on = threading.Event()
    monkeypatch.setattr(lane, "_within", 0.3)
    busy = asyncio.create_task(Lane.run(lane, go_on.wait, 20))
    await asyncio.sleep(0.05)
    try:
        yield
    finally:
        go_on.set()
        await asyncio.gather(busy, return_exceptions=True)


async def works(client: Client, path: str) -> dict[str, int]:
    """Return the status of each kind of work, asked for at once."""
    persona = f"{path}/persona"
    requests = {
        "gate": client.get(f"{path}/decision"),
        "list": client.get("/api/v1/twins"),
        "verification": client.get(f"{path}/ledger/verification"),
        "diff": client.get(f"{persona}/diff", params={"from": 1, "to": 2}),
        "small read": client.get(f"{persona}/versions/1"),
        "large read": client.get(f"{persona}/versions/2"),
        "large body": client.put(f"{path}/persona", json=LARGE | {"unknown": 1}),
    }
    answers = await asyncio.gather(*requests.values())
    assert all(answer.status_code != 503 or is_problem(answer, 503, "unavailable") for answer in answers)
    return {name: answer.status_code for name, answer in zip(requests, answers, strict=True)}


ANSWERED = {
    "gate": 200,
    "list": 200,
    "verification": 200,
    "diff": 200,
    "small read": 200,
    "large read": 200,
    "large body": 422,
}


@pytest.mark.parametrize(
    ("lane", "late"),
    [
        (verification.REQUESTED, {"verification"}),
        (service._DIFFS, {"diff"}),
        (documents._LANE, {"large read", "diff"}),  # which compares two documents
        (arguments._BODIES, {"large body"}),
    ],
    ids=["verification", "diff", "documents", "bodies"],
)
async def test_a_full_lane_is_503_for_its_own_kind_and_nobody_else(
    alice: Client, monkeypatch: pytest.MonkeyPatch, lane: Lane, late: set[str]
) -> None:
    path = await make_twin(alice)
    for persona in (SMALL, LARGE):
        assert (await alice.put(f"{path}/persona", json=persona)).status_code == 200
    assert await works(alice, path) == ANSWERED

    async with full(lane, monkeypatch):
        assert await works(alice, path) == {name: 503 if name in late else status for name, status in ANSWERED.items()}

    assert await works(alice, path) == ANSWERED
    assert (await verify(alice, path))["valid"]


async def test_a_large_body_is_read_as_strictly_as_a_small_one(alice: Client) -> None:
    persona = f"{await make_twin(alice)}/persona"
    large = json.dumps(LARGE)
    for body, status in (
        (large[:-1], 400),
        (large[:-1] + ',"facts":[]}', 400),
        (large[:-1] + ',"summary":"\\ud800"}', 400),
        (large[:-1] + ',"summary":7}', 422),
        (large, 200),
    ):
        answer = await alice.put(persona, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == status, answer.text
    merged = await alice.patch(persona, json={"greeting": "Hi.", "style": {"humor": "dry"}})
    assert (merged.json()["greeting"], len(merged.json()["facts"])) == ("Hi.", 200)
