"""Searches of the logs that docs/OPERATIONS.md has, run on the lines that requests write."""

import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest

from devstack.local import ROOT
from tests.support.app import Client, ClientOf, make_twin

DRILL = (ROOT / "docs" / "OPERATIONS.md").read_text().partition("## Restore drill")[2].partition("\n## ")[0]
SEARCHES = re.findall(r"```kusto\n(.*?)```", DRILL, re.DOTALL)
CONDITION = re.compile(r"customDimensions\.(\w+) (?:== (\".*?\")|in \((.*?)\))")


def search(query: str, log: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Return the lines that a query finds: all of its conditions but the time are on `customDimensions`."""
    steps = re.split(r"\band\b|\|", query)
    conditions = {found[1]: re.findall(r'"(.*?)"', found[2] or found[3]) for found in CONDITION.finditer(query)}
    assert len(steps) == len(conditions) + 2, "the table, the time, and nothing that this does not read"
    return [
        vars(record)
        for record in log.records
        if all(str(vars(record).get(name)) in values for name, values in conditions.items())
    ]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, "shared"), caplog.at_level(logging.INFO, "twins"):
        yield caplog


async def test_the_drill_finds_what_was_erased(alice: Client, bob: Client, log: pytest.LogCaptureFixture) -> None:
    erased, kept, other = await make_twin(alice), await make_twin(alice), await make_twin(bob)
    await alice.delete(erased)
    await alice.delete(other)  # is not hers
    await alice.patch(kept, json={"consent": False})
    refusal = (await bob.post(f"{other}/refusals", json={"purposes": ["voice"]})).json()["id"]
    await bob.delete(f"{other}/refusals/{refusal}")
    await bob.delete("/api/v1/me")

    lines = search(SEARCHES[0], log)
    assert [line["route"] for line in lines] == ["/api/v1/twins/{twin_id}", "/api/v1/me"]
    assert erased.endswith(lines[0]["twin_id"])
    assert len(lines[1]["owner"]) == 16


async def test_the_drill_finds_each_no(alice: Client, client_of: ClientOf, log: pytest.LogCaptureFixture) -> None:
    person = client_of("a-person-who-refuses")
    stopped, refused, live = [await make_twin(alice, principals=["a-person-who-refuses"]) for _ in range(3)]
    await alice.patch(stopped, json={"consent": False})
    await person.post(f"{refused}/refusals", json={})
    await alice.patch(live, json={"tone": "warm"})
    await person.post(f"{live}/refusals", json={"purposes": "wrong"})

    lines = search(SEARCHES[1], log)
    assert [line["transition"] for line in lines] == ["withdrawn", "refused"]
    assert [path.rpartition("/")[2] for path in (stopped, refused)] == [line["twin_id"] for line in lines]
