"""Tokens (RFC 7519, RFC 8725): signatures and standard claims; only this module verifies them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from jose import jwt
from jose.exceptions import JOSEError

from shared.http.problems import Unauthorized
from shared.issuers import TENANT, Issuer
from shared.key_sets import KeySet, PublicKey
from shared.settings import Settings

_DATES = ("exp", "nbf", "iat")


class Keys(Protocol):
    """A source of keys; the tuple changes when a key is rotated."""

    async def values(self) -> tuple[str, ...]:
        """Return the accepted keys, newest first; raises `Unavailable` while there are none."""


class StaticKeys:
    """Keys that stay the same for the life of the process."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = tuple(keys)

    async def values(self) -> tuple[str, ...]:
        """Return the keys."""
        return self._keys


def refuse(description: str, code: str = "invalid_token") -> Unauthorized:
    """Return the answer to a token or header, with a sentence that never quotes it."""
    challenge = f'Bearer error="{code}", error_description="{description}"'
    return Unauthorized(f"{description}.", headers={"WWW-Authenticate": challenge})


def ask() -> Unauthorized:
    """Return the challenge to a request without known credentials, which has no error code (RFC 6750 §3.1)."""
    return Unauthorized("A bearer token is needed.", headers={"WWW-Authenticate": "Bearer"})


class Secrets:
    """Verifies HS256 tokens."""

    def __init__(self, settings: Settings, source: Keys) -> None:
        self._settings = settings
        self.source = source

    async def holds(self, keys: tuple[str, ...]) -> bool:
        """Return whether these are still the keys."""
        return await self.source.values() is keys

    async def verify(self, token: str) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Return the claims, and the keys that were accepted then."""
        settings = self._settings
        options = {
            "require_exp": settings.jwt_require_exp,
            # python-jose accepts a token without aud or iss even where one is expected.
            "require_aud": settings.jwt_audience is not None,
            "require_iss": settings.jwt_issuer is not None,
            "verify_aud": settings.jwt_audience is not None,
            "leeway": settings.jwt_nbf_leeway,  # of `exp` too, which `Authenticator` judges to the second
        }
        expected = {"audience": settings.jwt_audience, "issuer": settings.jwt_issuer}
        keys = await self.source.values()
        reason: Exception | None = None
        for key in keys:
            try:
                claims = _decode(token, key, "HS256", options | {"require_sub": True}, **expected)
            except _REFUSALS as error:
                # Of several reasons, a wrong key says the least.
                if reason is None or "Signature verification failed" not in str(error):
                    reason = error
            else:
                if "crit" in jwt.get_unverified_header(token):
                    raise refuse("The token has extensions that are not understood")  # RFC 7515 §4.1.11
                if "aud" in claims and settings.jwt_audience is None:  # RFC 7519 §4.1.3
                    raise refuse("The token is for an audience, and this service has none configured")
                return claims, keys
        raise refuse(_describe(reason)) from None


class Issued:
    """Verifies the tokens of one issuer, by the one key that their header names."""

    def __init__(self, issuer: Issuer, name: str, tenant: str | None, keys: KeySet, leeway: float) -> None:
        self.issuer = issuer
        self.name = name
        self._tenant = tenant
        self._keys = keys
        self._leeway = leeway

    async def holds(self, key: PublicKey) -> bool:
        """Return whether the issuer still publishes this key."""
        return self._keys.holds(key)

    async def verify(self, token: str) -> tuple[dict[str, Any], PublicKey]:
        """Return the claims, and the key that verified them."""
        header = jwt.get_unverified_header(token)
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in self.issuer.algorithms:
            raise refuse("The token is signed with an algorithm that is not accepted from its issuer")
        if "crit" in header:
            raise refuse("The token has extensions that are not understood")
        if not self.issuer.takes(header.get("typ")):
            raise refuse("The token is of a type that is not accepted from its issuer")
        if not isinstance(kid, str):
            raise refuse("The token does not name its key")
        key = (await self._keys.find(kid)).get(algorithm)
        if key is None or not (key.issuer is None or self._named(key.issuer) == self.name):
            raise refuse("The token is signed with a key that its issuer does not publish for this")
        # The library knows one audience.
        options = {"require_exp": True, "verify_aud": False, "leeway": self._leeway}
        try:
            claims = _decode(token, key.verifier, algorithm, options, issuer=self.name)
        except _REFUSALS as error:
            raise refuse(_describe(error)) from None
        audience = claims.get("aud")
        if not any(name in (audience if isinstance(audience, list) else [audience]) for name in self.issuer.audience):
            raise refuse("The token is for another audience")
        return claims, key

    def _named(self, issuer: str) -> str:
        return issuer.replace(TENANT, self._tenant or TENANT)


_REFUSALS = (JOSEError, ArithmeticError, TypeError, ValueError, AttributeError, LookupError, RecursionError)
"""What python-jose raises: `"exp": 1e400` overflows, and claims of a wrong type fail where they are used."""


def _decode(
    token: str, key: object, algorithm: str, options: Mapping[str, float], **expected: str | None
) -> dict[str, Any]:
    # Without `algorithms` python-jose accepts any algorithm of the key's family.
    claims: dict[str, Any] = jwt.decode(token, key, [algorithm], options, **expected)
    if any(type(claims.get(name, 0)) not in {int, float} for name in _DATES):  # the library reads "1" as 1
        raise refuse("The claims exp, nbf and iat must be numbers")
    return claims


def table(issuers: Sequence[Issuer], leeway: float) -> Iterator[tuple[object, Issued]]:
    """Yield each accepted `iss`, and what verifies its tokens, `leeway` seconds before their `nbf`."""
    for issuer in issuers:
        keys = KeySet(issuer)
        for name, tenant in issuer.names.items():
            yield name, Issued(issuer, name, tenant, keys, leeway)


def stated_issuer(token: str) -> object:
    """Return the claim `iss` as it stands in the token, which decides only who has to verify it."""
    try:
        name = jwt.get_unverified_claims(token).get("iss")
    except _REFUSALS:
        return None
    return name if isinstance(name, str) else None


_REASONS = {
    "signature has expired": "The token has expired",
    "not yet valid": "The token is not valid yet",
    "audience": "The token is for another audience",
    "issuer": "The token is from another issuer",
    "missing required key": "The token lacks a required claim",
}


def _describe(reason: Exception | None) -> str:
    """Return a sentence for the client: the library's own text may quote the token."""
    text = str(reason).lower()
    return next((sentence for part, sentence in _REASONS.items() if part in text), "The token is not valid")
