"""One account has so many requests at once, and its noes share nothing with its reads."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager

import httpx
import pytest

from shared.auth import CurrentUser
from shared.http.bounds import COMMON
from shared.http.problems import TooManyRequests
from shared.stores.postgres import Priority
from tests.support.app import Client, is_problem, make_twin, token
from tests.support.consent import grant, location
from twins.app import create_app
from twins.bounds import DECISION, NO, VERIFICATIONS
from twins.context import Context
from twins.settings import Settings
from twins.twin import routes

REQUESTS, CONCURRENCY, DECISIONS, NOES = 3, 2, 4, 2
WAITS = {"1", "2", "3", "4", "5", "6", "7"}

type ClientFor = Callable[[str], Client]


@pytest.fixture
async def bounded(settings: Settings) -> AsyncIterator[tuple[Context, ClientFor]]:
    """An application whose bounds are small, on a pool whose connections a test can hold."""
    update = {
        "account_requests": REQUESTS,
        "account_concurrency": CONCURRENCY,
        "account_decisions": DECISIONS,
        "account_noes": NOES,
        "postgres_pool_max": 5,
        "postgres_pool_reserved": 2,
        "postgres_acquire_timeout": 1.0,
    }
    app = create_app(settings.model_copy(update=update))

    def client(sub: str) -> Client:
        headers = {"Authorization": f"Bearer {token(sub)}"}
        return Client(transport=httpx.ASGITransport(app), base_url="http://twins.test", headers=headers)

    yield app.state.context, client
    await app.close()


@asynccontextmanager
async def stuck(context: Context) -> AsyncIterator[None]:
    """Hold every connection for the block, so that requests under way stay so."""
    async with AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(context.postgres.connection(Priority.HIGHEST))
        yield


async def at_once(context: Context, count: int, send: Callable[[], Awaitable[httpx.Response]]) -> Counter[int]:
    """Send so many requests while none can be answered, and return their statuses."""
    async with stuck(context):
        sent = [asyncio.ensure_future(send()) for _ in range(count)]
        await asyncio.sleep(0.2)
        refused = [task.result() for task in sent if task.done()]
    answers = await asyncio.gather(*sent)
    for answer in refused:
        assert is_problem(answer, 429, "too-many-requests")
        assert answer.headers["retry-after"] in WAITS
    return Counter(answer.status_code for answer in answers)


def test_what_is_refused_together_does_not_come_back_together() -> None:
    assert {TooManyRequests("Too many.").headers["Retry-After"] for _ in range(300)} == WAITS


async def test_an_account_has_so_many_requests_at_once_and_then_429(bounded: tuple[Context, ClientFor]) -> None:
    context, client = bounded
    loud = client("loud")
    path = await make_twin(loud)

    assert await at_once(context, 10, lambda: loud.get(path)) == {200: REQUESTS, 429: 10 - REQUESTS}
    assert await at_once(context, 10, lambda: loud.get(f"{path}/decision")) == {200: DECISIONS, 429: 10 - DECISIONS}
    verify = f"{path}/ledger/verification"
    assert await at_once(context, 10, lambda: loud.get(verify)) == {200: VERIFICATIONS, 429: 10 - VERIFICATIONS}
    assert (await loud.get(path)).status_code == 200


async def test_others_are_not_refused_and_neither_is_the_same_account_at_the_gate_or_with_a_no(
    bounded: tuple[Context, ClientFor],
) -> None:
    context, client = bounded
    loud, other = client("loud-2"), client("other")
    paths = [await make_twin(loud, principals=["loud-2"]) for _ in range(4)]
    consent = await grant(loud, paths[0], "voice")
    quiet = await make_twin(other)
    async with stuck(context):
        full = [asyncio.create_task(loud.get(path)) for path in [*paths, *paths]]
        await asyncio.sleep(0.1)
        assert sum(task.done() for task in full) == len(full) - REQUESTS
        assert (await loud.patch(paths[0], json={"consent": True})).status_code == 429
        sent = [
            asyncio.create_task(request)
            for request in (
                other.get(quiet),
                other.get(f"{quiet}/decision"),
                loud.get(f"{paths[0]}/decision"),
                loud.patch(paths[1], json={"consent": False}),
                loud.delete(paths[2]),
            )
        ]
        await asyncio.sleep(0.1)
        assert [task.result().status_code for task in sent if task.done()] == []
        for no in (
            loud.post(f"{location(consent)}/withdraw"),
            loud.post(f"{paths[3]}/refusals"),
            loud.patch(paths[3], json={"consent": False}),
            loud.delete("/api/v1/me"),
        ):  # beyond the bound of noes, which is the person's own
            assert (await no).status_code == 429
    assert [answer.status_code for answer in await asyncio.gather(*sent)] == [200, 200, 200, 200, 204]
    await asyncio.gather(*full)
    assert (await loud.delete("/api/v1/me")).status_code == 202


async def test_an_account_waits_for_itself_and_nobody_else_does(bounded: tuple[Context, ClientFor]) -> None:
    context, client = bounded
    loud, other = client("loud-5"), client("other-5")
    path = await make_twin(loud, principals=["loud-5"])
    quiet = await make_twin(other)
    async with AsyncExitStack() as stack:
        for _ in range(CONCURRENCY):
            user = CurrentUser(sub="loud-5", owns=None, scopes=frozenset(), logged={}, subject="loud-5")
            await stack.enter_async_context(context.bounds.turn(COMMON, user, routes.__name__))
        waiting = [asyncio.create_task(loud.get(path)), asyncio.create_task(loud.patch(path, json={"tone": "calm"}))]
        for sent in (
            other.get(quiet),
            loud.get(f"{path}/decision"),
            loud.get(f"{path}/ledger/verification"),
            loud.put(f"{path}/persona", json={"summary": "Of another room."}),
            loud.post(f"{path}/refusals"),
            loud.patch(path, json={"consent": False}),
        ):
            assert (await sent).status_code in (200, 201)
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in waiting)
        waiting.append(asyncio.create_task(loud.get(path)))
        await asyncio.sleep(0.1)
        waiting.pop().cancel()
    assert [(await task).status_code for task in waiting] == [200, 200]
    assert not context.bounds._turns


async def test_a_refused_request_is_answered_before_its_body_is_read(bounded: tuple[Context, ClientFor]) -> None:
    context, client = bounded
    loud = client("loud-3")
    path = await make_twin(loud)

    async def endless() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    async with stuck(context):
        full = [asyncio.create_task(loud.get(path)) for _ in range(REQUESTS)]
        await asyncio.sleep(0.1)
        headers = {"Content-Type": "application/json"}
        answer = await loud.put(f"{path}/persona", content=endless(), headers=headers)
        assert answer.status_code == 429
    await asyncio.gather(*full)


async def test_failures_and_cancelled_requests_give_their_places_back(bounded: tuple[Context, ClientFor]) -> None:
    context, client = bounded
    loud = client("loud-4")
    path = await make_twin(loud)
    for _ in range(5):
        assert (await loud.get(f"{path}?x=1")).status_code == 422
        assert (await loud.patch(path, json={"consent": 7})).status_code == 422
        assert (await loud.patch(path, content=b"[", headers={"Content-Type": "application/json"})).status_code == 400
    async with stuck(context):
        gone = [asyncio.create_task(loud.get(path)) for _ in range(REQUESTS)]
        await asyncio.sleep(0.1)
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
    assert (await loud.get(path)).status_code == 200
    assert not any(now for _, now in context.bounds._kinds.values())


async def test_colleagues_share_a_bound_but_each_has_their_own_noes(bounded: tuple[Context, ClientFor]) -> None:
    context, _ = bounded
    ann, bea = (
        CurrentUser(sub=name, owns="shop", scopes=frozenset(), logged={}, subject=name) for name in ("ann", "bea")
    )
    with ExitStack() as stack:
        for kind, count in ((COMMON, REQUESTS), (NO, NOES)):
            for _ in range(count):
                stack.enter_context(context.bounds.place(kind, ann))
        with pytest.raises(TooManyRequests), context.bounds.place(COMMON, bea):
            pass
        with pytest.raises(TooManyRequests), context.bounds.place(NO, ann):
            pass
        with context.bounds.place(NO, bea), context.bounds.place(DECISION, bea):
            pass
