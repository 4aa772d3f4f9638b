"""Tokens of identity providers: which are refused and how, and what becomes of keys that move, age or vanish."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from shared import key_sets
from shared.auth import Authenticator, CurrentUser
from shared.digests import Digests
from shared.http.problems import NoOwner, Unauthorized, Unavailable
from shared.issuers import Issuer
from shared.key_sets import COOLDOWN, HARD, MAX_BYTES, MAX_MISSING, MISSING_FOR, SOFT, KeySet
from shared.tokens import StaticKeys
from tests.support.app import FRONTS, SECRET, Client, front, is_problem, token
from tests.support.issuer_server import AUDIENCE, Fault, IssuerServer, Signing, encoded, hs256
from twins.settings import Settings

RSA, EC = Signing("rsa"), Signing("ec", "ES256")
OTHER, WEAK = Signing("other"), Signing("weak", bits=1024)
P384 = Signing("p384", "ES384", curve=ec.SECP384R1())

# --- Over HTTP, on both fronts -------------------------------------------------------------------


@dataclass(frozen=True)
class Providers:
    """Two issuers, and the application that trusts both of them beside HS256."""

    one: IssuerServer
    two: IssuerServer
    client: Client

    async def get(self, credentials: str, path: str = "/api/v1/twins") -> httpx.Response:
        return await self.client.get(path, headers={"Authorization": f"Bearer {credentials}"})


@pytest.fixture(scope="module", params=FRONTS)
async def providers(request: pytest.FixtureRequest, environment: dict[str, str]) -> AsyncIterator[Providers]:
    async with IssuerServer() as one, IssuerServer() as two:
        one.keys = [
            EC.jwk(),  # the library fails where the first key of a set is of another family
            Signing("enc").jwk(use="enc", alg="RSA-OAEP"),
            RSA.jwk(),
            OTHER.jwk(kid="rs512", alg="RS512"),
            OTHER.jwk(kid="for-encryption", use="enc", alg=None),
            OTHER.jwk(kid="wraps", use=None, alg=None, key_ops=["wrapKey"]),
            OTHER.jwk(kid="twice", alg=None),
            RSA.jwk(kid="twice"),
            OTHER.jwk(kid="foreign", issuer="https://login.example/someone-else/v2.0"),
            OTHER.jwk(kid="private", d="AQAB"),
            WEAK.jwk(),
            P384.jwk(),
            {"kty": "oct", "kid": "oct", "k": encoded(SECRET.encode()), "alg": "HS256"},
            {"kty": "RSA", "kid": "broken", "n": [1], "e": "AQAB"},
            {"kty": {}, "kid": "kty", "n": "AQAB", "e": "AQAB"},
            {"kid": 7, **RSA.jwk(kid=None)},
            "no key",
        ]
        two.keys = [OTHER.jwk(), RSA.jwk(kid="shared")]
        rows = [one.entry(typ=["JWT", "application/at+jwt"]), two.entry(algorithms=["RS256"])]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AUTH_ISSUERS", json.dumps(rows))
            async with (
                front(request.param) as transport,
                httpx.AsyncClient(transport=transport, base_url="http://twins.test") as client,
            ):
                yield Providers(one, two, client)


type Make = Callable[[Providers], str]

REFUSED: dict[str, Make] = {
    "HS256 with the public key as PEM": lambda p: hs256({"kid": "rsa"}, p.one.claims(), RSA.pem),
    "HS256 with the public key as PEM without its last newline": lambda p: hs256({}, p.one.claims(), RSA.pem.strip()),
    "HS256 with the public key as DER": lambda p: hs256({"kid": "rsa"}, p.one.claims(), RSA.der),
    "HS256 with the public key as JWK": lambda p: hs256({"kid": "rsa"}, p.one.claims(), json.dumps(RSA.jwk()).encode()),
    "HS256 with our own secret in an issuer's name": lambda p: hs256({}, p.one.claims(), SECRET.encode()),
    "HS256 with a symmetric key of the set": lambda p: hs256({"kid": "oct"}, p.one.claims(), SECRET.encode()),
    "HS256 without an issuer, with its public key": lambda p: hs256({"kid": "rsa"}, p.one.claims(iss=None), RSA.pem),
    "none": lambda p: f"{encoded({'alg': 'none', 'kid': 'rsa'})}.{encoded(p.one.claims())}.",
    "none, signed": lambda p: RSA.sign(p.one.claims(), {"alg": "none"}),
    "no algorithm": lambda p: RSA.sign(p.one.claims(), {"alg": None}),
    "algorithms": lambda p: RSA.sign(p.one.claims(), {"alg": ["RS256"]}),
    "RS512 by a key for RS256": lambda p: RSA.sign(p.one.claims(), {"alg": "RS512"}, hashes.SHA512),
    "RS512 by a key for RS512": lambda p: OTHER.sign(p.one.claims(), {"alg": "RS512", "kid": "rs512"}, hashes.SHA512),
    "RS256 by a key for RS512": lambda p: OTHER.sign(p.one.claims(), {"kid": "rs512"}),
    "ES384": lambda p: P384.sign(p.one.claims(), hashed=hashes.SHA384),
    "ES256 where the issuer has RS256 only": lambda p: EC.sign(p.two.claims()),
    "ES256 with the id of an RSA key": lambda p: EC.sign(p.one.claims(), {"kid": "rsa"}),
    "RS256 with the id of an EC key": lambda p: RSA.sign(p.one.claims(), {"kid": "ec"}),
    "a key id of another issuer": lambda p: OTHER.sign(p.one.claims()),
    "a key of another issuer under a known id": lambda p: OTHER.sign(p.one.claims(), {"kid": "rsa"}),
    "the right key under another id": lambda p: RSA.sign(p.one.claims(), {"kid": "ec"}),
    "no key id": lambda p: RSA.sign(p.one.claims(), {"kid": None}),
    "a key id that is a number": lambda p: RSA.sign(p.one.claims(), {"kid": 7}),
    "a key id that is empty": lambda p: RSA.sign(p.one.claims(), {"kid": ""}),
    "a key id that is a list": lambda p: RSA.sign(p.one.claims(), {"kid": ["rsa"]}),
    "a key id that is a path": lambda p: RSA.sign(p.one.claims(), {"kid": "../../../../dev/null"}),
    "a key id that is a path to a key": lambda p: RSA.sign(p.one.claims(), {"kid": "/proc/self/root/keys/rsa"}),
    "a key id that is a statement": lambda p: RSA.sign(p.one.claims(), {"kid": "x' UNION SELECT 'key"}),
    "a key id with NUL": lambda p: RSA.sign(p.one.claims(), {"kid": "rsa\0"}),
    "a key of its own in jwk": lambda p: OTHER.sign(p.one.claims(), {"jwk": OTHER.jwk()}),
    "a key of its own at jku": lambda p: OTHER.sign(p.one.claims(), {"jku": f"{p.two.url}/keys"}),
    "a key of its own in x5c": lambda p: OTHER.sign(p.one.claims(), {"x5c": [base64.b64encode(OTHER.der).decode()]}),
    "a key of its own at x5u": lambda p: OTHER.sign(p.one.claims(), {"x5u": f"{p.two.url}/keys", "kid": "rsa"}),
    "an RSA key of 1,024 bits": lambda p: WEAK.sign(p.one.claims()),
    "an encryption key": lambda p: OTHER.sign(p.one.claims(), {"kid": "for-encryption"}),
    "a key that wraps others": lambda p: OTHER.sign(p.one.claims(), {"kid": "wraps"}),
    "an id that two keys have": lambda p: RSA.sign(p.one.claims(), {"kid": "twice"}),
    "a key that is published with its private half": lambda p: OTHER.sign(p.one.claims(), {"kid": "private"}),
    "a key that names another issuer": lambda p: OTHER.sign(p.one.claims(), {"kid": "foreign"}),
    "a key that is broken": lambda p: RSA.sign(p.one.claims(), {"kid": "broken"}),
    "an extension that must be understood": lambda p: RSA.sign(p.one.claims(), {"crit": ["exp"]}),
    "another type": lambda p: RSA.sign(p.one.claims(), {"typ": "secevent+jwt"}),
    "no type": lambda p: RSA.sign(p.one.claims(), {"typ": None}),
    "a type that is a list": lambda p: RSA.sign(p.one.claims(), {"typ": ["JWT"]}),
    "an issuer with a slash": lambda p: RSA.sign(p.one.claims(iss=f"{p.one.url}/")),
    "an issuer in capitals": lambda p: RSA.sign(p.one.claims(iss=p.one.url.upper())),
    "another issuer": lambda p: RSA.sign(p.one.claims(iss="https://other.example")),
    "issuers": lambda p: RSA.sign(p.one.claims(iss=[p.one.url])),
    "no issuer": lambda p: RSA.sign(p.one.claims(iss=None)),
    "the keys of one issuer for another": lambda p: RSA.sign(p.two.claims()),
    "another audience": lambda p: RSA.sign(p.one.claims(aud="https://payroll.example")),
    "an audience that begins alike": lambda p: RSA.sign(p.one.claims(aud=f"{AUDIENCE}/")),
    "other audiences": lambda p: RSA.sign(p.one.claims(aud=["https://payroll.example", "account"])),
    "no audience": lambda p: RSA.sign(p.one.claims(aud=None)),
    "an audience that is empty": lambda p: RSA.sign(p.one.claims(aud=[])),
    "an audience that is an object": lambda p: RSA.sign(p.one.claims(aud={AUDIENCE: 1})),
    "an audience in a list of lists": lambda p: RSA.sign(p.one.claims(aud=[[AUDIENCE]])),
    "no exp": lambda p: RSA.sign(p.one.claims(exp=None)),
    "exp as a string": lambda p: RSA.sign(p.one.claims(exp=str(int(time.time()) + 60))),
    "exp an object": lambda p: RSA.sign(p.one.claims(exp={})),
    "exp a century away": lambda p: RSA.sign(p.one.claims(exp=int(time.time()) + 100 * 365 * 86_400)),
    "expired": lambda p: RSA.sign(p.one.claims(exp=int(time.time()) - 1)),
    "not valid yet": lambda p: RSA.sign(p.one.claims(nbf=int(time.time()) + 60)),
    "no subject": lambda p: RSA.sign(p.one.claims(sub=None)),
    "a subject that is a number": lambda p: RSA.sign(p.one.claims(sub=42)),
    "a subject that is empty": lambda p: RSA.sign(p.one.claims(sub="")),
    "a subject with a line feed": lambda p: RSA.sign(p.one.claims(sub=f"{p.two.url}\nalice")),
    "a subject that is too long": lambda p: RSA.sign(p.one.claims(sub="a" * 256)),
    "scopes that are numbers": lambda p: RSA.sign(p.one.claims(scope=[1])),
    "scopes that are an object": lambda p: RSA.sign(p.one.claims(scope={"twins:decide": True})),
    "an id token": lambda p: RSA.sign(p.one.claims(at_hash="x")),
    "a signature cut short": lambda p: RSA.sign(p.one.claims())[:-4],
    "claims of another token": lambda p: ".".join(
        (RSA.sign(p.one.claims()).split(".")[0], encoded(p.one.claims("bob")), RSA.sign(p.one.claims()).split(".")[2])
    ),
    "claims that are no object": lambda p: RSA.sign([p.one.url]),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
async def test_a_token_that_an_issuer_did_not_make_for_us_is_refused(providers: Providers, make: Make) -> None:
    answer = await providers.get(make(providers))

    assert is_problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith('Bearer error="invalid_token", error_description="')
    assert "alice" not in answer.text


async def test_tokens_that_an_issuer_made_for_us_are_accepted(providers: Providers) -> None:
    for credentials in (
        RSA.sign(providers.one.claims()),
        EC.sign(providers.one.claims()),
        RSA.sign(providers.one.claims(), {"typ": "at+jwt"}),
        RSA.sign(providers.one.claims(), {"typ": "Application/AT+JWT"}),
        RSA.sign(providers.one.claims(aud=["https://payroll.example", AUDIENCE])),
        RSA.sign(providers.one.claims(iat=int(time.time()), nbf=int(time.time()) - 60, jti="1")),
        OTHER.sign(providers.two.claims(), {"typ": None}),
        token("alice"),
        token("alice", iss="https://somebody.example"),  # HS256 knows no table
    ):
        assert (await providers.get(credentials)).status_code == 200


async def test_the_keys_of_an_issuer_are_never_asked_for_by_what_a_token_says(providers: Providers) -> None:
    before = sum(providers.two.asked.values())
    for header in ({"jku": f"{providers.two.url}/elsewhere"}, {"x5u": f"{providers.two.url}/elsewhere"}):
        await providers.get(OTHER.sign(providers.one.claims(), header))

    assert sum(providers.two.asked.values()) == before
    assert "/elsewhere" not in providers.two.asked


async def test_one_subject_of_two_issuers_and_of_hs256_is_three_accounts(providers: Providers) -> None:
    sub = f"42-{providers.one.port}"
    shaped = f"{providers.one.url} {sub}"
    tokens = [
        RSA.sign(providers.one.claims(sub)),
        OTHER.sign(providers.two.claims(sub)),
        token(sub),
        token(shaped),
        token(f"{providers.one.url}\\n{sub}"),
    ]
    twin = {"twin_name": "Alex", "use_case": "support", "tone": "warm", "consent": True}
    paths = []
    for credentials in tokens:
        made = await providers.client.post(
            "/api/v1/twins",
            json=twin,
            headers={"Authorization": f"Bearer {credentials}", "Idempotency-Key": "the-same"},
        )
        assert made.status_code == 201
        assert "idempotency-replayed" not in made.headers
        paths.append(made.headers["location"])

    for credentials, mine in zip(tokens, paths, strict=True):
        listed = (await providers.get(credentials)).json()["items"]
        assert [f"/api/v1/twins/{item['id']}" for item in listed] == [mine]
        for path in paths:
            assert (await providers.get(credentials, path)).status_code == (200 if path == mine else 404)
    assert is_problem(await providers.get(token(f"{providers.one.url}\n{sub}")), 401, "unauthorized")


async def test_ready_does_not_ask_providers(providers: Providers) -> None:
    providers.one.fault = Fault(status=500)
    asked = sum(providers.one.asked.values())
    try:
        assert (await providers.client.get("/ready")).status_code == 200
    finally:
        providers.one.fault = None
    assert sum(providers.one.asked.values()) == asked


# --- The keys ------------------------------------------------------------------------------------


@pytest.fixture
async def server() -> AsyncIterator[IssuerServer]:
    async with IssuerServer() as running:
        running.keys = [RSA.jwk()]
        yield running


def authenticator(settings: Settings, *rows: dict[str, Any], hs: bool = True, **changes: Any) -> Authenticator:
    issuers = tuple(Issuer.model_validate(row) for row in rows)
    keys = StaticKeys([SECRET]) if hs else None
    return Authenticator(settings.model_copy(update={"auth_issuers": issuers} | changes), keys, Digests("d" * 32))


def key_set(asked: Authenticator) -> KeySet:
    return next(iter(asked._issuers.values()))._keys


async def user(asked: Authenticator, credentials: str) -> CurrentUser:
    return await asked.authenticate(f"Bearer {credentials}")


async def refusal(asked: Authenticator, credentials: str) -> str:
    with pytest.raises(Unauthorized) as refused:
        await user(asked, credentials)
    return refused.value.detail


def age(keys: KeySet, seconds: float) -> None:
    """Let a set get older."""
    for name in ("_due_at", "_expires_at", "_read_at", "_may_look_at"):
        setattr(keys, name, getattr(keys, name) - seconds)
    for kid in keys._missing:
        keys._missing[kid] -= seconds


async def settled(keys: KeySet) -> None:
    async with asyncio.timeout(5):
        while keys._task is not None:
            await asyncio.sleep(0.01)


async def test_a_hundred_first_tokens_fetch_once(settings: Settings, server: IssuerServer) -> None:
    asked = authenticator(settings, server.entry())
    users = await asyncio.gather(*(user(asked, RSA.sign(server.claims(f"user-{n}"))) for n in range(100)))

    assert {found.sub for found in users} == {f"{server.url}\nuser-{n}" for n in range(100)}
    assert server.asked == {"/metadata": 1, "/keys": 1}


async def test_a_provider_that_is_down_from_the_start_is_503_for_its_tokens_alone(
    settings: Settings, server: IssuerServer
) -> None:
    await server.stop()
    asked = authenticator(settings, server.entry())
    with pytest.raises(Unavailable) as refused:
        await user(asked, RSA.sign(server.claims()))

    assert int(refused.value.headers["Retry-After"]) >= 1
    assert (await user(asked, token("alice"))).sub == "alice"
    assert "issuer" in await refusal(authenticator(settings, server.entry(), hs=False), token("alice"))


async def test_known_keys_never_wait_and_are_fetched_again_in_the_background(
    settings: Settings, server: IssuerServer
) -> None:
    asked = authenticator(settings, server.entry())
    await user(asked, RSA.sign(server.claims()))
    keys = key_set(asked)
    age(keys, SOFT + 1)
    server.fault = Fault(delay=0.3)

    begun = time.monotonic()
    for n in range(20):
        await user(asked, RSA.sign(server.claims(f"user-{n}")))
    assert time.monotonic() - begun < 0.25
    await settled(keys)
    assert server.asked == {"/metadata": 1, "/keys": 2}  # the metadata once


async def test_remembered_tokens_keep_their_keys_fresh_too(settings: Settings, server: IssuerServer) -> None:
    asked = authenticator(settings, server.entry())
    good = RSA.sign(server.claims())
    first = await user(asked, good)
    age(key_set(asked), SOFT + 1)

    assert await user(asked, good) is first
    await settled(key_set(asked))
    assert server.asked["/keys"] == 2
    assert await user(asked, good) is first  # the key is the same one


@pytest.mark.parametrize("trouble", ["down", "500", "slow", "garbage", "large", "moved", "no keys", "deep"])
async def test_the_last_good_set_serves_while_the_provider_is_in_trouble(
    settings: Settings, server: IssuerServer, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_sets, "TIMEOUT", 0.3)
    asked = authenticator(settings, server.entry())
    await user(asked, RSA.sign(server.claims()))
    keys = key_set(asked)
    before = sum(count for (issuer, error), count in key_sets.fetches.items() if issuer == server.url and error)
    match trouble:
        case "down":
            await server.stop()
        case "500":
            server.fault = Fault(status=500)
        case "slow":
            server.fault = Fault(delay=30)
        case "garbage":
            server.answers["/keys"] = web.Response(body=b"<html>")
        case "large":
            server.keys = [RSA.jwk(padding="x" * MAX_BYTES)]
        case "moved":
            server.answers["/keys"] = web.Response(status=302, headers={"Location": f"{server.url}/elsewhere"})
        case "no keys":
            server.answers["/keys"] = web.Response(body=b'{"keys": {}}')
        case "deep":
            server.answers["/keys"] = web.Response(body=b"[" * 60_000)
    age(keys, SOFT + 1)
    await user(asked, RSA.sign(server.claims("bob")))
    await settled(keys)

    assert (await user(asked, RSA.sign(server.claims("carol")))).subject == "carol"
    after = sum(count for (issuer, error), count in key_sets.fetches.items() if issuer == server.url and error)
    assert after == before + 1
    assert "/elsewhere" not in server.asked
    age(keys, HARD)
    if trouble != "down":
        keys._due_at = 0
    with pytest.raises(Unavailable):
        await user(asked, RSA.sign(server.claims("dave")))


async def test_a_key_that_leaves_the_set_takes_the_tokens_it_signed_with_it(
    settings: Settings, server: IssuerServer
) -> None:
    asked = authenticator(settings, server.entry())
    good = RSA.sign(server.claims())
    await user(asked, good)
    server.keys = [EC.jwk()]
    age(key_set(asked), SOFT + 1)
    await user(asked, good)
    await settled(key_set(asked))

    assert "does not publish" in await refusal(asked, good)
    assert (await user(asked, EC.sign(server.claims()))).subject == "alice"


async def test_another_key_under_a_known_id_replaces_it(settings: Settings, server: IssuerServer) -> None:
    asked = authenticator(settings, server.entry())
    good = RSA.sign(server.claims())
    await user(asked, good)
    server.keys = [OTHER.jwk(kid="rsa")]
    age(key_set(asked), SOFT + 1)
    await user(asked, good)
    await settled(key_set(asked))

    assert await refusal(asked, good) == "The token is not valid."
    assert (await user(asked, OTHER.sign(server.claims(), {"kid": "rsa"}))).subject == "alice"


async def test_an_empty_set_empties_ours(settings: Settings, server: IssuerServer) -> None:
    asked = authenticator(settings, server.entry())
    good = RSA.sign(server.claims())
    await user(asked, good)
    server.keys = []
    age(key_set(asked), SOFT + 1)
    await user(asked, good)
    await settled(key_set(asked))

    assert "does not publish" in await refusal(asked, good)


async def test_a_new_key_is_found_by_its_first_token_for_all_that_come_at_once(
    settings: Settings, server: IssuerServer
) -> None:
    asked = authenticator(settings, server.entry())
    await user(asked, RSA.sign(server.claims()))
    server.keys = [RSA.jwk(), OTHER.jwk()]
    server.fault = Fault(delay=0.1)

    found = await asyncio.gather(*(user(asked, OTHER.sign(server.claims(f"user-{n}"))) for n in range(50)))
    assert len(found) == 50
    assert server.asked["/keys"] == 2


async def test_a_fetch_that_began_too_early_is_not_the_last_word(settings: Settings, server: IssuerServer) -> None:
    asked = authenticator(settings, server.entry())
    await user(asked, RSA.sign(server.claims()))
    server.fault = Fault(delay=0.2)
    age(key_set(asked), SOFT + 1)
    server.answers["/keys"] = web.json_response({"keys": [RSA.jwk()]})
    await user(asked, RSA.sign(server.claims("bob")))  # begins a fetch that will not see the new key
    waiting = asyncio.create_task(user(asked, OTHER.sign(server.claims())))
    await asyncio.sleep(0.25)
    del server.answers["/keys"]
    server.keys = [RSA.jwk(), OTHER.jwk()]

    assert (await waiting).subject == "alice"


async def test_unknown_ids_cause_one_fetch_in_a_while_and_are_forgotten_in_the_end(
    settings: Settings, server: IssuerServer
) -> None:
    asked = authenticator(settings, server.entry())
    await refusal(asked, OTHER.sign(server.claims(), {"kid": "made-up"}))
    assert server.asked["/keys"] == 1  # the first fetch, which came after the question
    for n in range(200):
        await refusal(asked, OTHER.sign(server.claims(), {"kid": f"made-up-{n}"}))
    assert server.asked["/keys"] == 2
    keys = key_set(asked)

    age(keys, COOLDOWN)
    await refusal(asked, OTHER.sign(server.claims(), {"kid": "made-up-0"}))
    assert server.asked["/keys"] == 2  # it is known to be missing
    await refusal(asked, OTHER.sign(server.claims(), {"kid": "made-up-1"}))
    assert server.asked["/keys"] == 3
    age(keys, MISSING_FOR)
    server.keys = [RSA.jwk(), OTHER.jwk(kid="made-up-0")]
    assert (await user(asked, OTHER.sign(server.claims(), {"kid": "made-up-0"}))).subject == "alice"
    for n in range(MAX_MISSING + 10):
        age(keys, COOLDOWN + 1)
        await refusal(asked, OTHER.sign(server.claims(), {"kid": f"other-{n}"}))
    assert len(keys._missing) == MAX_MISSING


async def test_unknown_ids_while_the_provider_is_down_are_refused_and_known_ones_go_on(
    settings: Settings, server: IssuerServer
) -> None:
    asked = authenticator(settings, server.entry())
    await user(asked, RSA.sign(server.claims()))
    await server.stop()
    for n in range(10):
        await refusal(asked, OTHER.sign(server.claims(), {"kid": f"made-up-{n}"}))
        await user(asked, RSA.sign(server.claims(f"user-{n}")))
    failed = sum(count for (issuer, error), count in key_sets.fetches.items() if issuer == server.url and error)
    assert failed == 1
    assert key_sets.unknown_ids[server.url] == 10
    keys = key_set(asked)
    assert keys._due_at > time.time() + SOFT / 2  # the set is fresh, so nothing is fetched before the cooldown


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://other.example"},
        {"issuer": None},
        {"jwks_uri": None},
        {"jwks_uri": "http://keys.example/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": ["https://keys.example"]},
    ],
)
async def test_metadata_of_somebody_else_or_with_an_unsafe_address_is_refused(
    settings: Settings, server: IssuerServer, metadata: dict[str, Any]
) -> None:
    server.metadata = metadata
    with pytest.raises(Unavailable):
        await user(authenticator(settings, server.entry()), RSA.sign(server.claims()))
    assert "/keys" not in server.asked


async def test_metadata_that_moves_is_not_followed(settings: Settings, server: IssuerServer) -> None:
    server.answers["/metadata"] = web.Response(status=307, headers={"Location": f"{server.url}/elsewhere"})
    with pytest.raises(Unavailable):
        await user(authenticator(settings, server.entry()), RSA.sign(server.claims()))
    assert server.asked == {"/metadata": 1}


async def test_an_address_of_keys_needs_no_metadata(settings: Settings, server: IssuerServer) -> None:
    asked = authenticator(settings, server.entry(discovery=None, jwks_uri=f"{server.url}/keys"))

    assert (await user(asked, RSA.sign(server.claims()))).subject == "alice"
    assert server.asked == {"/keys": 1}


async def test_an_address_elsewhere_goes_through_the_proxy_of_the_environment(
    settings: Settings, server: IssuerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readline())
        writer.close()

    async with await asyncio.start_server(proxy, "127.0.0.1", 0) as listening:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        row = server.entry(discovery=None, jwks_uri="https://keys.example/keys")
        with pytest.raises(Unavailable):
            await user(authenticator(settings, row), RSA.sign(server.claims()))
    assert seen == [b"CONNECT keys.example:443 HTTP/1.1\r\n"]


# --- Who it is -----------------------------------------------------------------------------------


TEMPLATE = "https://login.example/{tenantid}/v2.0"


async def test_a_template_is_for_the_listed_tenants_and_their_keys_alone(
    settings: Settings, server: IssuerServer
) -> None:
    server.metadata = {"issuer": TEMPLATE}
    server.keys = [
        RSA.jwk(issuer=TEMPLATE),
        OTHER.jwk(issuer="https://login.example/two/v2.0"),
    ]
    row = server.entry(issuer=TEMPLATE, tenants=["one", "two"], owner_claim="tid")
    asked = authenticator(settings, row)

    def claims(tenant: str) -> dict[str, Any]:
        return server.claims(iss=f"https://login.example/{tenant}/v2.0", tid=tenant)

    one = await user(asked, RSA.sign(claims("one")))
    assert one.sub == "https://login.example/one/v2.0\nalice"
    assert one.owner == "https://login.example/one/v2.0\ntid\none"
    assert (await user(asked, OTHER.sign(claims("two")))).issuer == "https://login.example/two/v2.0"
    assert "does not publish" in await refusal(asked, OTHER.sign(claims("one")))
    for tenant in ("three", "{tenantid}", "one/v2.0/../two", ""):
        assert "issuer" in await refusal(authenticator(settings, row, hs=False), RSA.sign(claims(tenant)))


async def test_an_organisation_owns_and_its_member_acts(settings: Settings, server: IssuerServer) -> None:
    asked = authenticator(settings, server.entry(owner_claim="org_id"))
    alice, bob = [await user(asked, RSA.sign(server.claims(sub, org_id="acme"))) for sub in ("alice", "bob")]
    elsewhere = await user(asked, RSA.sign(server.claims("alice", org_id="umbrella")))
    alone = await user(asked, RSA.sign(server.claims("alice")))
    named_like_it = await user(asked, RSA.sign(server.claims("org_id", org_id="alice")))

    assert alice.owner == bob.owner == f"{server.url}\norg_id\nacme"
    assert alice.sub == elsewhere.sub == alone.sub == f"{server.url}\nalice"
    assert alice.owner != elsewhere.owner
    assert len({alice.seat, bob.seat, elsewhere.seat, alone.seat, named_like_it.seat}) == 5
    with pytest.raises(NoOwner):
        _ = alone.owner
    assert alice.logged["account"] == bob.logged["account"] != alone.logged["account"]
    assert alice.logged["actor"] != bob.logged["actor"]
    assert alice.logged["actor"] == alone.logged["account"]


@pytest.mark.parametrize("organisation", ["", 7, ["acme"], "a\nb", "o" * 256, "\u202eacme"])
async def test_an_organisation_that_is_no_name_is_refused(
    settings: Settings, server: IssuerServer, organisation: Any
) -> None:
    asked = authenticator(settings, server.entry(owner_claim="org_id"))

    assert "org_id" in await refusal(asked, RSA.sign(server.claims(org_id=organisation)))


async def test_names_that_are_too_long_together_are_refused(settings: Settings, server: IssuerServer) -> None:
    issuer = "https://id.example/" + "i" * 236
    asked = authenticator(
        settings, server.entry(issuer=issuer, discovery=None, jwks_uri=f"{server.url}/keys", owner_claim="org_id")
    )
    good = server.claims("s" * 255, iss=issuer)

    assert len((await user(asked, RSA.sign(good))).sub) == 511
    assert "511" in await refusal(asked, RSA.sign(good | {"org_id": "o" * 255}))


async def test_subject_and_scopes_come_from_the_configured_claims(settings: Settings, server: IssuerServer) -> None:
    row = server.entry(subject_claim="oid", scope_claims=["scp", "roles", "permissions"])
    asked = authenticator(settings, row)
    claims = server.claims(
        "pairwise", oid="the-object", scp="twins:read twins/decide", roles=["twins:erase", "https://x.example/y"]
    )
    found = await user(asked, RSA.sign(claims | {"scope": "twins:stop", "appid": "the-app"}))

    assert (found.subject, found.client) == ("the-object", "the-app")
    assert found.scopes == {"twins:read", "twins:decide", "twins:erase", "https://x.example/y"}
    assert "oid" in await refusal(asked, RSA.sign(server.claims("pairwise")))


async def test_an_issuer_with_a_slash_at_its_end_is_not_the_one_without(
    settings: Settings, server: IssuerServer
) -> None:
    row = server.entry(issuer=f"{server.url}/", discovery=None, jwks_uri=f"{server.url}/keys")
    asked = authenticator(settings, row, hs=False)

    assert (await user(asked, RSA.sign(server.claims("alice", iss=f"{server.url}/")))).issuer == f"{server.url}/"
    assert "not accepted here" in await refusal(asked, RSA.sign(server.claims("alice")))


async def test_a_token_of_an_issuer_counts_a_little_before_its_nbf_and_never_after_its_exp(
    settings: Settings, server: IssuerServer
) -> None:
    now = int(time.time())
    patient, strict = (
        authenticator(settings.model_copy(update={"jwt_nbf_leeway": leeway}), server.entry()) for leeway in (30, 0)
    )
    soon = RSA.sign(server.claims("alice", nbf=now + 20))

    assert (await user(patient, soon)).subject == "alice"
    assert "not valid yet" in await refusal(strict, soon)
    assert "expired" in await refusal(patient, RSA.sign(server.claims("alice", exp=now - 2)))


async def test_bare_subjects_are_the_accounts_that_hs256_tokens_had(settings: Settings, server: IssuerServer) -> None:
    before = await user(authenticator(settings), token("alice"))
    asked = authenticator(settings, server.entry(bare_subjects=True), hs=False)
    after = await user(asked, RSA.sign(server.claims("alice")))

    assert (after.sub, after.owner, after.logged) == (before.sub, before.owner, before.logged)
    assert after.issuer == server.url
