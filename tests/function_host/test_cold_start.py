"""The real function app from its first request on: ten at once, and with a store that is down."""

import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import asyncpg
import httpx
import pytest

from devstack.functions_host import ROOT, Worker, WorkerTransport
from devstack.mongod import Mongod
from devstack.postgres import Postgres
from devstack.process import StackError, free_port
from infra.new_secrets import receipt_key
from shared.azure.functions import FunctionApp
from tests.support.app import MISSING, token

RECOVERS_WITHIN = 5.0


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("postgres"), durable=False) as server:
        yield server


@pytest.fixture(scope="module")
def mongod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    with Mongod(tmp_path_factory.mktemp("mongod")) as server:
        yield server


@pytest.fixture
def settings(postgres: Postgres, mongod: Mongod) -> dict[str, str]:
    return {
        "POSTGRES_DSN": postgres.dsn,
        "MONGODB_URI": mongod.uri,
        "JWT_SECRETS": "s" * 32,
        "DIGEST_KEY": "d" * 32,
        "RECEIPT_KEYS": receipt_key(),
    }


@contextlib.contextmanager
def served(settings: dict[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Serve function_app.py through the worker in a process of its own, as `make run-functions` does."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "devstack.serve", "functions", str(port)],
        cwd=ROOT,
        env=os.environ | settings,
        stdin=subprocess.PIPE,
    )
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


async def answered(client: httpx.AsyncClient, path: str) -> httpx.Response:
    """Wait until the server listens."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return await client.get(path)
        except httpx.ConnectError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


async def test_ten_first_requests_at_once_open_one_pool(
    settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pools: list[Any] = []
    create_pool = asyncpg.create_pool

    def counted(*args: Any, **kwargs: Any) -> Any:
        pools.append(create_pool(*args, **kwargs))
        return pools[-1]

    monkeypatch.setattr(asyncpg, "create_pool", counted)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    worker = Worker()
    await worker.start()

    async with httpx.AsyncClient(transport=WorkerTransport(worker), base_url="http://twins.example") as client:
        answers = await asyncio.gather(*(client.get("/ready") for _ in range(10)))

    assert [answer.status_code for answer in answers] == [200] * 10
    assert len(pools) == 1
    await worker.stop()


async def test_a_store_that_is_down_at_the_start_is_a_503_until_it_is_up(
    postgres: Postgres, settings: dict[str, str]
) -> None:
    postgres.stop()
    with served(settings) as (process, url):
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await answered(client, "/health")).status_code == 200
            for _ in range(3):  # the stock adapter remembers a failed start and fails differently then
                down = await client.get("/ready")
                assert down.status_code == 503
                assert down.headers["content-type"] == "application/problem+json"
                assert int(down.headers["retry-after"]) > 0
            assert (await client.get("/health")).status_code == 200

            postgres.start()
            deadline = time.monotonic() + RECOVERS_WITHIN
            while (await client.get("/ready")).status_code != 200:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
        assert process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_server_in_order(settings: dict[str, str], number: signal.Signals) -> None:
    with served(settings) as (process, url):
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await answered(client, "/health")).status_code == 200
        process.send_signal(number)

        assert await asyncio.to_thread(process.wait, 10) == 0


async def test_a_setting_that_cannot_be_used_is_named_and_not_shown(
    settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (settings | {"DIGEST_KEY": "short-but-secret"}).items():
        monkeypatch.setenv(name, value)

    with pytest.raises(StackError, match="DIGEST_KEY") as refused:
        await Worker().start()

    assert "short-but-secret" not in str(refused.value)


async def test_the_http_front_hands_on_paths_queries_bodies_and_methods(settings: dict[str, str]) -> None:
    with served(settings) as (_, url):
        async with httpx.AsyncClient(base_url=url) as client:
            await answered(client, "/health")
            not_found = await client.get("/%FF/%2F?x=1")
            head = await client.head("/health")
            wrong_method = await client.request("TRACE", "/health")
            unauthorized = await client.post("/api/v1/twins", content=b"{}")

    assert not_found.status_code == 404
    assert not_found.headers["content-type"] == "application/problem+json"
    assert (head.status_code, head.content) == (200, b"")
    assert wrong_method.status_code == 405
    assert unauthorized.status_code == 401
    assert unauthorized.headers["www-authenticate"].startswith("Bearer")


def test_the_first_authenticated_answer_takes_at_most_four_times_the_second(environment: dict[str, str]) -> None:
    """Once the work that begins while the host prepares has ended: connections are open, and keys are read."""

    def start() -> dict[str, float]:
        done = subprocess.run(
            [sys.executable, "-m", "bench.cold", f"/api/v1/twins/{MISSING}/decision", token("first")],
            cwd=ROOT,
            env=os.environ | environment | {"LOG_LEVEL": "INFO"},
            check=True,
            capture_output=True,
            text=True,
        )
        found: dict[str, float] = json.loads(done.stdout)
        return found

    starts = [start() for _ in range(5)]
    assert statistics.median(start["first answer"] / start["second answer"] for start in starts) <= 4


async def test_work_that_fails_while_the_host_prepares_is_logged_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def start() -> None:
        raise LookupError("what nobody may read")

    app = FunctionApp(None, start)  # type: ignore[arg-type]
    assert app.starting is not None
    await app.starting

    (line,) = [record for record in caplog.records if record.message == "The app could not prepare itself"]
    assert vars(line)["error"] == "LookupError"
    assert "nobody" not in caplog.text


def test_without_an_event_loop_no_work_begins() -> None:
    async def start() -> None:
        raise AssertionError

    assert FunctionApp(None, start).starting is None  # type: ignore[arg-type]
