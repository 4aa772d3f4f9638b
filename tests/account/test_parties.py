"""Accounts in bodies: a string for those of HS256 tokens, issuer and subject for all others, through both fronts."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support import log_search
from tests.support.app import FRONTS, Client, front, id_of, is_problem, make_twin, token
from tests.support.consent import NOTICE, decide, grant, location, verify
from tests.support.database import superuser
from tests.support.issuer_server import IssuerServer, Signing
from tests.support.stores import Stores

KEY = Signing("key")

type Account = str | dict[str, str]


@pytest.fixture(scope="module")
async def issuers() -> AsyncIterator[list[IssuerServer]]:
    """Two issuers, the second with bare subjects where HS256 is off."""
    async with IssuerServer() as one, IssuerServer() as two:
        for issuer in (one, two):
            issuer.keys = [KEY.jwk()]
        yield [one, two]


@pytest.fixture(scope="module", params=FRONTS)
async def transport(
    request: pytest.FixtureRequest, environment: dict[str, str], issuers: list[IssuerServer]
) -> AsyncIterator[httpx.AsyncBaseTransport]:
    """The application that trusts both issuers beside HS256."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTH_ISSUERS", json.dumps([issuer.entry() for issuer in issuers]))
        async with front(request.param) as opened:
            yield opened


type AsWhom = Callable[[Account], Client]
"""`client_as(account)`: a client with a token of that account, as bodies name it."""


@pytest.fixture
def client_as(transport: httpx.AsyncBaseTransport, issuers: list[IssuerServer]) -> AsWhom:
    return lambda account: as_whom(transport, issuers, account)


def as_whom(transport: httpx.AsyncBaseTransport, issuers: list[IssuerServer], account: Account) -> Client:
    if isinstance(account, str):
        credentials = token(account)
    else:
        (issuer,) = [issuer for issuer in issuers if issuer.url == account["issuer"]]
        credentials = KEY.sign(issuer.claims(account["subject"]))
    headers = {"Authorization": f"Bearer {credentials}"}
    hooks = {"request": [log_search.hide_names]}
    return Client(transport=transport, base_url="http://twins.test", headers=headers, event_hooks=hooks)


@pytest.fixture
def people(issuers: list[IssuerServer]) -> list[Account]:
    """Four accounts whose names look alike."""
    name = f"paula-{uuid4()}"
    one, two = issuers
    return [
        {"issuer": one.url, "subject": name},
        {"issuer": two.url, "subject": name},
        name,
        {"issuer": one.url, "subject": f"{name} "},
    ]


async def test_an_account_is_shown_as_it_was_named_and_stored_as_one_text(
    client_as: AsWhom, people: list[Account], stores: Stores
) -> None:
    owner = client_as("parties-owner")
    path = await make_twin(owner, consent=False, principals=people)
    consents = [await grant(owner, path, f"p{n}", principal=account) for n, account in enumerate(people)]

    assert (await owner.get(path)).json()["principals"] == people
    assert (await owner.get("/api/v1/twins")).json()["items"][0]["principals"] == people
    assert [consent["principal"] for consent in consents] == people
    listed = (await owner.get(f"{path}/consents")).json()["items"]
    assert [consent["principal"] for consent in listed[::-1]] == people
    for account, consent in zip(people, consents, strict=True):
        me = client_as(account)
        assert (await me.get("/api/v1/me")).json()["actor"] == account
        assert [item["id"] for item in (await me.get("/api/v1/me/consents")).json()["items"]] == [consent["id"]]
        assert (await me.get(location(consent))).json()["principal"] == account
    async with superuser(stores) as connection:
        principals = await connection.fetchval("SELECT principals FROM twins WHERE id = $1", id_of(path))
    assert principals == [it if isinstance(it, str) else f"{it['issuer']}\n{it['subject']}" for it in people]
    assert (await verify(owner, path))["valid"]


async def test_what_was_read_can_be_sent_back(client_as: AsWhom, people: list[Account]) -> None:
    owner = client_as("parties-reader")
    path = await make_twin(owner, principals=people)
    read = await owner.get(path)
    again = await owner.patch(path, json={"principals": read.json()["principals"]})

    assert (again.json(), again.headers["etag"]) == (read.json(), read.headers["etag"])
    assert (await owner.patch(path, json={"principals": people[1:]})).json()["principals"] == people[1:]


async def test_accounts_that_look_alike_never_meet(client_as: AsWhom, people: list[Account]) -> None:
    owner = client_as("parties-careful")
    for account in people:
        path = await make_twin(owner, consent=False, principals=[account])
        for other in people:
            client, body = client_as(other), {"purposes": ["voice"], "notice": NOTICE, "principal": account}
            if other == account:
                continue
            assert is_problem(await client.post(f"{path}/consents", json=body), 404, "not-found")
            assert is_problem(await client.post(f"{path}/refusals"), 404, "not-found")
        consent = await grant(client_as(account), path, "voice", principal=account)
        assert (await decide(owner, path, "voice"))["decision"] is True
        for other in people:
            if other != account:
                assert is_problem(await client_as(other).get(location(consent)), 404, "not-found")
                assert is_problem(await client_as(other).post(location(consent) + "/withdraw"), 404, "not-found")
        assert (await client_as(account).post(location(consent) + "/withdraw")).json()["withdrawn_by"] == "principal"
        assert (await decide(owner, path, "voice"))["decision"] is False


async def test_a_person_names_nobody_but_themself_in_any_form(client_as: AsWhom, people: list[Account]) -> None:
    path = await make_twin(client_as("parties-strict"), consent=False, principals=people)
    for account in people:
        for other in people:
            body = {"purposes": ["voice"], "notice": NOTICE, "principal": other}
            if other != account:
                refused = await client_as(account).post(f"{path}/consents", json=body)
                assert is_problem(refused, 422, "validation-failed")
                assert refused.json()["errors"] == [{"pointer": "#/principal", "detail": "must be your own account"}]


ISSUER = "https://issuer.example"

UNFIT: dict[str, tuple[Any, str | None]] = {
    "a line feed": (f"{ISSUER}\nsub", ""),
    "a control character": ("a\x7fb", ""),
    "a control character in the subject": ({"issuer": ISSUER, "subject": "a\x00b"}, "/subject"),
    "a line feed in the subject": ({"issuer": ISSUER, "subject": "org_id\nacme"}, "/subject"),
    "a line feed in the issuer": ({"issuer": f"{ISSUER}\n", "subject": "a"}, "/issuer"),
    "a space in the issuer": ({"issuer": "https://issuer example", "subject": "a"}, "/issuer"),
    "no character in the issuer": ({"issuer": "", "subject": "a"}, "/issuer"),
    "no visible character": ({"issuer": ISSUER, "subject": "\u200b"}, "/subject"),
    "a lone surrogate": ({"issuer": ISSUER, "subject": "\ud800"}, None),
    "a long issuer": ({"issuer": "i" * 256, "subject": "a"}, "/issuer"),
    "a long subject": ({"issuer": ISSUER, "subject": "s" * 256}, "/subject"),
    "a long string": ("s" * 256, ""),
    "no issuer": ({"subject": "a"}, "/issuer"),
    "no subject": ({"issuer": ISSUER}, "/subject"),
    "nothing": ({}, "/issuer"),
    "an organisation": ({"issuer": ISSUER, "organization": "acme"}, "/subject"),
    "one member more": ({"issuer": ISSUER, "subject": "a", "name": "A"}, "/name"),
    "null in the subject": ({"issuer": ISSUER, "subject": None}, "/subject"),
    "a number in the subject": ({"issuer": ISSUER, "subject": 7}, "/subject"),
    "a number": (7, ""),
    "a list": ([ISSUER, "a"], ""),
}


@pytest.mark.parametrize("name", UNFIT)
async def test_what_is_no_account_is_refused_with_its_place(client_as: AsWhom, name: str) -> None:
    account, place = UNFIT[name]
    owner = client_as("parties-unfit")
    path = await make_twin(owner, consent=False)
    consent = {"purposes": ["voice"], "notice": NOTICE, "principal": account}
    for method, where, body, pointer in (
        ("POST", f"{path}/consents", consent, "#/principal"),
        ("PATCH", path, {"principals": ["somebody", account]}, "#/principals/1"),
    ):
        content, headers = json.dumps(body), {"Content-Type": "application/json"}
        answer = await owner.request(method, where, content=content, headers=headers)
        if place is None:
            assert is_problem(answer, 400, "bad-request")
            continue
        assert is_problem(answer, 422, "validation-failed"), answer.text
        assert pointer + place in [error["pointer"] for error in answer.json()["errors"]]
    assert (await owner.get(path)).json()["principals"] == []
    assert (await owner.get(f"{path}/consents")).json()["items"] == []


async def test_the_longest_account_has_511_characters(client_as: AsWhom, stores: Stores) -> None:
    owner = client_as("parties-long")
    longest = {"issuer": f"https://{'i' * 247}", "subject": "ß" * 255}
    path = await make_twin(owner, consent=False, principals=[longest])

    assert (await grant(owner, path, "voice", principal=longest))["principal"] == longest
    async with superuser(stores) as connection:
        stored = await connection.fetchval("SELECT principal FROM consents WHERE twin_id = $1", id_of(path))
    assert len(stored) == 511


async def test_no_account_is_named_twice(client_as: AsWhom, people: list[Account]) -> None:
    owner = client_as("parties-twice")
    path = await make_twin(owner)
    for account in people:
        refused = await owner.patch(path, json={"principals": [*people, account]})
        assert is_problem(refused, 422, "validation-failed")
        assert refused.json()["errors"][0]["pointer"] == "#/principals"


# --- Where the subjects of an issuer are the accounts of HS256 tokens ------------------------------


@pytest.fixture(scope="module", params=FRONTS)
async def moved(
    request: pytest.FixtureRequest, environment: dict[str, str], issuers: list[IssuerServer]
) -> AsyncIterator[httpx.AsyncBaseTransport]:
    """The application after a deployment has moved from HS256 to the second issuer."""
    one, two = issuers
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("JWT_SECRETS")
        patch.setenv("AUTH_ISSUERS", json.dumps([one.entry(), two.entry(bare_subjects=True)]))
        async with front(request.param) as opened:
            yield opened


async def test_an_account_with_bare_subjects_has_two_names_and_is_one(
    moved: httpx.AsyncBaseTransport, issuers: list[IssuerServer]
) -> None:
    one, two = issuers
    name = f"paula-{uuid4()}"
    full, other = {"issuer": two.url, "subject": name}, {"issuer": one.url, "subject": name}
    owner, paula, stranger = (as_whom(moved, issuers, it) for it in ({"issuer": one.url, "subject": "o"}, full, other))
    for named in (full, name):
        path = await make_twin(owner, consent=False, principals=[named])
        assert (await owner.get(path)).json()["principals"] == [name]
        consent = await grant(paula, path, "voice", principal=named)
        assert consent["principal"] == name
        assert is_problem(await stranger.get(location(consent)), 404, "not-found")
    refused = await owner.patch(path, json={"principals": [name, full]})
    assert is_problem(refused, 422, "validation-failed")
    assert refused.json()["errors"] == [{"pointer": "#/principals", "detail": "must not name an account twice"}]
    body = {"twin_name": "Alex", "use_case": "x", "tone": "y", "consent": False, "principals": [full, name]}
    assert is_problem(await owner.post("/api/v1/twins", json=body), 422, "validation-failed")
    assert (await owner.patch(path, json={"principals": [other, full]})).json()["principals"] == [other, name]
