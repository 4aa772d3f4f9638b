"""Whatever a person and others do around `DELETE /me`, in whatever order: what came before it stays erased."""

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.app import Client, ClientOf, id_of, is_problem, make_twin
from tests.support.consent import NOTICE, verify
from tests.support.erasure import finish
from twins.context import Context
from twins.erasure import sweep

ME = "/api/v1/me"
PURPOSES = ("general", "voice", "training")


@dataclass
class World:
    """A person with twins, somebody else's twin, and what has to hold of both."""

    context: Context
    person: Client
    sub: str
    owner: Client
    path: str
    own: dict[str, bool] = field(default_factory=dict)
    """The person's twins, and whether each is older than the person's last erasure."""
    given: dict[str, tuple[str, bool]] = field(default_factory=dict)
    """The purpose of each consent in the person's name, and whether it is older than that."""
    closed: set[str] = field(default_factory=set)
    """What nobody can open again."""
    erasures: list[str] = field(default_factory=list)
    has_left: bool = False

    async def take(self, step: tuple[Any, ...]) -> None:
        """Do one step."""
        match step:
            case "record", purpose, is_theirs:
                await self._record(purpose, is_theirs=is_theirs)
            case "agree", purpose:
                await self._agree(purpose)
            case "renew", number if self.given:
                await self._renew(list(self.given)[number % len(self.given)])
            case "list", is_listed:
                principals = [self.sub] if is_listed else []
                assert (await self.owner.patch(self.path, json={"principals": principals})).status_code == 200
            case "make", consent:
                self.own[await make_twin(self.person, consent=consent)] = False
            case "leave", _:
                await self._leave()
            case "work", number if self.erasures:
                await sweep.sweep(self.context, id_of(self.erasures[number % len(self.erasures)]))
            case "finish", _:
                await self.finish()

    async def _record(self, purpose: str, *, is_theirs: bool) -> None:
        body = {"purposes": [purpose], "notice": NOTICE, "principal": self.sub if is_theirs else "paula"}
        answer = await self.owner.post(f"{self.path}/consents", json=body)
        assert answer.status_code in (201, 409)
        if is_theirs and answer.status_code == 201:
            assert not self.has_left
            self.given[answer.json()["id"]] = (purpose, False)

    async def _agree(self, purpose: str) -> None:
        answer = await self.person.post(f"{self.path}/consents", json={"purposes": [purpose], "notice": NOTICE})
        assert answer.status_code in (201, 404, 409)
        if answer.status_code == 201:
            self.given[answer.json()["id"]] = (purpose, False)

    async def _renew(self, consent_id: str) -> None:
        purpose, is_old = self.given[consent_id]
        answer = await self.owner.post(f"{self.path}/consents/{consent_id}/renew")
        assert answer.status_code in (201, 409)
        if answer.status_code == 201:
            assert not is_old
            self.given[answer.json()["id"]] = (purpose, False)

    async def _leave(self) -> None:
        answer = await self.person.delete(ME)
        assert answer.status_code in (202, 204)
        if url := answer.headers.get("location"):
            self.erasures.append(url)
            self.has_left = True
        self.own = dict.fromkeys(self.own, True)
        self.given = {name: (purpose, True) for name, (purpose, _) in self.given.items()}

    async def finish(self) -> None:
        """End every erasure."""
        for url in dict.fromkeys(self.erasures):
            await finish(self.context, url)
        self.closed |= {purpose for purpose, is_old in self.given.values() if is_old}

    async def check(self, step: tuple[Any, ...]) -> None:
        """Check that nothing is left of what was, and that what has come since stands."""
        for path, is_old in self.own.items():
            answer = await self.person.get(path)
            assert is_problem(answer, 404, "not-found") if is_old else answer.status_code == 200, step
        items = [{"twin_id": str(id_of(self.path)), "purpose": purpose} for purpose in PURPOSES]
        for decision in (await self.owner.post("/api/v1/decisions", json={"items": items})).json()["items"]:
            if decision["decision"]:
                assert not self.given.get(decision["consent_id"], ("", False))[1], step
                assert decision["purpose"] not in self.closed, step
        listed = (await self.person.get(f"{ME}/consents", params={"limit": 100})).json()["items"]
        theirs = {item["id"] for item in listed if item["twin_id"] == str(id_of(self.path))}
        assert theirs == {consent_id for consent_id, (_, is_old) in self.given.items() if not is_old}, step


purposes, numbers = st.sampled_from(PURPOSES), st.integers(0, 9)
steps_of = st.lists(
    st.one_of(
        st.tuples(st.just("record"), purposes, st.booleans()),
        st.tuples(st.just("agree"), purposes),
        st.tuples(st.just("renew"), numbers),
        st.tuples(st.just("list"), st.booleans()),
        st.tuples(st.just("make"), st.booleans()),
        st.tuples(st.just("leave"), st.none()),
        st.tuples(st.just("work"), numbers),
        st.tuples(st.just("finish"), st.none()),
    ),
    min_size=5,
    max_size=25,
)


# Each example has accounts of its own, so the fixtures may serve all of them.
@settings(
    max_examples=40,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=steps_of)
async def test_nothing_from_before_an_erasure_comes_back_and_nothing_later_is_taken(
    client_of: ClientOf, context: Context, steps: list[tuple[Any, ...]]
) -> None:
    sub, owner = f"back-{uuid4()}", client_of(f"keeper-{uuid4()}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "_BATCH", 1)
        patch.setattr(sweep, "_WORK", 0.0)
        path = await make_twin(owner, consent=False)
        world = World(context, client_of(sub), sub, owner, path)
        for step in steps:
            await world.take(step)
            await world.check(step)
        await world.take(("leave", None))
        await world.check(("leave", None))
    await world.finish()
    await world.check(("finish", None))

    assert (await verify(owner, path))["reason"] is None
