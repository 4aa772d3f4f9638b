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
LIMITS: dict[str, list[Any]] = {
    "recipients": [None, [{"type": "org", "id": "studio"}], [{"type": "org", "id": x} for x in ("studio", "press")]],
    "modalities": [None, ["text"], ["text", "voice"]],
    "territories": [None, ["DE"], ["DE", "FR"]],
}
GRID = [
    {"purpose": purpose, "min_assurance": assurance} | recipient | modality | territory
    for purpose, assurance, recipient, modality, territory in itertools.product(
        PURPOSES,
        ("recorded", "token"),
        ({}, {"recipient_type": "org", "recipient_id": "press"}),
        ({}, {"modality": "voice"}),
        ({}, {"territory": "FR"}),
    )
]
PEOPLE = ("paula", "quentin")
ACTORS = ("owner", *PEOPLE)


@dataclass
class World:
    """A twin, and what the answers have said of it."""

    clients: dict[str, Client]
    subs: dict[str, str]
    path: str = ""
    consents: list[dict[str, Any]] = field(default_factory=list)
    keys: list[tuple[str, str, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    acted: dict[str, str] = field(default_factory=dict)
    """Who gave each consent."""
    line: dict[str, str] = field(default_factory=dict)
    held: dict[str, dict[str, Any]] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    listed: bool = True
    """Whether `principals` has Paula."""
    spoken: int = 0

    def decision(self, asked: dict[str, Any]) -> bool:
        consent = self.held.get(asked["purpose"])
        if consent is None or asked["purpose"] in self.ended:
            return False
        recipients = consent["recipients"]
        return (
            (consent["assurance"] == "token" or asked["min_assurance"] == "recorded")
            and (
                recipients is None
                or "recipient_id" not in asked  # the owner itself
                or asked["recipient_id"] in {one["id"] for one in recipients}
            )
            and (consent["modalities"] is None or asked.get("modality") in consent["modalities"])
            and (consent["territories"] is None or asked.get("territory") in consent["territories"])
        )

    async def decisions(self) -> list[bool]:
        items = [{"twin_id": str(id_of(self.path))} | asked for asked in GRID]
        answer = await self.clients["owner"].post("/api/v1/decisions", json={"items": items})
        return [item["decision"] for item in answer.json()["items"]]

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
        is_listed = actor == "paula" and self.listed
        if actor != "owner":
            self.spoken = max(self.spoken, 2 if is_listed else 1)
        if consent["source"] is None:
            assert consent["assurance"] == ("token" if is_listed else "recorded"), consent
        else:
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
        st.tuples(st.just("list"), st.booleans()),
        st.tuples(st.just("again"), st.integers(0, 9)),
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
    max_examples=15,
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
    world.path = await make_twin(clients["owner"], consent=False, principals=[subs["paula"]])
    first = await act(world, ("grant", "owner", {"ads"}, "quentin", {}))
    assert first.status_code == 201
    for step in steps:
        before, spoken = await world.decisions(), world.spoken
        answer = await act(world, step)
        assert answer.status_code in {200, 201, 404, 409, 422}, (step, answer.text)
        after = await world.decisions()

        assert after == [world.decision(asked) for asked in GRID], step
        if spoken and step[0] in ("grant", "renew", "again") and (step[0] == "again" or step[1] == "owner"):
            widened = [asked for asked, old, new in zip(GRID, before, after, strict=True) if new and not old]
            assert widened == [], step
        if spoken == 2 and step[0] == "grant" and not (step[1] == "paula" and world.listed):
            assert answer.status_code != 201, step
    for consent in world.consents[-2:]:
        receipt = await clients["owner"].get(f"{location(consent)}/receipt")
        payload = httpx.Response(200, content=jws.get_unverified_claims(receipt.text)).json()
        assert payload["events"][0]["entity_id"] == subs[world.acted[consent["id"]]]
        assert payload["assurance"] == consent["assurance"]
    assert (await verify(clients["owner"], world.path))["reason"] is None


async def act(world: World, step: tuple[Any, ...]) -> httpx.Response:
    """Do one step, and note in the world what its answer says."""
    match step:
        case "list", is_listed:
            listed = [world.subs["paula"]] if is_listed else []
            answer = await world.clients["owner"].patch(world.path, json={"principals": listed})
            world.listed = is_listed
        case "grant", actor, purposes, name, terms:
            person = {"label": "Alex"} if name == "label" else world.subs[name]
            body = {"purposes": sorted(purposes), "notice": NOTICE, "principal": person} | terms
            answer = await agree(world, actor, f"{world.path}/consents", body)
        case "renew", actor, number, purposes, terms:
            consent = world.consents[number % len(world.consents)]
            body = terms | ({"purposes": sorted(purposes)} if purposes else {})
            answer = await agree(world, actor, f"{location(consent)}/renew", body)
        case "again", number:
            actor, url, body, key = world.keys[number % len(world.keys)]
            answer = await world.clients[actor].post(url, json=body, headers=key)
            assert answer.headers["idempotency-replayed"] == "true"
        case _, actor, number:
            consent = world.consents[number % len(world.consents)]
            answer = await world.clients[actor].post(f"{location(consent)}/withdraw")
            if answer.status_code == 200:
                root = next(one for one in world.consents if one["id"] == world.line[consent["id"]])
                for purpose in root["purposes"]:
                    if actor != "owner" or world.line[world.held[purpose]["id"]] == root["id"]:
                        world.ended.add(purpose)
                world.spoken = max(world.spoken, 0 if actor == "owner" else 1)
    return answer


async def agree(world: World, actor: str, url: str, body: dict[str, Any]) -> httpx.Response:
    key = {"Idempotency-Key": str(uuid4())}
    answer = await world.clients[actor].post(url, json=body, headers=key)
    if answer.status_code == 201:
        world.gave(actor, answer.json())
        world.keys.append((actor, url, body, key))
    return answer
