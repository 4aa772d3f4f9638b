"""`/health` and `/ready`: without a token, for machines."""

import asyncio
from dataclasses import replace

import httpx
import pytest

from devstack.process import free_port
from shared.auth import Authenticator
from shared.azure.identity import VaultSecret
from shared.digests import Digests
from shared.issuers import Issuer
from tests.support.app import SECRET, Client, is_problem
from tests.support.azure_server import VAULT_HOST, VAULT_TOKEN, Credential, KeyVault
from twins.app import create_app
from twins.settings import Settings


@pytest.mark.parametrize(("path", "status"), [("/health", "healthy"), ("/ready", "ready")])
async def test_a_healthy_service_says_so_without_a_token(anyone: Client, path: str, status: str) -> None:
    got = await anyone.get(path)

    assert (got.status_code, got.json()) == (200, {"status": status})
    assert got.headers["cache-control"] == "no-store"
    head = await anyone.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]


async def test_a_wrong_token_does_not_make_it_unhealthy(anyone: Client) -> None:
    for path in ("/health", "/ready"):
        assert (await anyone.get(path, headers={"Authorization": "Bearer x"})).status_code == 200


@pytest.mark.parametrize("store", ["postgres_dsn", "mongodb_uri"])
async def test_without_one_store_it_is_healthy_and_not_ready(settings: Settings, store: str) -> None:
    nowhere = {
        "postgres_dsn": f"postgresql://twins_app:x@127.0.0.1:{free_port()}/twins",
        "mongodb_uri": f"mongodb://127.0.0.1:{free_port()}",
    }[store]
    # Two seconds is what /ready waits for; the drivers may give up sooner, so that the test is quick.
    changes = {store: type(settings.postgres_dsn)(nowhere), "mongodb_timeout": 0.3}
    app = create_app(settings.model_copy(update=changes))
    async with Client(transport=httpx.ASGITransport(app), base_url="http://twins.test") as client:
        refused = await client.get("/ready")
        assert is_problem(refused, 503, "unavailable")
        assert int(refused.headers["retry-after"]) > 0
        assert (await client.get("/health")).json() == {"status": "healthy"}
    await app.close()


async def status_of(client: Client, expected: int) -> httpx.Response:
    """Return the answer of `/ready` once it has this status."""
    async with asyncio.timeout(5):
        while (answer := await client.get("/ready")).status_code != expected:
            await asyncio.sleep(0.02)
    return answer


async def test_it_is_ready_while_a_key_can_verify_hs256_tokens(settings: Settings) -> None:
    in_vault = settings.model_copy(update={"key_vault_url": f"https://{VAULT_HOST}", "key_vault_refresh": 0.05})
    app = create_app(settings)
    async with KeyVault() as vault, Client(transport=httpx.ASGITransport(app), base_url="http://twins.test") as client:
        transport = vault.transport()
        options = {"credential": Credential(VAULT_TOKEN), "transport": transport, "timeout": 1, "pause": 0.05}
        secret = VaultSecret(in_vault, "jwt-secret", **options)
        ours = Authenticator(in_vault, secret, Digests("d" * 32))
        app.state.context = replace(app.state.context, authenticator=ours)

        refused = await client.get("/ready")
        assert is_problem(refused, 503, "unavailable")
        assert "the keys of tokens" in refused.json()["detail"]
        assert (await client.get("/health")).status_code == 200
        version = vault.add("jwt-secret", SECRET)
        await status_of(client, 200)
        version.enabled = False
        assert is_problem(await status_of(client, 503), 503, "unavailable")
        await transport.session.close()
    await app.close()


async def test_where_hs256_is_off_it_is_ready_without_a_key_and_asks_no_provider(settings: Settings) -> None:
    row = {"issuer": "https://away.example", "audience": ["x"], "subject_claim": "sub", "algorithms": ["RS256"]}
    away = Issuer.model_validate(row | {"jwks_uri": f"http://127.0.0.1:{free_port()}/keys"})
    app = create_app(settings.model_copy(update={"jwt_secrets": (), "auth_issuers": (away,)}))
    async with Client(transport=httpx.ASGITransport(app), base_url="http://twins.test") as client:
        assert (await client.get("/ready")).status_code == 200
    await app.close()
