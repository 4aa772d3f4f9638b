"""The comparison is fair: all applications answer the same, and the plain ones send PostgreSQL the same."""

import itertools
import re
import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from bench import data, stack, workloads
from bench.measure import APPS
from bench.stack import App, Stack
from bench.workloads import Workloads
from devstack.postgres import SUPERUSER

PEERS = [name for name in APPS if name != "ours"]
ROWS = 10_000
"""Enough that the last page is not the first, and that each owner has a hundred twins."""
DIFFERENT = {"id", "created_at", "updated_at", "evaluated_at", "version", "next_cursor"}
"""What two requests may be told differently."""


@pytest.fixture(scope="module")
def stores() -> Iterator[Stack]:
    with stack.running() as running:
        yield running


@pytest.fixture(scope="module")
def apps(stores: Stack) -> Iterator[dict[str, App]]:
    database = stores.database(ROWS)
    superuser = stores.postgres.dsn_of(SUPERUSER, database.name)
    data.execute(superuser, f"ALTER DATABASE {database.name} SET log_statement = 'all'")
    with ExitStack() as running:
        yield {name: running.enter_context(App(name, database)) for name in APPS}


@pytest.fixture(scope="module")
def work(apps: dict[str, App]) -> Workloads:
    return Workloads(apps["ours"])


def comparable(answer: Any) -> Any:
    if isinstance(answer, list):
        return [comparable(item) for item in answer]
    if isinstance(answer, dict):
        return {name: comparable(value) for name, value in answer.items() if name not in DIFFERENT}
    return answer


@pytest.mark.parametrize("name", [name for name in workloads.ALL if name != "mixed 90/10"])
@pytest.mark.parametrize("peer", PEERS)
def test_a_peer_answers_as_ours_does(apps: dict[str, App], work: Workloads, peer: str, name: str) -> None:
    status, expected = workloads.call(apps["ours"], work.of(apps["ours"], name)[0])
    found_status, found = workloads.call(apps[peer], work.of(apps[peer], name)[0])
    assert (found_status, comparable(found)) == (status, comparable(expected))
    assert status in {200, 201}
    assert set(found) == set(expected)


def test_a_batch_asks_a_hundred_questions(apps: dict[str, App], work: Workloads) -> None:
    for request in work.of(apps["ours"], "batch of 100"):
        answers = workloads.check(apps["ours"], request)["items"]
        assert [answer["reason"] for answer in answers] == ["granted"] * 100


@pytest.mark.parametrize("peer", PEERS)
def test_the_pages_of_a_peer_hold_the_same_twins(apps: dict[str, App], work: Workloads, peer: str) -> None:
    for name in ("list, first page", "list, deep page"):
        pages = [workloads.check(app, work.of(app, name)[0]) for app in (apps["ours"], apps[peer])]
        first, second = ([item["id"] for item in page["items"]] for page in pages)
        assert first == second
        assert len(first) == workloads.PAGE
    assert second[0] != workloads.check(apps[peer], work.of(apps[peer], "list, first page")[0])["items"][0]["id"]


@pytest.mark.parametrize("app", APPS)
def test_another_owners_twin_is_not_found(apps: dict[str, App], work: Workloads, app: str) -> None:
    foreign = data.some_twins(apps[app].database.owner_dsn, data.owner(1), 1)[0]
    request = work.request("GET", f"{workloads.TWINS}/{foreign}/decision?purpose=general", data.owner(2))
    assert workloads.call(apps[app], request)[0] == 404


@pytest.mark.parametrize("app", [name for name in APPS if name != "limit"])
def test_a_token_with_another_key_is_refused(apps: dict[str, App], work: Workloads, app: str) -> None:
    request = re.sub(rb"(Bearer .*?\..*?\.)[\w-]{4}", rb"\1AAAA", work.of(apps[app], "gate")[0])
    assert workloads.call(apps[app], request)[0] == 401


@pytest.mark.parametrize("name", ["gate", "get", "list, first page", "create", "patch", "persona get", "persona put"])
@pytest.mark.parametrize("peer", ["hand-written", "limit"])
def test_a_plain_peer_sends_the_statements_of_ours(
    stores: Stack, apps: dict[str, App], work: Workloads, peer: str, name: str
) -> None:
    expected = _usual_statements(stores, apps["ours"], work, name)
    assert expected
    assert _usual_statements(stores, apps[peer], work, name) == expected


def _usual_statements(stores: Stack, app: App, work: Workloads, name: str) -> tuple[str, ...]:
    """Return what most of a few requests send: a new connection asks more, and the outbox is drained in between."""
    return statistics.mode(_statements(stores, app, work, name) for _ in range(7))


_number = itertools.count(10)


def _statements(stores: Stack, app: App, work: Workloads, name: str) -> tuple[str, ...]:
    """Return what PostgreSQL has logged of one request."""
    requests = work.of(app, name)
    before = stores.postgres.log.stat().st_size
    workloads.check(app, requests[next(_number) % len(requests)])
    log = stores.postgres.log.read_bytes()[before:].decode()
    entries = re.split(r"^(?=\d{4}-\d\d-\d\d )", log, flags=re.MULTILINE)
    matches = (re.search(r"LOG:  (?:statement|execute [^:]*): (.*)", entry, re.DOTALL) for entry in entries)
    statements = (" ".join(match[1].split()).rstrip(";").upper() for match in matches if match)
    # asyncpg's default reset of a connection that goes back to the pool.
    return tuple(text for text in statements if not text.startswith("SELECT PG_ADVISORY_UNLOCK_ALL"))
