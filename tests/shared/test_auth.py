"""Bearer tokens: which are taken, which are refused and how, and for how long an outcome is kept."""

import base64
import hashlib
import hmac
import json
import re
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jose import jwt

from shared.auth import MAX_TOKEN, Authenticator, CurrentUser
from shared.digests import Digests
from shared.http.problems import Unauthorized
from shared.tokens import StaticKeys
from tests.support.app import SECRET, Client, ClientOf, is_problem, token
from twins.app import create_app
from twins.settings import Settings

OTHER = "another-secret-only-for-the-tests-of-32-bytes-and-more"
HS256 = {"alg": "HS256", "typ": "JWT"}
LATER = int(time.time()) + 3600

CHALLENGE = re.compile(r'Bearer error="(invalid_request|invalid_token)", error_description="[\x20\x21\x23-\x7e]+"')
"""RFC 6750 §3, with a description of the characters that it allows."""


def make(header: Any, payload: Any, key: str = SECRET) -> str:
    """Sign whatever is given, as JSON or as the bytes themselves."""
    parts = [it if isinstance(it, bytes) else json.dumps(it).encode() for it in (header, payload)]
    signed = ".".join(_base64(part) for part in parts)
    return f"{signed}.{_base64(hmac.digest(key.encode(), signed.encode(), hashlib.sha256))}"


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def claims(text: str) -> str:
    """Sign `sub` and `exp` followed by members as they stand in `text`."""
    return make(HS256, f'{{"sub":"alice","exp":{LATER},{text}}}'.encode())


def _rs256() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return token("alice", key=pem.decode(), algorithm="RS256")


GOOD = make(HS256, {"sub": "alice", "exp": LATER})
UNSIGNED = GOOD.rpartition(".")[0]

REFUSED = {
    "empty": "",
    "no dots": "alice",
    "only dots": "..",
    "five parts, as an encrypted token has": "a.b.c.d.e",
    "not base64": "!.!.!",
    "not ASCII": "é.é.é",
    "too long": GOOD + "A" * MAX_TOKEN,
    "header is no object": make([1], {"sub": "alice", "exp": LATER}),
    "header is no JSON": make(b"{", {"sub": "alice", "exp": LATER}),
    "header of thousands of levels": make(b"[" * 6000, b""),
    "payload is no object": make(HS256, ["alice"]),
    "payload is no JSON": make(HS256, b'{"sub"'),
    "payload is no UTF-8": make(HS256, b'{"sub":"\xff"}'),
    "no signature": f"{UNSIGNED}.",
    "signature cut short": GOOD[:-4],
    "another key": make(HS256, {"sub": "alice", "exp": LATER}, OTHER),
    "algorithm none without a signature": make({"alg": "none"}, {"sub": "alice", "exp": LATER}).rpartition(".")[0]
    + ".",
    "an extension that must be understood": make(
        HS256 | {"crit": ["b64"], "b64": False}, {"sub": "alice", "exp": LATER}
    ),
    "algorithm none, signed": make({"alg": "none"}, {"sub": "alice", "exp": LATER}),
    "algorithm None": make({"alg": "None"}, {"sub": "alice", "exp": LATER}),
    "no algorithm": make({}, {"sub": "alice", "exp": LATER}),
    "algorithm is a list": make({"alg": ["HS256"]}, {"sub": "alice", "exp": LATER}),
    "HS384 with our key": token("alice", algorithm="HS384"),
    "HS512 with our key": token("alice", algorithm="HS512"),
    "RS256 with our key as HMAC": make({"alg": "RS256"}, {"sub": "alice", "exp": LATER}),
    "RS256 with a key of its own": _rs256(),
    "payload of another token": f"{UNSIGNED.partition('.')[0]}.{_base64(b'{}')}.{GOOD.rpartition('.')[2]}",
    "no sub": make(HS256, {"exp": LATER}),
    "sub null": make(HS256, {"sub": None, "exp": LATER}),
    "sub a number": make(HS256, {"sub": 7, "exp": LATER}),
    "sub a list": make(HS256, {"sub": ["alice"], "exp": LATER}),
    "sub empty": make(HS256, {"sub": "", "exp": LATER}),
    "sub blank": make(HS256, {"sub": " \t", "exp": LATER}),
    "sub invisible": make(HS256, {"sub": "\u200b", "exp": LATER}),
    "sub with a newline": make(HS256, {"sub": "alice\n", "exp": LATER}),
    "sub with NUL": make(HS256, {"sub": "alice\0", "exp": LATER}),
    "sub with a lone surrogate": make(HS256, rb'{"sub":"\ud800","exp":%d}' % LATER),
    "sub too long": make(HS256, {"sub": "a" * 256, "exp": LATER}),
    "no exp": make(HS256, {"sub": "alice"}),
    "exp null": make(HS256, {"sub": "alice", "exp": None}),
    "exp 1e400": make(HS256, b'{"sub":"alice","exp":1e400}'),
    "exp NaN": make(HS256, b'{"sub":"alice","exp":NaN}'),
    "exp of more digits than Python reads": make(HS256, b'{"sub":"alice","exp":1%s}' % (b"0" * 5000)),
    "exp an object": make(HS256, {"sub": "alice", "exp": {}}),
    "exp a word": make(HS256, {"sub": "alice", "exp": "tomorrow"}),
    "exp false": make(HS256, {"sub": "alice", "exp": False}),
    "exp true": make(HS256, {"sub": "alice", "exp": True}),
    "exp a string of digits": make(HS256, {"sub": "alice", "exp": str(LATER)}),
    "exp of a stolen token for ever": make(HS256, {"sub": "alice", "exp": LATER + 100 * 365 * 86_400}),
    "exp that no float can hold": make(HS256, b'{"sub":"alice","exp":1%s}' % (b"0" * 400)),
    "nbf a string of digits": claims('"nbf":"1"'),
    "iat a string of digits": claims('"iat":"1"'),
    "for an audience, where none is configured": claims('"aud":"payroll"'),
    "for audiences, where none is configured": claims('"aud":["payroll","twins"]'),
    "for no audience, where none is configured": claims('"aud":null'),
    "expired": make(HS256, {"sub": "alice", "exp": LATER - 3602}),
    "nbf a list": claims('"nbf":[]'),
    "nbf null": claims('"nbf":null'),
    "nbf 1e400": claims('"nbf":1e400'),
    "not valid yet": claims(f'"nbf":{LATER}'),
    "iat an object": claims('"iat":{}'),
    "jti a number": claims('"jti":1'),
    "scope a list": claims('"scope":["twins:decide"]'),
    "scope null": claims('"scope":null'),
}


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
async def test_a_token_that_is_not_valid_is_refused_with_a_challenge(anyone: Client, refused: str) -> None:
    answer = await anyone.get("/api/v1/twins", headers={b"Authorization": f"Bearer {refused}".encode()})

    assert is_problem(answer, 401, "unauthorized")
    assert CHALLENGE.fullmatch(answer.headers["www-authenticate"])
    assert "alice" not in answer.text


@pytest.mark.parametrize("header", [None, "", f"Basic {GOOD}", GOOD, f"Token {GOOD}"])
async def test_a_request_without_a_bearer_token_is_asked_for_one_and_told_of_no_error(
    anyone: Client, header: str | None
) -> None:
    answer = await anyone.get("/api/v1/twins", headers={} if header is None else {"Authorization": header})

    assert is_problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"  # RFC 6750 §3.1
    assert answer.json()["detail"] == "A bearer token is needed."


@pytest.mark.parametrize("other", [f"Bearer {GOOD}", "Bearer x", "Basic x", ""])
async def test_two_authorization_headers_are_refused_whatever_they_say(anyone: Client, other: str) -> None:
    for first, second in ((f"Bearer {GOOD}", other), (other, f"Bearer {GOOD}")):
        answer = await anyone.get("/api/v1/twins", headers=[("Authorization", first), ("Authorization", second)])

        assert is_problem(answer, 400, "bad-request")
        assert GOOD not in answer.text


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", f"Bearer  {GOOD}"])
async def test_a_header_that_is_not_well_formed_is_refused(anyone: Client, header: str) -> None:
    answer = await anyone.get("/api/v1/twins", headers={"Authorization": header})

    assert is_problem(answer, 401, "unauthorized")
    assert CHALLENGE.fullmatch(answer.headers["www-authenticate"])


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        ("expired", "The token has expired"),
        ("not valid yet", "The token is not valid yet"),
        ("no exp", "The token lacks a required claim"),
        ("another key", "The token is not valid"),
        ("too long", "The token is longer than 8,192 characters"),
        ("exp a string of digits", "The claims exp, nbf and iat must be numbers"),
        ("exp of a stolen token for ever", "The token is valid for more than 172,800 seconds from now"),
        (
            "for an audience, where none is configured",
            "The token is for an audience, and this service has none configured",
        ),
        ("sub blank", "The sub claim must be 1 to 255 printable characters"),
    ],
)
async def test_the_challenge_says_what_is_wrong_with_the_token(anyone: Client, refused: str, reason: str) -> None:
    answer = await anyone.get("/api/v1/twins", headers={"Authorization": f"Bearer {REFUSED[refused]}"})

    assert answer.headers["www-authenticate"] == f'Bearer error="invalid_token", error_description="{reason}"'
    assert answer.json()["detail"] == f"{reason}."


async def test_the_token_is_judged_before_anything_else_of_the_request(anyone: Client, alice: Client) -> None:
    for method, path, content in (
        ("POST", "/api/v1/twins", b"{"),
        ("POST", "/api/v1/twins", b"x" * (1024 * 1024 + 1)),
        ("PATCH", "/api/v1/twins/not-an-id", b"[" * 10_000),
        ("GET", "/api/v1/twins?unknown=1&limit=0", b""),
        ("PUT", "/api/v1/twins/not-an-id/persona", b"\xff"),
    ):
        asked = {"content": content, "headers": {"Content-Type": "text/plain"}}
        assert (await anyone.request(method, path, **asked)).status_code == 401  # type: ignore[arg-type]
        assert (await alice.request(method, path, **asked)).status_code in {413, 415, 422}  # type: ignore[arg-type]


async def test_the_scheme_may_be_written_in_any_case(anyone: Client) -> None:
    for scheme in ("bearer", "BEARER"):
        answer = await anyone.get("/api/v1/twins", headers={"Authorization": f"{scheme} {GOOD}"})
        assert answer.status_code == 200


async def test_the_longest_and_the_strangest_accounts_are_accounts_of_their_own(client_of: ClientOf) -> None:
    for sub in ("a" * 255, "Zoë 🚲", "a|b/c?d=%20", "' OR 1=1 --", "auth0|" + "é" * 200):
        assert (await client_of(sub).get("/api/v1/twins")).status_code == 200


# --- With settings of its own --------------------------------------------------------------------


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class Rotating:
    """Keys that a test changes."""

    def __init__(self, *keys: str) -> None:
        self.keys = keys

    async def values(self) -> tuple[str, ...]:
        return self.keys


@pytest.fixture
def clock() -> Clock:
    return Clock()


def authenticator(settings: Settings, keys: Any = None, clock: Any = time.time, **changes: Any) -> Authenticator:
    return Authenticator(settings.model_copy(update=changes), keys or StaticKeys([SECRET]), Digests("d" * 32), clock)


async def user(asked: Authenticator, credentials: str) -> CurrentUser:
    return await asked.authenticate(f"Bearer {credentials}")


async def refusal(asked: Authenticator, credentials: str) -> str:
    with pytest.raises(Unauthorized) as refused:
        await user(asked, credentials)
    return refused.value.detail


@pytest.mark.parametrize("audience", [None, "other", ["other"], [], 7, {}, [7]])
async def test_a_configured_audience_must_be_in_the_token(settings: Settings, audience: Any) -> None:
    asked = authenticator(settings, jwt_audience="twins")

    assert (await user(asked, token("alice", aud="twins"))).sub == "alice"
    assert (await user(asked, token("alice", aud=["other", "twins"]))).sub == "alice"
    await refusal(asked, token("alice", aud=audience))


@pytest.mark.parametrize("issuer", [None, "https://other.example", "", 7, {}, ["https://id.example"]])
async def test_a_configured_issuer_must_be_in_the_token(settings: Settings, issuer: Any) -> None:
    asked = authenticator(settings, jwt_issuer="https://id.example")

    assert (await user(asked, token("alice", iss="https://id.example"))).sub == "alice"
    await refusal(asked, token("alice", iss=issuer))


async def test_where_none_is_configured_any_issuer_will_do_and_no_audience(settings: Settings) -> None:
    assert (await user(authenticator(settings), token("alice", iss="y"))).sub == "alice"
    assert "audience" in await refusal(authenticator(settings), token("alice", aud="x", iss="y"))


async def test_a_token_may_end_as_late_as_configured_and_no_later(settings: Settings, clock: Clock) -> None:
    asked = authenticator(settings, clock=clock, jwt_max_life=100)

    assert (await user(asked, token("alice", exp=int(clock.now) + 100))).sub == "alice"
    assert "100 seconds" in await refusal(asked, token("alice", exp=int(clock.now) + 102))
    clock.now += 2
    assert (await user(asked, token("bob", exp=int(clock.now) + 100))).sub == "bob"


async def test_a_token_counts_a_little_before_its_nbf_as_configured_and_never_after_its_exp(settings: Settings) -> None:
    now = int(time.time())
    soon, late = token("alice", nbf=now + 20), token("alice", exp=now - 2)

    assert (await user(authenticator(settings, jwt_nbf_leeway=30), soon)).sub == "alice"
    assert (await user(authenticator(settings), token("alice", nbf=now + 5))).sub == "alice"
    for leeway in (0, 10):
        assert "not valid yet" in await refusal(authenticator(settings, jwt_nbf_leeway=leeway), soon)
    for leeway in (0, 300):
        assert "expired" in await refusal(authenticator(settings, jwt_nbf_leeway=leeway), late)


async def test_the_refusal_tells_audience_and_issuer_apart(settings: Settings) -> None:
    asked = authenticator(settings, jwt_audience="twins", jwt_issuer="https://id.example")

    assert "audience" in await refusal(asked, token("alice", aud="x", iss="https://id.example"))
    assert "issuer" in await refusal(asked, token("alice", aud="twins", iss="x"))
    assert "required claim" in await refusal(asked, token("alice", aud="twins"))


async def test_exp_may_be_absent_only_where_that_is_configured(settings: Settings) -> None:
    without = token("alice", exp=None)

    assert "required claim" in await refusal(authenticator(settings, jwt_require_exp=True), without)
    assert (await user(authenticator(settings, jwt_require_exp=False), without)).sub == "alice"


async def test_the_application_wires_its_settings_to_its_authenticator(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"jwt_audience": "twins", "jwt_require_exp": False}))
    asked: Authenticator = app.state.context.authenticator

    assert (await user(asked, token("alice", aud="twins", exp=None))).sub == "alice"
    assert "audience" in await refusal(asked, token("alice", aud="x"))


async def test_each_key_of_a_rotation_verifies_and_the_best_reason_is_told(settings: Settings) -> None:
    asked = authenticator(settings, StaticKeys([OTHER, SECRET]))

    assert (await user(asked, token("alice", key=SECRET))).sub == "alice"
    assert (await user(asked, token("alice", key=OTHER))).sub == "alice"
    for key in (SECRET, OTHER):
        assert await refusal(asked, token("alice", key=key, exp=1)) == "The token has expired."
    assert await refusal(asked, token("alice", key="x" * 32)) == "The token is not valid."


async def test_scopes_are_delimited_by_spaces(settings: Settings) -> None:
    asked = authenticator(settings)
    found = await user(asked, token("a-service", scope="twins:decide  other"))

    assert found.scopes == {"twins:decide", "other"}
    assert (await user(asked, token("alice"))).scopes == set()


async def test_a_user_is_named_in_logs_by_a_digest_that_needs_the_key(settings: Settings) -> None:
    one = await user(authenticator(settings), token("alice"))
    again = await user(authenticator(settings), token("alice", nonce=1))
    other_key = Authenticator(settings, StaticKeys([SECRET]), Digests("e" * 32))

    assert one.logged == again.logged
    assert one.logged.keys() == {"account"}
    assert one.logged != (await user(authenticator(settings), token("bob"))).logged
    assert one.logged != (await user(other_key, token("alice"))).logged
    assert "alice" not in str(one.logged)


# --- Remembered outcomes -------------------------------------------------------------------------


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tokens that were really verified, in order."""
    seen: list[str] = []
    decode = jwt.decode

    def counted(credentials: str, *args: Any, **options: Any) -> Any:
        seen.append(credentials)
        return decode(credentials, *args, **options)

    monkeypatch.setattr(jwt, "decode", counted)
    return seen


async def test_a_token_is_verified_once_in_its_life(settings: Settings, clock: Clock, decodes: list[str]) -> None:
    asked = authenticator(settings, clock=clock)
    good = token("alice", exp=int(clock.now) + 60)
    first = await user(asked, good)
    clock.now += 59

    assert await user(asked, good) is first
    assert decodes == [good]


async def test_a_token_ends_at_the_moment_of_its_exp_remembered_or_not(settings: Settings, clock: Clock) -> None:
    soon = int(time.time()) + 60
    good = token("alice", exp=soon)
    remembers = authenticator(settings, clock=clock)
    await user(remembers, good)
    clock.now = soon  # RFC 7519 §4.1.4: on or after it the token must not be accepted

    assert await refusal(remembers, good) == "The token has expired."
    assert await refusal(authenticator(settings, clock=clock), good) == "The token has expired."


async def test_an_outcome_without_exp_is_remembered_for_minutes_not_for_ever(
    settings: Settings, clock: Clock, decodes: list[str]
) -> None:
    asked = authenticator(settings, clock=clock, jwt_require_exp=False)
    good = token("alice", exp=None)
    await user(asked, good)
    clock.now += 299
    await user(asked, good)
    assert len(decodes) == 1
    clock.now += 2
    await user(asked, good)
    assert len(decodes) == 2


async def test_a_refusal_is_never_remembered(settings: Settings, decodes: list[str]) -> None:
    asked = authenticator(settings)
    for n in (1, 2):
        await refusal(asked, REFUSED["another key"])
        assert len(decodes) == n
    assert not asked._verified


async def test_a_rotated_key_takes_effect_at_once(settings: Settings) -> None:
    keys = Rotating(SECRET)
    asked = authenticator(settings, keys)
    old = token("alice", key=SECRET)
    await user(asked, old)

    keys.keys = (OTHER, SECRET)
    assert (await user(asked, old)).sub == "alice"
    keys.keys = (OTHER,)
    assert await refusal(asked, old) == "The token is not valid."
    assert (await user(asked, token("alice", key=OTHER))).sub == "alice"


async def test_a_flood_of_tokens_pushes_out_the_oldest_outcome(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, decodes: list[str]
) -> None:
    monkeypatch.setattr("shared.auth._CACHE_SIZE", 3)
    asked = authenticator(settings)
    tokens = [token(f"user-{n}") for n in range(5)]
    for good in tokens:
        await user(asked, good)
        assert len(asked._verified) <= 3

    await user(asked, tokens[4])
    assert len(decodes) == 5
    await user(asked, tokens[0])
    assert len(decodes) == 6
