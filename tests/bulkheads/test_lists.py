"""A page of a filtered list looks at a bounded number of twins, however many the owner has."""

import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from tests.support.app import Client, ClientOf, make_twin
from tests.support.database import superuser
from tests.support.stores import Stores
from twins.twin import service

MANY = 100_000
QUICK = 1.0
"""Seconds for one page, on a machine that does other things too."""

# As many as all others together, but without consent; each thousandth has a rare name.
_FILL = """
    WITH made AS (
        INSERT INTO twins (owner, twin_name, use_case, tone)
        SELECT $1, CASE WHEN n % 1000 = 7 THEN 'Zoë Straße ' || n ELSE 'Alex ' || n END,
               CASE n WHEN 5 THEN 'oldest' ELSE 'support' END, 'warm'
        FROM generate_series(1, $2::int) n RETURNING id
    )
    INSERT INTO consent_states (twin_id, purpose, no) SELECT id, 'general', 'withdrawn' FROM made
"""


@pytest.fixture(scope="module")
async def owner(stores: Stores) -> AsyncIterator[str]:
    """An owner with 100,000 twins that may not be used."""
    name = f"many-{uuid4()}"
    async with superuser(stores) as connection:
        # Without the trigger that counts them one by one, for which one transaction has too many.
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(_FILL, name, MANY)
        await connection.execute("INSERT INTO account_usage VALUES ($1, $2, 0, 0)", name, MANY)
        await connection.execute("ANALYZE twins, consent_states")
        yield name
        await connection.execute(
            "DELETE FROM consent_states WHERE twin_id IN (SELECT id FROM twins WHERE owner = $1)", name
        )
        await connection.execute("DELETE FROM twins WHERE owner = $1", name)
        await connection.execute("DELETE FROM account_usage WHERE account = $1", name)
        await connection.execute("ANALYZE twins, consent_states")


async def page(client: Client, **filters: Any) -> dict[str, Any]:
    """Return a page, which has to come quickly."""
    began = time.monotonic()
    answer = await client.get("/api/v1/twins", params={"limit": 100} | filters)
    assert answer.status_code == 200, answer.text
    assert time.monotonic() - began < QUICK
    assert (answer.json()["next_cursor"] is None) == ("link" not in answer.headers)
    found: dict[str, Any] = answer.json()
    return found


async def pages(client: Client, **filters: Any) -> tuple[list[str], int]:
    """Follow the list to its end, and return the names and the number of pages."""
    names: list[str] = []
    found, number = await page(client, **filters), 1
    while True:
        names += [twin["twin_name"] for twin in found["items"]]
        if found["next_cursor"] is None:
            return names, number
        found, number = await page(client, cursor=found["next_cursor"], **filters), number + 1


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({}, 100),
        ({"consent": "false"}, 100),
        ({"consent": "true"}, 0),
        ({"q": "alex"}, 100),
        ({"q": "a"}, 100),
        ({"q": "ZOË STRASSE"}, 100),
        ({"q": "zoë", "consent": "true"}, 0),
        ({"q": "zoë", "consent": "false"}, 100),
        ({"q": "nobody is called so"}, 0),
        ({"q": "%"}, 0),
        ({"q": "_____"}, 0),
        ({"q": r"\\\\"}, 0),
        ({"q": "alex 5"}, 0),  # many, and none among the newest: the cursor goes on
        ({"q": "alex 77777"}, 1),
        ({"use_case": "oldest"}, 0),
        ({"tone": "cold", "q": "alex"}, 0),
    ],
    ids=str,
)
async def test_the_first_page_comes_quickly(
    client_of: ClientOf, owner: str, filters: dict[str, str], count: int
) -> None:
    found = await page(client_of(owner), **filters)

    assert len(found["items"]) == count


async def test_the_last_item_is_found_by_going_on(client_of: ClientOf, owner: str) -> None:
    names, number = await pages(client_of(owner), use_case="oldest")

    assert names == ["Alex 5"]
    assert number == -(-MANY // service._SCANNED) or number == MANY // service._SCANNED + 1


async def test_a_rare_name_needs_one_page_and_those_of_others_are_not_looked_at(
    client_of: ClientOf, owner: str, bob: Client
) -> None:
    await make_twin(bob, twin_name="Zoë Straße of Bob")
    names, number = await pages(client_of(owner), q="straße")
    assert len(names) == len(set(names)) == MANY // 1000
    assert number == 1
    assert names == sorted(names, key=lambda name: -int(name.split()[-1]))
    assert await pages(bob, q="STRASSE") == (["Zoë Straße of Bob"], 1)
    assert await pages(bob, q="alex") == ([], 1)


@pytest.mark.parametrize("q", ["e", "ex", "lex", "100%_x", "\\", "%", "日本", "日本語テ", "ĞÜ"])
async def test_each_way_finds_the_same(alice: Client, monkeypatch: pytest.MonkeyPatch, q: str) -> None:
    names = ["Alex", "ALEXA", "100%_x", "100ab x", "back\\slash", "日本語テスト", "ğü", "Ğü und Alex", "Zoë"]
    for name in names:
        await make_twin(alice, twin_name=name)
    expected = [name for name in reversed(names) if q.casefold() in name.casefold()]
    for scanned in (1, 2, 3, 50):
        monkeypatch.setattr(service, "_SCANNED", scanned)
        for limit in (1, 2, 100):
            assert (await pages(alice, q=q, limit=limit))[0] == expected


async def test_pages_with_a_filter_neither_repeat_nor_skip(alice: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_SCANNED", 3)
    for number in range(20):
        await make_twin(alice, twin_name=f"Twin {number}", consent=number % 7 == 0, tone=f"tone {number % 2}")
    for limit in (1, 2, 3, 4, 100):
        assert (await pages(alice, consent="true", limit=limit))[0] == ["Twin 14", "Twin 7", "Twin 0"]
        assert len((await pages(alice, tone="tone 1", limit=limit))[0]) == 10
        assert len((await pages(alice, limit=limit))[0]) == 20
