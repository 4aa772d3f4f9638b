"""The audit: what was acknowledged is what is stored, over HTTP and by SQL."""

import asyncio
import random
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from pymongo import MongoClient

from tests.resilience.harness.clients import Clients
from tests.resilience.harness.limits import PATIENCE, POOL_MAX, SEED, eventually
from tests.support.database import owner_of
from tests.support.stores import Stores
from twins.bounds import VERIFICATIONS

_SAMPLE = 10
"""Ledgers of an owner that are verified."""


async def audit_twins(stores: Stores, clients: Clients) -> None:
    """Each owner has the acknowledged twins and no other, and their ledgers verify."""
    for owner, acknowledged in clients.twins.items():
        ids = sorted(acknowledged.values())
        assert len(set(ids)) == len(ids), "two keys have one twin"
        assert sorted(await _listed(clients, "/api/v1/twins", owner, "id")) == ids
        async with owner_of(stores) as connection:
            rows = await connection.fetch("SELECT id FROM twins WHERE owner = $1", clients.subject(owner))
        assert sorted(str(row["id"]) for row in rows) == ids
        sample = random.Random(SEED).sample(ids, min(_SAMPLE, len(ids)))
        paths = [f"/api/v1/twins/{twin_id}/ledger/verification" for twin_id in sample]
        for verified in await _get_all(clients, paths, owner, VERIFICATIONS):
            assert (verified["valid"], verified["events"]) == (True, 1)


async def audit_personas(clients: Clients) -> None:
    """Each persona has the acknowledged versions, without a gap."""
    for (owner, twin_id), acknowledged in clients.personas.items():
        await _audit_persona(clients, owner, f"/api/v1/twins/{twin_id}/persona/versions", acknowledged)


async def _audit_persona(clients: Clients, owner: str, path: str, acknowledged: Mapping[int, str]) -> None:
    versions = sorted(await _listed(clients, path, owner, "version"))
    assert versions == list(range(1, len(versions) + 1)), "a version is missing"
    assert set(acknowledged) <= set(versions)
    for stored in await _get_all(clients, [f"{path}/{version}" for version in versions], owner):
        assert stored["summary"] == acknowledged.get(stored["version"], stored["summary"])


async def audit_documents(stores: Stores) -> int:
    """Each version has its document; once the sweep has passed there is no other. Returns how many it removed."""

    def documents(*, age: bool = False) -> set[UUID]:
        with MongoClient[dict[str, Any]](stores.mongod.uri, uuidRepresentation="standard") as client:
            collection = client["twins"]["personas"]
            if age:
                earlier = {"$dateSubtract": {"startDate": "$created_at", "unit": "hour", "amount": 2}}
                collection.update_many({}, [{"$set": {"created_at": earlier}}])
            return {found["_id"] for found in collection.find({}, {"_id": 1})}

    async with owner_of(stores) as connection:
        versions = {row[0] for row in await connection.fetch("SELECT document_id FROM persona_versions")}
        found = await asyncio.to_thread(documents, age=True)
        assert versions <= found, "a version has no document"
        await connection.execute("UPDATE sweeps SET swept_until = '2000-01-01Z'")

    async def orphans() -> int:
        return len(await asyncio.to_thread(documents) - versions)

    await eventually(orphans, 0, within=PATIENCE)  # some hundreds every two seconds
    assert await asyncio.to_thread(documents) == versions
    return len(found - versions)


async def _listed(clients: Clients, path: str, owner: str, member: str) -> list[Any]:
    found: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await _get(clients, f"{path}?limit=100" + (f"&cursor={cursor}" if cursor else ""), owner)
        found += [item[member] for item in page["items"]]
        cursor = page["next_cursor"]
    return found


async def _get_all(clients: Clients, paths: Iterable[str], owner: str, at_once: int = POOL_MAX) -> list[dict[str, Any]]:
    places = asyncio.Semaphore(at_once)

    async def get(path: str) -> dict[str, Any]:
        async with places:
            return await _get(clients, path, owner)

    return await asyncio.gather(*map(get, paths))


async def _get(clients: Clients, path: str, owner: str) -> dict[str, Any]:
    answer = await clients.send("GET", path, owner)
    assert answer is not None
    assert answer.status_code == 200, answer.text
    got: dict[str, Any] = answer.json()
    return got
