"""Clients that remember what they were promised."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx

from tests.resilience.harness.app import App
from tests.resilience.harness.limits import PATIENCE, PAUSE
from tests.support.app import ALEX, is_problem, token


@dataclass
class Tally:
    """What clients have seen."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """How often each status, and each way to get no answer, by name."""
    slowest: float = 0.0
    """Seconds that the slowest answer took."""

    @property
    def requests(self) -> int:
        """How many were sent."""
        return self.outcomes.total()


class Clients:
    """Clients of one or more processes, which notice everything and remember what was promised."""

    def __init__(self, apps: list[App]) -> None:
        self.tally = Tally()
        self._watchers: list[tuple[Tally, Callable[[str], bool]]] = [(self.tally, lambda _: True)]
        self.twins: dict[str, dict[str, str]] = {}
        """By owner and idempotency key: the id that was acknowledged."""
        self.personas: dict[tuple[str, str], dict[int, str]] = {}
        """By owner and twin: the summary of each version that was acknowledged."""
        self.apps = apps
        self._run = uuid4().hex[:8]
        self._headers: dict[str, dict[str, str]] = {}
        # Several, since each looks through all its connections for every request. They drop an unused
        # connection before the server does (after 5 s), which may be just when a request goes out.
        self._https = [
            httpx.AsyncClient(limits=httpx.Limits(max_connections=None, keepalive_expiry=2), timeout=30, verify=False)
            for _ in range(10)
        ]
        self._https_in_turn = itertools.cycle(self._https)

    def subject(self, owner: str) -> str:
        """Return the account behind `owner`, which is another in each scenario."""
        return f"{owner}-{self._run}"

    async def close(self) -> None:
        """Close the connections."""
        for http in self._https:
            await http.aclose()

    @contextmanager
    def watched(self, counts: Callable[[str], bool] = lambda _: True) -> Iterator[Tally]:
        """Count what is sent in the block, to paths that `counts`, by itself besides the whole."""
        watcher = Tally(), counts
        self._watchers.append(watcher)
        try:
            yield watcher[0]
        finally:
            self._watchers.remove(watcher)

    async def send(
        self, method: str, path: str, owner: str | None = None, app: int = 0, **options: Any
    ) -> httpx.Response | None:
        """Send one request once; None where there was no whole answer.

        Whatever is not success must be a whole problem, and a 503 must say when to come again.
        """
        headers = {**options.pop("headers", {})}
        if owner is not None:
            if owner not in self._headers:
                self._headers[owner] = {"Authorization": f"Bearer {token(self.subject(owner))}"}
            headers = self._headers[owner] | headers
        tallies = [tally for tally, counts in self._watchers if counts(path)]
        started = time.monotonic()
        answer: httpx.Response | None = None
        try:
            http = next(self._https_in_turn)
            answer = await http.request(method, f"{self.apps[app].url}{path}", headers=headers, **options)
            outcome = str(answer.status_code)
        except httpx.TransportError as error:
            outcome = type(error).__name__
        for tally in tallies:
            tally.outcomes[outcome] += 1
            tally.slowest = max(tally.slowest, time.monotonic() - started)
        if answer is None:
            return None
        assert answer.status_code != 500, answer.text
        if answer.is_error:
            is_problem(answer, answer.status_code, "")
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) > 0
        return answer

    async def until(
        self, wanted: int, method: str, path: str, owner: str | None = None, app: int = 0, **options: Any
    ) -> httpx.Response:
        """Send a request again, to each process in turn, until its answer has the `wanted` status."""
        deadline = time.monotonic() + PATIENCE
        answer: httpx.Response | None = None
        while time.monotonic() < deadline:
            answer = await self.send(method, path, owner, app, **options)
            if answer is not None and answer.status_code == wanted:
                return answer
            # 409: the request before this one is still on its way through another process.
            assert answer is None or answer.status_code in (409, 503), answer.text
            app = (app + 1) % len(self.apps)
            await asyncio.sleep(PAUSE)
        raise AssertionError(f"{method} {path} is not {wanted} after {PATIENCE:.0f} s: {answer and answer.text}")

    async def try_create(self, owner: str, key: str) -> httpx.Response | None:
        """Ask once for the twin of an idempotency key, and remember it where it is acknowledged."""
        answer = await self.send("POST", "/api/v1/twins", owner, **_creation(key))
        if answer is not None and answer.status_code == 201:
            self._acknowledge(owner, key, answer)
        return answer

    async def create_all(self, owner: str, keys: Iterable[str], at_once: int = 20) -> None:
        """Ask for a twin of each idempotency key, some at once, until all are acknowledged."""
        waiting = iter(keys)

        async def client() -> None:
            for key in waiting:
                await self.create(owner, key)

        await asyncio.gather(*(client() for _ in range(at_once)))

    async def create(self, owner: str, key: str, app: int = 0) -> str:
        """Ask for the twin of an idempotency key until it is acknowledged, and return its id."""
        answer = await self.until(201, "POST", "/api/v1/twins", owner, app, **_creation(key))
        return self._acknowledge(owner, key, answer)

    def _acknowledge(self, owner: str, key: str, answer: httpx.Response) -> str:
        twin_id: str = answer.json()["id"]
        assert self.twins.setdefault(owner, {}).setdefault(key, twin_id) == twin_id, f"{key} has made two twins"
        return twin_id

    async def put_persona(self, owner: str, twin_id: str, summary: str) -> httpx.Response | None:
        """Write a persona once, and remember the version where it is acknowledged."""
        answer = await self.send("PUT", f"/api/v1/twins/{twin_id}/persona", owner, json={"summary": summary})
        if answer is not None and answer.status_code == 200:
            versions = self.personas.setdefault((owner, twin_id), {})
            version = answer.json()["version"]
            assert version not in versions, f"version {version} was given out twice"
            versions[version] = summary
        return answer


def _creation(key: str) -> dict[str, Any]:
    return {"json": ALEX | {"twin_name": f"Twin {key}"}, "headers": {"Idempotency-Key": key}}
