"""The gate of other owners while one account does its worst: as much at once as it can send of all heavy work."""

import asyncio
import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

import httpx

from bench import data, load
from bench.workloads import TWINS
from devstack.local import ROOT

LOUD = "loud"
LONGEST = 600.0
"""Seconds after which a load that does not end is a fault."""
CLIENTS = 32
"""At once of each kind of work."""
NOTICE = {"language": "en", "text": "I agree. " * 2222}
"""Of nearly 20,000 characters."""
BODY = json.dumps({"extensions": {"list": [[]] * 80_000}}).encode().ljust(1024 * 1024)
"""1 MiB with nearly as many values as a persona may have."""
PERSONA: dict[str, Any] = {"facts": [{"text": f"{number} " + "Fact. " * 30} for number in range(1000)]}
"""Nearly as large as a persona may be."""


class Answer(NamedTuple):
    """What a client looks at."""

    status: int
    retry_after: float
    body: bytes


class Client:
    """One connection of the account; by hand, since httpx takes ten times as much of the database's processor."""

    def __init__(self, url: str, token: str) -> None:
        self._url, self._token = urlsplit(url), token
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __call__(self, method: str, path: str, body: bytes = b"") -> Answer:
        """Send a request; raises `ConnectionError` or `EOFError` where the server closes the connection."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(self._url.hostname, self._url.port)
            reader, writer = self._streams
            writer.write(load.head(method, path, LOUD, self._token, len(body)))
            writer.write(body)
            return await self._read(reader)
        except (ConnectionError, EOFError):
            self.close()
            raise

    async def _read(self, reader: asyncio.StreamReader) -> Answer:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers["content-length"]))
        if headers.get("connection") == "close":
            self.close()
        return Answer(int(first.split()[1]), float(headers.get("retry-after", 0)), body)

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


type Act = Callable[[int, Client], Awaitable[Answer]]


@dataclass(frozen=True)
class Work:
    """What the account works on."""

    twins: list[str]
    """The first has the personas that are compared, the second the ledger that is verified."""
    consents: list[str]
    """The newest of each."""


@contextmanager
def beside(url: str, token: str, work: Work) -> Iterator[dict[str, Counter[int]]]:
    """Run the load of the account `LOUD` during the block; then its answers by kind of work and status are there.

    After 429 or 503 a client waits for `Retry-After`. The clients begin within a second: together they would come
    back together, again and again, and a flood of what is refused is not what is measured.
    """
    answers: dict[str, Counter[int]] = {}
    told = json.dumps([url, token, work.twins, work.consents])
    # Clients run elsewhere, and here they would take the processor of the database. Linux shares a processor among
    # sessions first, and by niceness within each: so a session of its own, which is niced as a whole.
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.neighbour"],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    try:
        process.stdin.write(f"{told}\n")
        process.stdin.flush()
        yield answers
    finally:
        said, _ = process.communicate(timeout=LONGEST)  # it ends with its standard input
    answers |= {
        kind: Counter({int(status): count for status, count in seen.items()}) for kind, seen in json.loads(said).items()
    }


def main() -> None:
    """Load until standard input ends, and print the answers."""
    os.nice(19)
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text("19")
    url, token, twins, consents = json.loads(sys.stdin.readline())
    print(json.dumps(asyncio.run(_load(url, token, _acts(Work(twins, consents))))))


async def _load(url: str, token: str, acts: dict[str, Act]) -> dict[str, Counter[int]]:
    answers: dict[str, Counter[int]] = {name: Counter() for name in acts}
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)

    async def repeat(seen: Counter[int], act: Act, number: int, begin: float) -> None:
        client = Client(url, token)
        await asyncio.sleep(begin)
        # On a machine that is busy otherwise the second process may come to a first answer only when the others stop.
        while not (stop.is_set() and _are_some_done(seen)):
            try:
                answer = await act(number, client)
            except (ConnectionError, EOFError):
                # Closed by the server: unused for 5 s, or 429 before it had the whole body.
                continue
            seen[answer.status] += 1
            if answer.status in {429, 503}:
                await asyncio.sleep(answer.retry_after)
        client.close()

    # In turn: the first of one kind alone would take all places that the account has.
    clients = list(itertools.product(range(CLIENTS), acts.items()))
    sent = (
        repeat(answers[name], act, number, place / len(clients)) for place, (number, (name, act)) in enumerate(clients)
    )
    async with asyncio.timeout(LONGEST):
        await asyncio.gather(*sent)
    return answers


def _are_some_done(seen: Counter[int]) -> bool:
    return any(status < 429 for status in seen)


def prepare(url: str, token: str, dsn: str, events: int) -> Work:
    """Make what the work needs, with a ledger of so many events."""
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60) as client:
        wanted = {"twin_name": "Loud", "use_case": "noise", "tone": "loud", "consent": True}
        twins = [client.post(TWINS, json=wanted).raise_for_status().json()["id"] for _ in range(CLIENTS)]
        for greeting in ("Hello.", "Good day."):
            client.put(f"{TWINS}/{twins[0]}/persona", json=PERSONA | {"greeting": greeting}).raise_for_status()
        data.add_events(dsn, UUID(twins[1]), LOUD, events)
        given = {"purposes": ["voice"], "notice": NOTICE | {"version": "1"}}
        return Work(
            twins,
            [client.post(f"{TWINS}/{twin}/consents", json=given).raise_for_status().json()["id"] for twin in twins],
        )


def _acts(work: Work) -> dict[str, Act]:
    newest, versions = work.consents, itertools.count(2)

    async def renew(number: int, client: Client) -> Answer:
        body = {"notice": NOTICE | {"version": str(next(versions))}}
        path = f"{TWINS}/{work.twins[number]}/consents/{newest[number]}/renew"
        answer = await client("POST", path, json.dumps(body).encode())
        if answer.status == 201:
            newest[number] = json.loads(answer.body)["id"]
        return answer

    compared, verified = (f"{TWINS}/{twin}" for twin in work.twins[:2])
    return {
        "diff": lambda _, client: client("GET", f"{compared}/persona/diff?from=1&to=2"),
        "verification": lambda _, client: client("GET", f"{verified}/ledger/verification"),
        "list": lambda _, client: client("GET", f"{TWINS}?limit=100&q=nobody&consent=false"),
        "body of 1 MiB": lambda number, client: client("PUT", f"{TWINS}/{work.twins[number]}/persona", BODY),
        "renewal": renew,
    }


if __name__ == "__main__":
    main()
