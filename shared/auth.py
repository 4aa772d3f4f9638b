"""Who is asking: bearer token to `CurrentUser`; the only place that verifies tokens."""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from fastapi import Request, Security
from fastapi.security import HTTPBearer
from jose import JWTError, jwt

from shared.digests import Digests
from shared.errors import Unauthorized
from shared.settings import Settings
from shared.text import is_line

MAX_TOKEN = 8192
MAX_SUB = 255
_CACHE_SIZE = 4096
_LIFE_WITHOUT_EXP = 300.0


@dataclass(frozen=True, slots=True)
class CurrentUser:
    """The account behind a verified token."""

    sub: str
    scopes: frozenset[str]
    digest: str
    """A keyed digest of `sub`, for logs."""


class Keys(Protocol):
    """Where the verification keys come from; the tuple changes when a key is rotated."""

    async def values(self) -> tuple[str, ...]:
        """Return the accepted HS256 keys, newest first; raises `Unavailable` when there are none yet."""


class StaticKeys:
    """Keys that live as long as the process."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = tuple(keys)

    async def values(self) -> tuple[str, ...]:
        """Return the keys."""
        return self._keys


def _refuse(description: str, code: str = "invalid_token") -> Unauthorized:
    challenge = f'Bearer error="{code}", error_description="{description}"'
    return Unauthorized(f"{description}.", headers={"WWW-Authenticate": challenge})


def _ask() -> Unauthorized:
    """Return the challenge to a request that has no credentials we know: without an error (RFC 6750 §3.1)."""
    return Unauthorized("A bearer token is needed.", headers={"WWW-Authenticate": "Bearer"})


class Authenticator:
    """Verifies HS256 tokens (RFC 7519, RFC 8725) and remembers the outcome for the token's life."""

    def __init__(
        self, settings: Settings, keys: Keys, digests: Digests, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._source = keys
        self._digests = digests
        self._clock = clock
        self._keys: tuple[str, ...] = ()
        self._verified: OrderedDict[str, tuple[CurrentUser, float]] = OrderedDict()

    async def authenticate(self, authorization: str | None) -> CurrentUser:
        """Return the user of an `Authorization` header.

        Raises:
            Unauthorized: the header is missing or its token is not valid here and now.
            Unavailable: there are no keys to verify it with.
        """
        if authorization is None:
            raise _ask()
        keys = await self._source.values()
        if keys is not self._keys:
            self._keys = keys
            self._verified.clear()
        known = self._verified.get(authorization)
        if known is not None:
            user, expires_at = known
            if self._clock() < expires_at:
                return user
            del self._verified[authorization]
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise _ask()
        if not token:
            raise _refuse("The Authorization header has no token", "invalid_request")
        if len(token) > MAX_TOKEN:
            raise _refuse(f"The token is longer than {MAX_TOKEN:,} characters")
        user, expires_at = self._verify(token, keys)
        self._verified[authorization] = user, expires_at
        if len(self._verified) > _CACHE_SIZE:
            self._verified.popitem(last=False)
        return user

    def _verify(self, token: str, keys: tuple[str, ...]) -> tuple[CurrentUser, float]:
        claims = self._claims(token, keys)
        sub, scope = claims.get("sub"), claims.get("scope", "")
        if not isinstance(sub, str) or len(sub) > MAX_SUB or not is_line(sub):
            raise _refuse("The sub claim must be 1 to 255 printable characters")
        if not isinstance(scope, str):
            raise _refuse("The scope claim must be a string")
        expires_at = claims.get("exp")
        life = int(expires_at) if expires_at is not None else self._clock() + _LIFE_WITHOUT_EXP
        if self._clock() >= life:  # python-jose lets it pass for this one second (RFC 7519 §4.1.4: on or after)
            raise _refuse("The token has expired")
        user = CurrentUser(sub, frozenset(scope.split()), self._digests.label("owner", sub))
        return user, life

    def _claims(self, token: str, keys: tuple[str, ...]) -> dict[str, Any]:
        settings = self._settings
        options = {
            "require_sub": True,
            "require_exp": settings.jwt_require_exp,
            # python-jose lets a token without aud or iss pass even where one is expected.
            "require_aud": settings.jwt_audience is not None,
            "require_iss": settings.jwt_issuer is not None,
            "verify_aud": settings.jwt_audience is not None,
        }
        reason: Exception | None = None
        for key in keys:
            try:
                claims: dict[str, Any] = jwt.decode(
                    token,
                    key,
                    # Without this python-jose takes any algorithm of the key's family.
                    algorithms=["HS256"],
                    audience=settings.jwt_audience,
                    issuer=settings.jwt_issuer,
                    options=options,
                )
            # Overflow: `"exp": 1e400`. TypeError and AttributeError: claims of a wrong type.
            except (JWTError, OverflowError, TypeError, ValueError, AttributeError) as error:
                # A wrong key is the least telling of several reasons.
                if reason is None or "Signature verification failed" not in str(error):
                    reason = error
            else:
                if "crit" in jwt.get_unverified_header(token):
                    raise _refuse("The token has extensions that are not understood")  # RFC 7515 §4.1.11
                return claims
        raise _refuse(_describe(reason)) from None


def _describe(reason: Exception | None) -> str:
    """Return a sentence for the client: the library's own text may quote the token."""
    text = str(reason)
    if "Signature has expired" in text:
        return "The token has expired"
    if "not yet valid" in text:
        return "The token is not valid yet"
    if "audience" in text.lower():
        return "The token is for another audience"
    if "issuer" in text.lower():
        return "The token is from another issuer"
    if "missing required key" in text:
        return "The token lacks a required claim"
    return "The token is not valid"


class _Bearer(HTTPBearer):
    """Declares the scheme in OpenAPI; `ApiRoute` has authenticated before the body was read."""

    async def __call__(self, request: Request) -> CurrentUser:  # type: ignore[override]
        user: CurrentUser = request.scope["user"]
        return user


User = Annotated[
    CurrentUser,
    Security(_Bearer(scheme_name="bearer", bearerFormat="JWT", description="A JWT whose `sub` is the owner.")),
]
