"""The real provider of `make run OIDC=1` against both fronts: sign in, change keys under load, be away, come back."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Self

import httpx
import pytest
from jose import jwt

from devstack.process import StackError
from devstack.provider import AUDIENCE, Provider, new_key, sign_in
from shared import key_sets
from shared.key_sets import COOLDOWN
from tests.support.app import ALEX, FRONTS, Client, front, is_problem

AT_ONCE = 8


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    with Provider(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture(params=FRONTS)
async def client(
    request: pytest.FixtureRequest, environment: dict[str, str], provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Client]:
    """A new application, which knows no key yet."""
    monkeypatch.setenv("AUTH_ISSUERS", json.dumps([provider.entry()]))
    async with (
        front(request.param) as transport,
        httpx.AsyncClient(transport=transport, base_url="http://twins.test") as opened,
    ):
        yield opened


async def signed_in(provider: Provider, sub: str = "alice", scope: str = "") -> dict[str, str]:
    return {"Authorization": f"Bearer {await asyncio.to_thread(sign_in, provider.issuer, sub, scope)}"}


class Load:
    """Requests without a pause, by whoever has signed in so far."""

    def __init__(self, client: Client, *headers: dict[str, str]) -> None:
        self.headers = list(headers)
        self.statuses: Counter[int] = Counter()
        self.slowest = 0.0
        self._client = client

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._ask(n)) for n in range(AT_ONCE)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _ask(self, n: int) -> None:
        while True:
            n += 1
            begun = time.monotonic()
            answer = await self._client.get("/api/v1/me", headers=self.headers[n % len(self.headers)])
            self.statuses[answer.status_code] += 1
            self.slowest = max(self.slowest, time.monotonic() - begun)
            await asyncio.sleep(0.001)


async def test_sign_in_and_call(client: Client, provider: Provider) -> None:
    headers = await signed_in(provider, "alice", "twins:decide")
    made = await client.post("/api/v1/twins", json=ALEX, headers=headers)
    me = (await client.get("/api/v1/me", headers=headers)).json()

    assert made.status_code == 201
    assert (me["issuer"], me["subject"], me["client"]) == (provider.issuer, "alice", "try-out")
    assert me["scopes"] == ["twins:decide"]
    twin = made.headers["location"]
    assert (await client.get(twin, headers=await signed_in(provider, "bob"))).status_code == 404
    decided = await client.get(f"{twin}/decision", headers=await signed_in(provider, "bob", "twins:decide"))
    assert decided.json()["decision"] is True
    reader = await signed_in(provider, "alice", "twins:read")
    assert (await client.get(twin, headers=reader)).status_code == 200
    assert is_problem(await client.delete(twin, headers=reader), 403, "insufficient-scope")


async def test_colleagues_share_by_a_claim_of_the_provider(
    environment: dict[str, str], provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTH_ISSUERS", json.dumps([provider.entry(owner_claim="org_id")]))
    async with (
        front("asgi") as transport,
        httpx.AsyncClient(transport=transport, base_url="http://twins.test") as client,
    ):
        made = await client.post("/api/v1/twins", json=ALEX, headers=await signed_in(provider, "alice@acme"))
        twin = made.headers["location"]
        assert (await client.get(twin, headers=await signed_in(provider, "bob@acme"))).status_code == 200
        assert (await client.get(twin, headers=await signed_in(provider, "eve@umbrella"))).status_code == 404
        assert is_problem(await client.get(twin, headers=await signed_in(provider, "eve")), 403, "no-owner")


async def test_its_id_token_and_what_it_did_not_sign_are_refused(client: Client, provider: Provider) -> None:
    good = (await signed_in(provider))["Authorization"].removeprefix("Bearer ")
    head, body, signature = good.split(".")
    other = new_key()
    claims = jwt.get_unverified_claims(good)
    forged = jwt.encode(claims, other, "RS256", headers={"kid": jwt.get_unverified_header(good)["kid"]})
    untyped = jwt.encode(claims, provider.keys[0], "RS256", headers={"kid": provider.keys[0]["kid"]})

    for bad in (f"{head}.{body}.{signature[:-4]}AAAA", forged, untyped):
        answer = await client.get("/api/v1/me", headers={"Authorization": f"Bearer {bad}"})
        assert is_problem(answer, 401, "unauthorized")
    assert claims["aud"] == AUDIENCE


async def test_its_keys_are_changed_under_load_without_a_failed_request(client: Client, provider: Provider) -> None:
    old = await signed_in(provider)
    assert (await client.get("/api/v1/me", headers=old)).status_code == 200
    async with Load(client, old) as load:
        await asyncio.sleep(0.3)
        provider.keys = [new_key(), *provider.keys]
        await asyncio.to_thread(provider.stop)
        await asyncio.to_thread(provider.start)
        new = [await signed_in(provider, f"user-{n}") for n in range(5)]
        load.headers += new
        await asyncio.sleep(1)

    kids = {jwt.get_unverified_header(it["Authorization"].removeprefix("Bearer "))["kid"] for it in (old, *new)}
    assert len(kids) == 2
    assert load.statuses.keys() == {200}
    assert load.statuses.total() > 100


async def test_it_is_away_for_longer_than_keys_are_fresh_and_comes_back_with_others(
    client: Client, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_sets, "SOFT", 0.2)
    old = await signed_in(provider)
    assert (await client.get("/api/v1/me", headers=old)).status_code == 200
    before = sum(n for (issuer, error), n in key_sets.fetches.items() if issuer == provider.issuer and error)
    await asyncio.to_thread(provider.stop)
    async with Load(client, old) as load:
        await asyncio.sleep(4)
    failed = sum(n for (issuer, error), n in key_sets.fetches.items() if issuer == provider.issuer and error) - before

    assert load.statuses.keys() == {200}
    assert 1 <= failed <= 4  # with pauses that grow, and nobody waited for them
    assert load.slowest < key_sets.TIMEOUT
    provider.keys = [new_key()]
    await asyncio.to_thread(provider.start)
    new = await signed_in(provider)
    begun = time.monotonic()
    while (await client.get("/api/v1/me", headers=new)).status_code != 200:
        assert time.monotonic() - begun < COOLDOWN
        await asyncio.sleep(0.05)
    assert is_problem(await client.get("/api/v1/me", headers=old), 401, "unauthorized")


def test_a_provider_that_is_not_there_is_said(provider: Provider) -> None:
    with pytest.raises(StackError, match="ConnectError"):
        sign_in("http://127.0.0.1:9", "alice")
