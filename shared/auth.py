"""Authentication: from a bearer token to `CurrentUser`."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Request, Security
from fastapi.security import HTTPBearer

from shared.digests import Digests
from shared.http.problems import BadRequest, NoOwner, Unauthorized
from shared.http.text import is_line
from shared.settings import Settings
from shared.tokens import Issued, Keys, Secrets, ask, refuse, stated_issuer, table

MAX_TOKEN = 8192
MAX_SUB = 255
MAX_ACCOUNT = 511
"""An issuer, a line feed and a subject."""
METADATA = "/.well-known/oauth-protected-resource"
_CACHE_SIZE = 4096
_LIFE_WITHOUT_EXP = 300.0
_CLIENT = ("azp", "client_id", "appid", "cid")
"""Claims that name the client, as Keycloak, RFC 9068, Entra ID 1.0 and Okta call it."""


@dataclass(frozen=True, slots=True)
class CurrentUser:
    """The account behind a verified token, and the owner for which it acts."""

    sub: str
    """The account of the subject, a person or a service: its own name, with an issuer `issuer` LF `subject`."""
    owns: str | None
    """The account that owns: the subject's, or an organisation's `issuer` LF `claim` LF `value`; or none."""
    scopes: frozenset[str]
    logged: Mapping[str, str]
    """Log fields: a keyed digest of the owner under the product's name for accounts, and of an actor."""
    subject: str
    issuer: str | None = None
    client: str | None = None
    only: str | None = None
    """The scope that limits the token to operations which it opens: reading."""

    @property
    def owner(self) -> str:
        """The account that owns; raises `NoOwner` where the token names none."""
        if self.owns is None:
            raise NoOwner("The token names no organisation, so it owns nothing.")
        return self.owns

    @property
    def organization(self) -> str:
        """The organisation that owns; raises `NoOwner` where the subject owns, or nobody."""
        if self.owns == self.sub:
            raise NoOwner("The token names no organisation.")
        return self.owner

    @property
    def seat(self) -> str:
        """The subject at the owner for which it acts: what one token leaves there no other token may use."""
        return self.sub if self.owns in {self.sub, None} else f"{self.owns}\n{self.sub}"


@dataclass(frozen=True, slots=True)
class _Verified:
    """An outcome, for as long as the token lives and its key counts."""

    user: CurrentUser
    expires_at: float
    by: Secrets | Issued
    key: Any


class Authenticator:
    """Verifies tokens (RFC 7519, RFC 8725), and remembers valid ones for their life.

    A token whose `iss` is in the table of issuers is verified by that issuer's keys and nothing else,
    any other token by the HS256 keys and nothing else: a public key is never an HMAC secret.
    """

    def __init__(
        self,
        settings: Settings,
        keys: Keys | None,
        digests: Digests,
        clock: Callable[[], float] = time.time,
        account: str = "account",
        read_scope: str | None = None,
    ) -> None:
        """`keys` are those of HS256; `account` is the name of an account's log field, and the use of its digest.

        A token with `read_scope`, as `service:read`, and no other scope of that service may only read.
        """
        self._settings = settings
        self._secrets = None if keys is None else Secrets(settings, keys)
        self._issuers = dict(table(settings.auth_issuers, settings.jwt_nbf_leeway))
        self._digests = digests
        self._account = account
        self._clock = clock
        self._read_scope = read_scope
        self._verified: OrderedDict[str, _Verified] = OrderedDict()

    async def check_secrets(self) -> None:
        """Raise `Unavailable` while HS256 tokens are accepted and no key can verify them."""
        if self._secrets is not None:
            await self._secrets.source.values()

    async def authenticate(self, authorization: str | None) -> CurrentUser:
        """Return the user of an `Authorization` header; raises `Unauthorized`, or `Unavailable` without keys."""
        if authorization is not None and (known := self._verified.get(authorization)) is not None:
            if self._clock() < known.expires_at and await known.by.holds(known.key):
                return known.user
            self._verified.pop(authorization, None)
        try:
            return await self._authenticate(authorization)
        except Unauthorized as refused:
            refused.headers["WWW-Authenticate"] += self._metadata(refused.headers["WWW-Authenticate"])
            raise

    def _metadata(self, challenge: str) -> str:
        """Return what leads a client from a challenge to the accepted issuers (RFC 9728 §5.1)."""
        if self._settings.public_url is None:
            return ""
        separator = "," if "=" in challenge else ""
        return f'{separator} resource_metadata="{self._settings.public_url}{METADATA}"'

    async def _authenticate(self, authorization: str | None) -> CurrentUser:
        if authorization is None:
            raise ask()
        if "," in authorization:  # which no credentials have (RFC 9110 §11.4): Azure Functions has joined two headers
            raise BadRequest("The request has more than one Authorization header.")
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise ask()
        if not token:
            raise refuse("The Authorization header has no token", "invalid_request")
        if len(token) > MAX_TOKEN:
            raise refuse(f"The token is longer than {MAX_TOKEN:,} characters")
        verified = self._verified[authorization] = await self._verify(token)
        if len(self._verified) > _CACHE_SIZE:
            self._verified.popitem(last=False)
        return verified.user

    async def _verify(self, token: str) -> _Verified:
        issued = self._issuers and self._issuers.get(stated_issuer(token))
        if issued:
            claims, key = await issued.verify(token)
            return _Verified(self._user_of(issued, claims), self._end(claims), issued, key)
        if self._secrets is None:
            raise refuse("The token is from an issuer that is not accepted here")
        claims, keys = await self._secrets.verify(token)
        return _Verified(self._user(claims), self._end(claims), self._secrets, keys)

    def _user(self, claims: Mapping[str, Any]) -> CurrentUser:
        """Return the user of an HS256 token."""
        sub, scope = _name(claims, "sub"), claims.get("scope", "")
        if not isinstance(scope, str):
            raise refuse("The scope claim must be a string")
        scopes = frozenset(scope.split())
        return CurrentUser(
            sub=sub,
            owns=sub,
            scopes=scopes,
            logged={self._account: self._digests.label(self._account, sub)},
            subject=sub,
            client=_client(claims),
            only=self._only(scopes),
        )

    def _user_of(self, issued: Issued, claims: Mapping[str, Any]) -> CurrentUser:
        """Return the user of an issuer's token."""
        issuer = issued.issuer
        subject = _name(claims, issuer.subject_claim)
        sub = subject if issuer.bare_subjects else f"{issued.name}\n{subject}"
        owns: str | None = sub
        if issuer.owner_claim is not None:
            owns = None
            if claims.get(issuer.owner_claim) is not None:
                owns = f"{issued.name}\n{issuer.owner_claim}\n{_name(claims, issuer.owner_claim)}"
        if max(len(sub), len(owns or "")) > MAX_ACCOUNT:
            raise refuse(f"The names in the token are together longer than {MAX_ACCOUNT} characters")
        logged = {self._account: self._digests.label(self._account, owns or sub)}
        if owns != sub:
            logged["actor"] = self._digests.label(self._account, sub)
        scopes = frozenset(_scopes(claims, issuer.scope_claims))
        return CurrentUser(
            sub=sub,
            owns=owns,
            scopes=scopes,
            logged=logged,
            subject=subject,
            issuer=issued.name,
            client=_client(claims),
            only=self._only(scopes),
        )

    def _only(self, scopes: frozenset[str]) -> str | None:
        if self._read_scope is None or self._read_scope not in scopes:
            return None
        ours = self._read_scope.partition(":")[0] + ":"
        return self._read_scope if sum(scope.startswith(ours) for scope in scopes) == 1 else None

    def _end(self, claims: Mapping[str, Any]) -> float:
        """Return the time when an outcome is forgotten."""
        now, exp = self._clock(), claims.get("exp")
        if exp is None:
            return now + _LIFE_WITHOUT_EXP
        if now >= int(exp):  # python-jose accepts the token in this second (RFC 7519 §4.1.4: on or after)
            raise refuse("The token has expired")
        if exp > now + self._settings.jwt_max_life:
            raise refuse(f"The token is valid for more than {self._settings.jwt_max_life:,.0f} seconds from now")
        return int(exp)


def _name(claims: Mapping[str, Any], claim: str) -> str:
    """Return the claim with a name of the subject or the owner."""
    name = claims.get(claim)
    if not isinstance(name, str) or len(name) > MAX_SUB or not is_line(name):
        raise refuse(f"The {claim} claim must be 1 to {MAX_SUB} printable characters")
    return name


def _scopes(claims: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    for name in names:
        match claims.get(name):
            case None:
                pass
            case str(text):
                yield from map(_scope, text.split())
            case list(items) if all(isinstance(item, str) for item in items):
                yield from map(_scope, items)
            case _:
                raise refuse(f"The {name} claim must be a string or an array of strings")


def _scope(text: str) -> str:
    """Return a scope as it is, and `service/right` as `service:right`: Amazon Cognito can write only the first."""
    return text if ":" in text else text.replace("/", ":", 1)


def _client(claims: Mapping[str, Any]) -> str | None:
    found = (claims.get(name) for name in _CLIENT)
    return next((name for name in found if isinstance(name, str) and len(name) <= MAX_SUB and is_line(name)), None)


class _Bearer(HTTPBearer):
    """Declares the scheme in OpenAPI; `ApiRoute` has authenticated before the body was read."""

    async def __call__(self, request: Request) -> CurrentUser:  # type: ignore[override]
        user: CurrentUser = request.scope["user"]
        return user


bearer = _Bearer(scheme_name="bearer", bearerFormat="JWT", description="A JWT (RFC 7519) of an accepted issuer.")
"""For `Security(bearer, scopes=[…])`, on an operation that takes only tokens with these scopes."""

User = Annotated[CurrentUser, Security(bearer)]
"""The account of the request's token."""
