"""Whatever anybody but its author does, a refusal stands, and a stranger changes no decision."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import log_search
from tests.support.app import MISSING, Client, id_of, make_twin, token
from tests.support.consent import HOUR, NOTICE, location, pass_time, verify
from tests.support.database import superuser
from tests.support.erasure import finish
from tests.support.issuer_server import IssuerServer, Signing
from tests.support.stores import Stores
from twins.app import create_app
from twins.context import Context

PURPOSES = ("general", "voice", "voice-2", "training")
MEMBERS = ("owner", "colleague")
PERSONS = ("colleague", "listed", "named", "puppet")
NAMED = ("owner", *PERSONS)
ACTORS = (*NAMED, "operator", "stranger")
KEY = Signing("key")
MAY = {200, 201, 202, 204}
ANSWERS = MAY | {404, 409, 410, 422}
EVERYTHING = frozenset(PURPOSES)


@dataclass
class World:
    """A twin of an organisation, everybody's clients, and the refusals that stand, as their authors' answers say."""

    clients: dict[str, Client]
    subs: dict[str, Any]
    context: Context
    path: str = ""
    consents: list[dict[str, Any]] = field(default_factory=list)
    refusals: list[tuple[str, str]] = field(default_factory=list)
    locks: dict[str, frozenset[str]] = field(default_factory=dict)
    spoken: bool = False
    erased: list[str] = field(default_factory=list)
    """The twins before this one."""
    erasures: dict[str, frozenset[str]] = field(default_factory=dict)
    """The running erasures of persons, and what each of them will close."""

    async def make(self) -> None:
        """Make the twin, with a consent that the owner records in somebody's name."""
        self.path = await make_twin(self.clients["owner"], consent=False, principals=[self.subs["listed"]])
        self.consents, self.refusals, self.locks, self.spoken = [], [], {}, False
        first = {"purposes": ["training"], "notice": NOTICE, "principal": self.subs["named"]}
        answer = await self.clients["owner"].post(f"{self.path}/consents", json=first)
        if answer.status_code == 201:  # who has erased their account is named no more
            self.consents.append(answer.json())

    async def decisions(self) -> dict[str, bool]:
        paths = [self.path, *self.erased]
        items = [{"twin_id": str(id_of(path)), "purpose": purpose} for path in paths for purpose in PURPOSES]
        answer = await self.clients["owner"].post("/api/v1/decisions", json={"items": items})
        here, gone = answer.json()["items"][: len(PURPOSES)], answer.json()["items"][len(PURPOSES) :]
        assert {item["reason"] for item in gone} <= {"not_found"}
        # A grant that begins later is a yes too.
        return {item["purpose"]: item["reason"] in ("granted", "not_yet_valid") for item in here}

    async def finish(self) -> None:
        """End the erasures of persons: what they close nobody opens."""
        for url, purposes in self.erasures.items():
            await finish(self.context, url)
            if purposes:
                self.said_no("nobody", purposes)
        self.erasures.clear()

    def locked(self) -> frozenset[str]:
        return frozenset().union(*self.locks.values())

    def said_no(self, actor: str, purposes: frozenset[str]) -> None:
        # Operators share one refusal.
        self.locks[actor] = self.locks.get(actor, frozenset()) | purposes
        self.spoken = True

    def said_yes(self, actor: str, purposes: frozenset[str]) -> None:
        self.locks[actor] = self.locks.get(actor, frozenset()) - purposes


actors = st.sampled_from(ACTORS)
some = st.sets(st.sampled_from(PURPOSES), min_size=1)
numbers = st.integers(0, 5)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("grant"), actors, some, st.sampled_from((None, *NAMED)), st.booleans()),
        st.tuples(st.just("renew"), actors, numbers, st.booleans()),
        st.tuples(st.just("withdraw"), actors, numbers, st.none() | some),
        st.tuples(st.just("refuse"), actors, st.none() | some),
        st.tuples(st.just("open"), actors, numbers),
        st.tuples(st.just("patch"), actors, st.booleans()),
        st.tuples(st.just("list"), actors, st.sets(st.sampled_from(NAMED), max_size=3)),
        st.tuples(st.just("leave"), st.sampled_from(PERSONS), st.booleans()),
        st.tuples(st.just("remake"), st.sampled_from(MEMBERS)),
        st.tuples(st.just("wait"), st.integers(1, 3)),
    ),
    min_size=8,
    max_size=30,
)


@pytest.fixture
async def people(environment: dict[str, str]) -> AsyncIterator[tuple[dict[str, Client], dict[str, Any]]]:
    """Everybody's clients and names: two members of an organisation, and others with HS256 tokens."""
    async with IssuerServer() as issuer, AsyncExitStack() as stack:
        issuer.keys = [KEY.jwk()]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AUTH_ISSUERS", json.dumps([issuer.entry(owner_claim="org_id")]))
            app = create_app()
        stack.push_async_callback(app.close)
        clients, names, organization = {}, {}, f"acme-{uuid4()}"
        for actor in ACTORS:
            sub = f"{actor}-{uuid4()}"
            is_member = actor in MEMBERS
            names[actor] = {"issuer": issuer.url, "subject": sub} if is_member else sub
            scope = "twins:stop" if actor == "operator" else ""
            bearer = KEY.sign(issuer.claims(sub, org_id=organization)) if is_member else token(sub, scope=scope)
            client = Client(
                transport=httpx.ASGITransport(app),
                base_url="http://twins.test",
                headers={"Authorization": f"Bearer {bearer}"},
                event_hooks={"request": [log_search.hide_names]},
            )
            clients[actor] = await stack.enter_async_context(client)
        yield clients, names


@settings(
    max_examples=30,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=operations)
async def test_a_refusal_stands_against_everybody_but_its_author(
    people: tuple[dict[str, Client], dict[str, Any]], context: Context, stores: Stores, steps: list[Any]
) -> None:
    async with superuser(stores) as connection:
        world = World(*people, context)
        await world.make()
        is_moved = False
        for step in steps:
            kind, actor, *_ = step
            before, spoken = await world.decisions(), world.spoken
            if kind == "wait":
                is_moved = True
                await pass_time(connection, actor * HOUR, world.path)
            else:
                answer = await take(world, step)
                assert answer.status_code in ANSWERS, (step, answer.text)
            after = await world.decisions()

            assert not [purpose for purpose in world.locked() if after[purpose]], (step, world.locks)
            if actor == "stranger":
                assert after == before, step
            if spoken and actor in MEMBERS and kind not in ("list", "remake") and not await is_listed(world, actor):
                assert not [purpose for purpose in PURPOSES if after[purpose] and not before[purpose]], step
        await world.finish()
        after = await world.decisions()
        assert not [purpose for purpose in world.locked() if after[purpose]], world.locks
        if not is_moved:  # time that is moved takes the records away from their events
            assert (await verify(world.clients["owner"], world.path))["reason"] is None


async def is_listed(world: World, actor: str) -> bool:
    return world.subs[actor] in (await world.clients["owner"].get(world.path)).json()["principals"]


async def take(world: World, step: tuple[Any, ...]) -> httpx.Response:
    """Do one step, and note in the world what its answer promises."""
    kind, actor, *rest = step
    acts: dict[str, Callable[..., Awaitable[httpx.Response]]] = {
        "grant": grant,
        "renew": renew,
        "withdraw": withdraw,
        "refuse": refuse,
        "open": open_,
        "patch": patch,
        "leave": leave,
        "remake": remake,
    }
    if kind == "list":
        principals = [world.subs[name] for name in sorted(rest[0])]
        return await world.clients[actor].patch(world.path, json={"principals": principals})
    return await acts[kind](world, actor, *rest)


async def grant(world: World, actor: str, purposes: set[str], principal: str | None, is_keyed: bool) -> httpx.Response:
    body: dict[str, Any] = {"purposes": sorted(purposes), "notice": NOTICE}
    if principal is not None:
        body["principal"] = world.subs[principal]
    return await agree(world, actor, f"{world.path}/consents", body, is_keyed)


async def renew(world: World, actor: str, number: int, is_keyed: bool) -> httpx.Response:
    consent = chosen(world, number)
    return await agree(world, actor, f"{location(consent)}/renew", {}, is_keyed)


def chosen(world: World, number: int) -> dict[str, Any]:
    """Return one of the consents, or one that there is not."""
    nothing = {"id": MISSING, "twin_id": id_of(world.path), "purposes": [], "principal": None}
    return world.consents[number % len(world.consents)] if world.consents else nothing


async def agree(world: World, actor: str, url: str, body: dict[str, Any], is_keyed: bool) -> httpx.Response:
    """Send a yes, and with a key one that may have been answered before."""
    headers = {"Idempotency-Key": f"{id_of(world.path)}-{hash((url, str(body)))}"} if is_keyed else {}
    answer = await world.clients[actor].post(url, json=body, headers=headers)
    if answer.status_code == 201 and "idempotency-replayed" not in answer.headers:
        consent = answer.json()
        world.consents.append(consent)
        if consent["principal"] == world.subs[actor]:
            world.said_yes(actor, frozenset(consent["purposes"]))
            world.spoken |= actor not in MEMBERS
    return answer


async def withdraw(world: World, actor: str, number: int, purposes: set[str] | None) -> httpx.Response:
    consent = chosen(world, number)
    is_theirs = consent["principal"] == world.subs[actor]
    revokes = actor in MEMBERS and not is_theirs and not await is_listed(world, actor)
    body = None if purposes is None else {"purposes": sorted(purposes)}
    answer = await world.clients[actor].post(f"{location(consent)}/withdraw", json=body)
    if answer.status_code in MAY and not revokes:
        world.said_no(actor, frozenset(purposes or consent["purposes"]))
    return answer


async def refuse(world: World, actor: str, purposes: set[str] | None) -> httpx.Response:
    body = None if purposes is None else {"purposes": sorted(purposes)}
    answer = await world.clients[actor].post(f"{world.path}/refusals", json=body)
    if answer.status_code in MAY:
        world.refusals.append((actor, answer.json()["id"]))
        world.said_no(actor, EVERYTHING if purposes is None else frozenset(purposes))
    return answer


async def open_(world: World, actor: str, number: int) -> httpx.Response:
    author, refusal = world.refusals[number % len(world.refusals)] if world.refusals else (actor, MISSING)
    all_of_them = (await world.clients["owner"].get(f"{world.path}/refusals")).json()["items"]
    answer = await world.clients[actor].delete(f"{world.path}/refusals/{refusal}")
    if answer.status_code == 204:
        assert author == actor
        if refusal in {item["id"] for item in all_of_them}:
            world.locks[actor] = frozenset()
    return answer


async def patch(world: World, actor: str, consent: bool) -> httpx.Response:
    speaks = actor in MEMBERS and await is_listed(world, actor)
    before = await world.decisions()
    answer = await world.clients[actor].patch(world.path, json={"consent": consent})
    if answer.status_code in MAY and speaks and consent != before["general"]:
        say = world.said_yes if consent else world.said_no
        say(actor, frozenset({"general"}))
        world.spoken = True
    return answer


async def leave(world: World, actor: str, is_finished: bool) -> httpx.Response:
    """Erase an account, which may come back: its refusals stand without an author, and its consents become some."""
    answer = await world.clients[actor].delete("/api/v1/me")
    assert answer.status_code in MAY
    theirs = [consent for consent in world.consents if consent["principal"] == world.subs[actor]]
    world.locks["nobody"] = world.locks.get("nobody", frozenset()) | world.locks.pop(actor, frozenset())
    if url := answer.headers.get("location"):
        closes = frozenset().union(*(consent["purposes"] for consent in theirs))
        world.erasures[url] = world.erasures.get(url, frozenset()) | closes
    for consent in theirs:  # an account that comes back is another one
        consent["principal"] = None
    if is_finished:
        await world.finish()
    return answer


async def remake(world: World, actor: str) -> httpx.Response:
    """Erase the twin, and make one like it: the old one's addresses and keys give nothing."""
    answer = await world.clients[actor].delete(world.path)
    if answer.status_code in MAY:
        await world.finish()
        world.erased.append(world.path)
        await world.make()
    return answer
