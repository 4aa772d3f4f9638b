"""Whatever is done in whatever order, the application agrees with a simple model."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.app import Client, id_of, make_twin, token
from tests.support.consent import HOUR, NOTICE, location, pass_time, transitions, verify
from tests.support.database import superuser
from tests.support.stores import Stores
from twins.app import create_app
from twins.settings import Settings

TWINS = 3
PURPOSES = ("general", "voice", "training")


@dataclass(eq=False)
class Agreed:
    """A consent; times are in hours since the model began."""

    twin: int
    purposes: tuple[str, ...]
    given: int
    not_before: int | None
    expires: int | None
    lineage: object
    withdrawn: bool = False
    replaced: bool = False


@dataclass
class Model:
    """What the twins' consents are, told as simply as it can be."""

    now: int = 0
    consents: list[Agreed] = field(default_factory=list)
    states: dict[tuple[int, str], Agreed] = field(default_factory=dict)
    events: list[list[str]] = field(default_factory=lambda: [[] for _ in range(TWINS)])

    def reason(self, twin: int, purpose: str) -> str:
        consent = self.states.get((twin, purpose))
        if consent is None:
            return "no_consent"
        if consent.withdrawn:
            return "withdrawn"
        if consent.expires is not None and consent.expires <= self.now:
            return "expired"
        if consent.not_before is not None and consent.not_before > self.now:
            return "not_yet_valid"
        return "granted"

    def state(self, consent: Agreed) -> str:
        if consent.withdrawn:
            return "withdrawn"
        if consent.replaced:
            return "replaced"
        return "expired" if consent.expires is not None and consent.expires <= self.now else "given"

    def grant(self, twin: int, purposes: tuple[str, ...], not_before: int | None, expires: int | None) -> int:
        if any(self.reason(twin, purpose) in ("granted", "not_yet_valid") for purpose in purposes):
            return 409
        return self._add(Agreed(twin, purposes, self.now, not_before, expires, object()), "given")

    def renew(self, old: Agreed, times: dict[str, int | None]) -> int:
        holds = all(self.states[old.twin, purpose] is old for purpose in old.purposes)
        if self.state(old) not in ("given", "expired") or not holds:
            return 409
        ahead = old.not_before is not None and old.not_before > self.now
        not_before = times.get("not_before", old.not_before if ahead else None)
        if self.state(old) == "given" and not ahead and not_before is not None and not_before > self.now:
            return 422
        if "expires" in times:
            expires = times["expires"]
        elif old.expires is None:
            expires = None
        else:
            begins = self.now if not_before is None else not_before
            expires = begins + old.expires - (old.given if old.not_before is None else old.not_before)
        status = self._add(Agreed(old.twin, old.purposes, self.now, not_before, expires, old.lineage), "renewed")
        old.replaced = status == 201
        return status

    def _add(self, consent: Agreed, event: str) -> int:
        if consent.expires is not None and consent.expires <= max(consent.given, consent.not_before or 0):
            return 422
        self.consents.append(consent)
        self.states |= {(consent.twin, purpose): consent for purpose in consent.purposes}
        self.events[consent.twin].append(event)
        return 201

    def withdraw(self, consent: Agreed) -> None:
        lineage = [other for other in self.consents if other.lineage is consent.lineage]
        if not consent.withdrawn:
            self.events[consent.twin].append("withdrawn")
        for other in lineage:
            other.withdrawn = True

    def patch(self, twin: int, *, consent: bool) -> int:
        reason = self.reason(twin, "general")
        if consent and reason != "granted":
            return 200 if self.grant(twin, ("general",), None, None) == 201 else 409
        if not consent and reason in ("granted", "not_yet_valid"):
            self.withdraw(self.states[twin, "general"])
        return 200


class Application:
    """The same operations on the application, over HTTP, with the database's clock put forward."""

    def __init__(self, client: Client, superuser: asyncpg.Connection, paths: list[str]) -> None:
        self.client = client
        self.superuser = superuser
        self.paths = paths
        self.made: list[dict[str, Any]] = []
        # One clock for all steps: two times in the same hour of the model must be the same moment here.
        self.clock = datetime.now(UTC)

    def _terms(self, now: int, times: dict[str, int | None]) -> dict[str, str | None]:
        names = {"not_before": "not_before", "expires": "expires_at"}
        return {
            names[name]: None if hour is None else (self.clock + timedelta(hours=hour - now)).isoformat()
            for name, hour in times.items()
        }

    async def grant(self, twin: int, purposes: tuple[str, ...], now: int, times: dict[str, int | None]) -> int:
        body = {"purposes": purposes, "notice": NOTICE} | self._terms(now, times)
        return self._note(await self.client.post(f"{self.paths[twin]}/consents", json=body))

    async def renew(self, number: int, now: int, times: dict[str, int | None]) -> int:
        url = f"{location(self.made[number])}/renew"
        return self._note(await self.client.post(url, json=self._terms(now, times)))

    def _note(self, answer: httpx.Response) -> int:
        if answer.status_code == 201:
            self.made.append(answer.json())
        return answer.status_code

    async def withdraw(self, number: int) -> int:
        return (await self.client.post(f"{location(self.made[number])}/withdraw")).status_code

    async def patch(self, twin: int, *, consent: bool) -> int:
        before = {item["id"] for item in await self._consents(twin)}
        answer = await self.client.patch(self.paths[twin], json={"consent": consent})
        self.made += [item for item in await self._consents(twin) if item["id"] not in before]
        return answer.status_code

    async def _consents(self, twin: int) -> list[dict[str, Any]]:
        answer = await self.client.get(f"{self.paths[twin]}/consents", params={"limit": 100})
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    async def reasons(self) -> list[str]:
        items = [{"twin_id": str(id_of(path)), "purpose": p} for path in self.paths for p in PURPOSES]
        answer = await self.client.post("/api/v1/decisions", json={"items": items})
        return [item["reason"] for item in answer.json()["items"]]

    async def state(self, number: int) -> str:
        return str((await self.client.get(location(self.made[number]))).json()["state"])


twins = st.integers(0, TWINS - 1)
hours = st.none() | st.integers(1, 3)
numbers = st.integers(0, 9)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("grant"), twins, st.sets(st.sampled_from(PURPOSES), min_size=1), hours, hours),
        st.tuples(st.just("withdraw"), numbers),
        st.tuples(
            st.just("renew"),
            numbers,
            st.fixed_dictionaries({}, optional={"not_before": hours, "expires": hours}),
        ),
        st.tuples(st.just("patch"), twins, st.booleans()),
        st.tuples(st.just("wait"), st.integers(1, 3)),
    ),
    min_size=10,
    max_size=30,
)


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Client]:
    app = create_app(settings)
    headers = {"Authorization": f"Bearer {token('modelled')}"}
    async with Client(transport=httpx.ASGITransport(app), base_url="http://twins.test", headers=headers) as client:
        yield client
    await app.close()


# Each example makes twins of its own, so the fixtures may serve all of them.
@settings(
    max_examples=40,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example(steps=[("grant", 0, {"general"}, 1, None), ("renew", 0, {"expires": 1})])
@given(steps=operations)
async def test_the_application_agrees_with_the_model(client: Client, stores: Stores, steps: list[Any]) -> None:
    async with superuser(stores) as connection:
        model = Model()
        application = Application(client, connection, [await make_twin(client, consent=False) for _ in range(TWINS)])
        for step in steps:
            await take(model, application, step)
            expected = [model.reason(twin, purpose) for twin in range(TWINS) for purpose in PURPOSES]
            assert await application.reasons() == expected, step

        for number, consent in enumerate(model.consents):
            assert await application.state(number) == model.state(consent)
        for twin, path in enumerate(application.paths):
            assert await transitions(client, path) == model.events[twin]
            if not model.now:  # time that passes moves the records away from their events
                assert (await verify(client, path))["valid"] is True


async def take(model: Model, application: Application, step: tuple[Any, ...]) -> None:
    """Do one step to both, and compare what they say to it."""
    match step:
        case "grant", twin, purposes, not_before, expires:
            times = {"not_before": ahead(model, not_before), "expires": ahead(model, expires)}
            ordered = tuple(sorted(purposes))
            status = await application.grant(twin, ordered, model.now, times)
            assert status == model.grant(twin, ordered, times["not_before"], times["expires"])
        case "withdraw", number if model.consents:
            number %= len(model.consents)
            assert await application.withdraw(number) == 200
            model.withdraw(model.consents[number])
        case "renew", number, times if model.consents:
            number %= len(model.consents)
            times = {name: ahead(model, hour) for name, hour in times.items()}
            status = await application.renew(number, model.now, times)
            assert status == model.renew(model.consents[number], times)
        case "patch", twin, consent:
            assert await application.patch(twin, consent=consent) == model.patch(twin, consent=consent)
        case "wait", time:
            model.now += time
            await pass_time(application.superuser, time * HOUR, *application.paths)


def ahead(model: Model, hour: int | None) -> int | None:
    return None if hour is None else model.now + hour
