"""The gate of other owners while one account does its worst: as much at once as it can send of all heavy work."""

import asyncio
import itertools
import json
import os
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx

from bench import data
from bench.workloads import TWINS

LOUD = "loud"
CLIENTS = 32
"""At once of each kind of work."""
TEXT = "I agree. " * 2222
"""A notice of nearly 20,000 characters."""
BODY = json.dumps({"extensions": {"list": [[]] * 80_000}}).encode().ljust(1024 * 1024)
"""1 MiB with nearly as many values as a persona may have."""
PERSONA: dict[str, Any] = {"facts": [{"text": f"{number} " + "Fact. " * 30} for number in range(1000)]}
"""Nearly as large as a persona may be."""

type Act = Callable[[int, httpx.AsyncClient], Awaitable[httpx.Response]]


@contextmanager
def beside(url: str, token: str, acts: dict[str, Act]) -> Iterator[dict[str, Counter[int]]]:
    """Run the load of the account `LOUD` during the block, and yield the number of answers by kind of work and status.

    After 429 or 503 a client waits for `Retry-After`. The clients begin within a second: together they would come
    back together, again and again, and a flood of what is refused is not what is measured.
    """
    answers: dict[str, Counter[int]] = {name: Counter() for name in acts}
    stop = threading.Event()
    headers = {"Authorization": f"Bearer {token}"}

    async def repeat(seen: Counter[int], act: Act, number: int, client: httpx.AsyncClient) -> None:
        await asyncio.sleep(number / CLIENTS)
        while not stop.is_set():
            try:
                answer = await act(number, client)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                # Closed by the server: unused for 5 s, or 429 before it had the whole body.
                continue
            seen[answer.status_code] += 1
            if answer.status_code in {429, 503}:
                await asyncio.sleep(float(answer.headers["Retry-After"]))

    async def load() -> None:
        # Clients run elsewhere: here they would take the processor from the database.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60, limits=limits) as client:
            await asyncio.gather(
                # In turn: the first of one kind alone would take all places that the account has.
                *(repeat(answers[name], act, number, client) for number in range(CLIENTS) for name, act in acts.items())
            )

    with ThreadPoolExecutor(1) as thread:
        loading = thread.submit(lambda: asyncio.run(load()))
        try:
            yield answers
        finally:
            stop.set()
        loading.result()


def prepare(url: str, token: str, dsn: str, events: int) -> dict[str, Act]:
    """Make what the work needs, with a ledger of so many events, and return what sends one request of each kind."""
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60) as client:
        return _prepare(client, dsn, events)


def _prepare(client: httpx.Client, dsn: str, events: int) -> dict[str, Act]:
    wanted = {"twin_name": "Loud", "use_case": "noise", "tone": "loud", "consent": True}
    twins = [client.post(TWINS, json=wanted).raise_for_status().json()["id"] for _ in range(CLIENTS)]
    one = f"{TWINS}/{twins[0]}"
    for greeting in ("Hello.", "Good day."):
        client.put(f"{one}/persona", json=PERSONA | {"greeting": greeting}).raise_for_status()
    data.add_events(dsn, twins[1], LOUD, events)
    notice = {"version": "1", "language": "en", "text": TEXT}
    given = {"purposes": ["voice"], "notice": notice}
    newest = [client.post(f"{TWINS}/{twin}/consents", json=given).raise_for_status().json()["id"] for twin in twins]
    versions = itertools.count(2)

    async def renew(number: int, client: httpx.AsyncClient) -> httpx.Response:
        body = {"notice": notice | {"version": str(next(versions))}}
        answer = await client.post(f"{TWINS}/{twins[number]}/consents/{newest[number]}/renew", json=body)
        if answer.status_code == 201:
            newest[number] = answer.json()["id"]
        return answer

    as_json = {"Content-Type": "application/json"}
    return {
        "diff": lambda _, client: client.get(f"{one}/persona/diff?from=1&to=2"),
        "verification": lambda _, client: client.get(f"{TWINS}/{twins[1]}/ledger/verification"),
        "list": lambda _, client: client.get(f"{TWINS}?limit=100&q=nobody&consent=false"),
        "body of 1 MiB": lambda number, client: client.put(
            f"{TWINS}/{twins[number]}/persona", content=BODY, headers=as_json
        ),
        "renewal": renew,
    }
