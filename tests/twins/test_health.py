"""`/health` and `/ready`: without a token, for machines."""

import httpx
import pytest

from devstack.process import free_port
from shared.settings import Settings
from tests.conftest import Client, is_problem
from twins.app import create_app


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
