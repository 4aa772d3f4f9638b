"""Whatever the owner and the people do, the owner's word widens nothing once a person has spoken, and a model agrees.

The model has what each successful answer says, and knows nothing of how it is stored.
"""

import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jose import jws

from tests.support.app import Client, id_of, make_twin, token
from tests.support.consent import NOTICE, location, verify
from twins.app import create_app
from twins.settings import Settings

PURPOSES = ("voice", "voice-2", "ads")
SPELLINGS = ("Voice", "VOICE", "voice ", "vo\u0131ce", "\uff56oice", "voice\u200b", "")
LIMITS: dict[str, list[Any]] = {
    "recipients": [None, [{"type": "org", "id": "studio"}], [{"type": "org", "id": x} for x in ("studio", "press")]],
    "modalities": [None, ["text"], ["text", "voice"]],
    "territories": [None, ["DE"], ["DE", "FR"]],
}
PEOPLE = ("paula", "quentin")
ACTORS = ("owner", *PEOPLE)
ID = {"type": "elevenlabs-voice", "id": "v1"}


@dataclass
class World:
    """A twin, another one of the same owner, and what the answers have said of them."""

    clients: dict[str, Client]
    subs: dict[str, str]
    there: str = ""
    """The other twin, whose consents the owner records in the name of a label."""
    keys: list[tuple[str, str, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    gone: list[dict[str, Any]] = field(default_factory=list)
    """The consents of the twins before this one."""
    acted: dict[str, str] = field(default_factory=dict)
    """Who gave each consent."""
    line: dict[str, str] = field(default_factory=dict)
    said: dict[str, int] = field(default_factory=dict)
    """At which step the yes was said that a consent has its assurance from."""
    step: int = 0
    holder: str | None = None
    """Which twin has the external id."""
    attached: int = 0
    """At which step it got it."""
    kept: str | None = None
    """The twin that nobody takes the id from."""

    async def make(self) -> None:
        """Make the twin that everything is about, with a consent that the owner records."""
        self.path = await make_twin(self.clients["owner"], consent=False, principals=[self.subs["paula"]])
        self.consents: list[dict[str, Any]] = []
        self.held: dict[str, dict[str, Any]] = {}
        self.ended: set[str] = set()
        self.listed: frozenset[str] = frozenset({"paula"})
        self.spoken = 0
        first = await act(self, ("grant", "owner", {"ads"}, "quentin", {}))
        assert first.status_code == 201

    @property
    def grid(self) -> list[dict[str, Any]]:
        return [
            {"purpose": purpose, "min_assurance": assurance} | recipient | modality | territory | person
            for purpose, assurance, recipient, modality, territory, person in itertools.product(
                PURPOSES,
                ("recorded", "token"),
                ({}, {"recipient_type": "org", "recipient_id": "press"}),
                ({}, {"modality": "voice"}),
                ({}, {"territory": "FR"}),
                ({}, {"principal": self.subs["paula"]}),
            )
        ]

    def decision(self, asked: dict[str, Any]) -> bool:
        consent = self.held.get(asked["purpose"])
        if consent is None or asked["purpose"] in self.ended:
            return False
        recipients = consent["recipients"]
        by_token = consent["assurance"] == "token"
        return (
            (by_token or asked["min_assurance"] == "recorded")
            and ("principal" not in asked or (by_token and consent["principal"] == asked["principal"]))
            and (
                recipients is None
                or "recipient_id" not in asked  # the owner itself
                or asked["recipient_id"] in {one["id"] for one in recipients}
            )
            and (consent["modalities"] is None or asked.get("modality") in consent["modalities"])
            and (consent["territories"] is None or asked.get("territory") in consent["territories"])
        )

    def decision_by_id(self, asked: dict[str, Any]) -> bool:
        if self.holder == self.there:
            return bool(asked["min_assurance"] == "recorded")
        if self.holder != self.path or not self.decision(asked):
            return False
        return asked["min_assurance"] == "recorded" or self.attached < self.said[self.held[asked["purpose"]]["id"]]

    async def decisions(self) -> list[bool]:
        return await self._ask([{"twin_id": str(id_of(self.path))} | asked for asked in self.grid])

    async def decisions_by_id(self) -> list[bool]:
        return await self._ask([{"external_id": ID} | asked for asked in self.grid_by_id])

    @property
    def grid_by_id(self) -> list[dict[str, Any]]:
        return [{"purpose": purpose, "min_assurance": least} for purpose in PURPOSES for least in ("recorded", "token")]

    async def _ask(self, items: list[dict[str, Any]]) -> list[bool]:
        answer = await self.clients["owner"].post("/api/v1/decisions", json={"items": items})
        return [item["decision"] for item in answer.json()["items"]]

    def is_person(self, actor: str, consent: dict[str, Any] | None = None) -> bool:
        """Return whether an account's word is that of a person, on a consent in whoever's name."""
        is_own = consent is None or principal(self, consent) == actor
        return actor != "owner" or (actor in self.listed and is_own)

    def speak(self, level: int) -> None:
        self.spoken = max(self.spoken, level)
        if self.spoken and self.holder == self.path:
            self.kept = self.path

    def gave(self, actor: str, consent: dict[str, Any]) -> None:
        old = next((one for one in self.consents if one["id"] == consent["renews"]), None)
        for purpose in set(old["purposes"] if old else ()) - set(consent["purposes"]):
            if self.held[purpose] is old:
                self.ended.add(purpose)
        for purpose in consent["purposes"]:
            self.held[purpose] = consent
            self.ended.discard(purpose)
        self.line[consent["id"]] = self.line[old["id"]] if old else consent["id"]
        self.consents.append(consent)
        self.acted[consent["id"]] = actor
        is_own = self.is_person(actor, consent)
        is_listed = is_own and actor in self.listed
        if is_own:
            self.speak(2 if is_listed else 1)
        if consent["source"] is None:
            self.said[consent["id"]] = self.step
            assert consent["assurance"] == ("token" if is_listed else "recorded"), consent
        else:
            self.said[consent["id"]] = self.said[consent["source"]]
            source = next(one for one in self.consents if one["id"] == consent["source"])
            assert (source["assurance"], self.acted[source["id"]]) == (consent["assurance"], principal(self, source))


def principal(world: World, consent: dict[str, Any]) -> str | None:
    return next((name for name, sub in world.subs.items() if sub == consent["principal"]), None)


limits = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in LIMITS.items()})
some = st.sets(st.sampled_from(PURPOSES), min_size=1)
who = st.sampled_from(("owner", "paula", "quentin", "label"))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("grant"), st.sampled_from(ACTORS), some, who, limits),
        st.tuples(st.just("renew"), st.sampled_from(ACTORS), st.integers(0, 9), st.none() | some, limits),
        st.tuples(st.just("withdraw"), st.sampled_from(ACTORS), st.integers(0, 9)),
        st.tuples(st.just("list"), st.frozensets(st.sampled_from(("paula", "owner")))),
        st.tuples(st.just("again"), st.integers(0, 9)),
        st.tuples(st.just("spell"), st.sampled_from(SPELLINGS)),
        st.tuples(st.just("move"), st.sampled_from(("here", "there", "nowhere"))),
        st.tuples(st.just("remake")),
    ),
    min_size=6,
    max_size=16,
)


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[Any]:
    app = create_app(settings)
    yield app
    await app.close()


@settings(
    max_examples=25,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=steps)
async def test_the_owners_word_widens_nothing_and_the_model_agrees(app: Any, steps: list[Any]) -> None:
    subs = {name: f"{name}-{uuid4()}" for name in ACTORS}
    clients = {
        name: httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://twins.test",
            headers={"Authorization": f"Bearer {token(sub)}"},
        )
        for name, sub in subs.items()
    }
    world = World(clients, subs)
    world.there = await make_twin(clients["owner"], consent=False)
    everything = {"purposes": PURPOSES, "notice": NOTICE, "principal": {"label": "Alex"}}
    assert (await clients["owner"].post(f"{world.there}/consents", json=everything)).status_code == 201
    await world.make()
    for step in steps:
        world.step += 1
        before, spoken, path, listed = await world.decisions(), world.spoken, world.path, world.listed
        answer = await act(world, step)
        assert answer.status_code in {200, 201, 204, 404, 409, 410, 422}, (step, answer.text)
        after = await world.decisions()

        assert after == [world.decision(asked) for asked in world.grid], step
        assert await world.decisions_by_id() == [world.decision_by_id(asked) for asked in world.grid_by_id], step
        if path != world.path:
            continue
        widened = [asked for asked, old, new in zip(world.grid, before, after, strict=True) if new and not old]
        by_owner = step[0] not in ("grant", "renew") or step[1] == "owner"
        is_persons_own = by_owner and "owner" in listed and step[0] in ("grant", "renew") and answer.status_code == 201
        if spoken and by_owner and not (is_persons_own and world.is_person("owner", world.consents[-1])):
            assert widened == [], step
        if spoken == 2 and step[0] == "grant" and answer.status_code == 201:
            assert world.consents[-1]["assurance"] == "token", step
    for consent in world.consents:
        receipt = await clients["owner"].get(f"{location(consent)}/receipt")
        payload = httpx.Response(200, content=jws.get_unverified_claims(receipt.text)).json()
        assert payload["events"][0]["entity_id"] == subs[world.acted[consent["id"]]]
        assert payload["assurance"] == consent["assurance"]
    assert (await verify(clients["owner"], world.path))["reason"] is None


async def act(world: World, step: tuple[Any, ...]) -> httpx.Response:
    """Do one step, and note in the world what its answer says."""
    match step:
        case "grant", actor, purposes, name, terms:
            # A label that reads like an account is not that account.
            person = {"label": world.subs["paula"]} if name == "label" else world.subs[name]
            body = {"purposes": sorted(purposes), "notice": NOTICE, "principal": person} | terms
            return await agree(world, actor, f"{world.path}/consents", body)
        case "renew", actor, number, purposes, terms:
            body = terms | ({"purposes": sorted(purposes)} if purposes else {})
            return await agree(world, actor, f"{location(chosen(world, number))}/renew", body)
        case "withdraw", actor, number:
            return await withdraw(world, actor, chosen(world, number))
        case "again", number:
            actor, url, body, key = world.keys[number % len(world.keys)]
            answer = await world.clients[actor].post(url, json=body, headers=key)
            assert answer.status_code in (404, 410) or answer.headers["idempotency-replayed"] == "true"
            return answer
    return await manage(world, step)


async def manage(world: World, step: tuple[Any, ...]) -> httpx.Response:
    """Do a step that only the owner can do."""
    owner = world.clients["owner"]
    match step:
        case "list", listed:
            answer = await owner.patch(world.path, json={"principals": [world.subs[name] for name in listed]})
            world.listed = listed
        case "spell", purpose:
            body = {"purposes": [purpose], "notice": NOTICE, "principal": world.subs["paula"]}
            answer = await owner.post(f"{world.path}/consents", json=body)
            assert answer.status_code == 422, purpose
        case "move", place:
            answer = await move(world, {"here": world.path, "there": world.there, "nowhere": None}[place])
        case _:
            world.gone += world.consents
            answer = await owner.delete(world.path)
            if world.holder == world.path:
                world.holder = None
            await world.make()
    return answer


async def withdraw(world: World, actor: str, consent: dict[str, Any]) -> httpx.Response:
    answer = await world.clients[actor].post(f"{location(consent)}/withdraw")
    if answer.status_code == 200:
        root = next(one for one in world.consents if one["id"] == world.line[consent["id"]])
        by_person = world.is_person(actor)
        for purpose in root["purposes"]:
            if by_person or world.line[world.held[purpose]["id"]] == root["id"]:
                world.ended.add(purpose)
        if by_person:
            world.speak(1)
    return answer


def chosen(world: World, number: int) -> dict[str, Any]:
    known = [*world.consents, *world.gone]
    return known[number % len(known)]


async def move(world: World, target: str | None) -> httpx.Response:
    """Give the external id to a twin, or to none."""
    owner = world.clients["owner"]
    if target is None:
        for path in (world.path, world.there):
            answer = await owner.patch(path, json={"external_ids": []})
            assert answer.status_code == 200
        world.holder = None
        return answer
    answer = await owner.patch(target, json={"external_ids": [ID]})
    assert answer.status_code == (200 if world.kept in (None, target) else 409), answer.text
    if answer.status_code == 200 and world.holder != target:
        world.holder, world.attached = target, world.step
        if world.spoken and target == world.path:
            world.kept = target
    return answer


async def agree(world: World, actor: str, url: str, body: dict[str, Any]) -> httpx.Response:
    key = {"Idempotency-Key": str(uuid4())}
    answer = await world.clients[actor].post(url, json=body, headers=key)
    if answer.status_code == 201:
        world.gave(actor, answer.json())
        world.keys.append((actor, url, body, key))
    return answer
