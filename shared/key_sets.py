"""The public keys of an identity provider (RFC 7517): fetched, judged one by one, and kept fresh.

python-jose only verifies signatures: given a whole set, it tries each key whatever its id, use and
size, and fails at the first of another family.
"""

import json
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, override

from jose import jwk
from jose.backends.base import Key

from shared.issuers import Algorithm, Issuer, is_on_this_machine, is_secure
from shared.kept import Kept, Reading

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

SOFT = 3600.0
"""Seconds until a set is fetched again, in the background."""
HARD = 86_400.0
"""Seconds for which a set serves where its provider cannot be reached."""
COOLDOWN = 30.0
"""Seconds between two fetches for the sake of an unknown key id."""
MISSING_FOR = 300.0
"""Seconds for which an id that a set did not have is not looked for again."""
MAX_MISSING = 128
"""Ids remembered as such."""
MAX_BYTES = 64 * 1024
TIMEOUT = 3.0
"""Seconds for a fetch, of the metadata too."""
MIN_RSA_BITS = 2048
"""RFC 7518 §3.3."""

_ALGORITHMS: Mapping[tuple[object, object], Algorithm] = {("RSA", None): "RS256", ("EC", "P-256"): "ES256"}

fetches: Counter[tuple[str, str]] = Counter()
"""Fetches by issuer and `error.type`, which is empty for those that succeeded."""
unknown_ids: Counter[str] = Counter()
"""Tokens with a key id that was not in the set, by issuer."""


class MetadataOfAnotherIssuerError(Exception):
    """The metadata names another issuer than the one it was asked for (RFC 8414 §3.3)."""


class UnusableAnswerError(Exception):
    """The answer is no key set or metadata: redirected, too large, or not the JSON expected."""


class StatusError(Exception):
    """The answer is not 200."""

    def __init__(self, status_code: int) -> None:
        super().__init__()
        self.status_code = status_code


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that may verify tokens, with the one algorithm that it is for."""

    kid: str
    algorithm: Algorithm
    issuer: str | None
    """Microsoft's shared sets name the issuer of each key."""
    jwk: Mapping[str, Any] = field(repr=False)
    verifier: Key = field(repr=False, compare=False)


type Keys = Mapping[str, Mapping[Algorithm, PublicKey]]
"""Keys by id and algorithm; an id without a usable key has none."""


class KeySet(Kept[Keys]):
    """The keys of one issuer.

    A caller with a known key never waits. One with an unknown key id waits for a fetch, which is one
    for all of them and the first for some time, so that made-up ids cause no storm. Where the provider
    cannot be reached, the last set serves on.
    """

    _service = "issuer"
    _failure = "The keys of an issuer cannot be fetched"
    _hints: ClassVar[Mapping[str, str]] = {
        "404": "there is nothing at this address",
        "MetadataOfAnotherIssuerError": "the metadata names another issuer, compare each character",
        "UnusableAnswerError": "the answer is a redirect, too large, or no such document",
    }

    def __init__(self, issuer: Issuer) -> None:
        super().__init__(timeout=TIMEOUT)
        self.issuer = issuer
        self._labels = {"issuer": issuer.issuer}
        self._jwks_uri = issuer.jwks_uri
        self._read_at = 0.0
        """When the fetch of this set began: keys that were published later are not in it."""
        self._may_look_at = 0.0
        self._missing: OrderedDict[str, float] = OrderedDict()

    async def find(self, kid: str) -> Mapping[Algorithm, PublicKey]:
        """Return the usable keys of this id; raises `Unavailable` where no set has been fetched in time."""
        asked_at = time.time()
        keys = await self._get()
        if kid not in keys:
            unknown_ids[self.issuer.issuer] += 1
            keys = await self._look_for(kid, asked_at, keys)
        return keys.get(kid, {})

    def holds(self, key: PublicKey) -> bool:
        """Return whether the key is still in the set, and begin the fetch of a set that is due."""
        now = time.time()
        if now >= self._due_at:
            self._begin()
        return (
            self._value is not None
            and now < self._expires_at
            and self._value.get(key.kid, {}).get(key.algorithm) is key
        )

    async def _look_for(self, kid: str, asked_at: float, keys: Keys) -> Keys:
        """Return the newest set, fetched once more if that may help."""
        if asked_at < self._missing.get(kid, 0.0):
            return keys
        if self._task is not None:  # it may have begun before the key was published
            await self._wait_for(self._task)
            keys = await self._get(wait=False)
        if kid in keys or self._read_at >= asked_at or asked_at < self._may_look_at:
            return keys
        if self._task is None:
            self._may_look_at = time.time() + COOLDOWN
        await self._wait_for(self._begin())
        keys = await self._get(wait=False)
        if kid not in keys and self._read_at >= asked_at:
            self._missing[kid] = asked_at + MISSING_FOR
            if len(self._missing) > MAX_MISSING:
                self._missing.popitem(last=False)
        return keys

    @override
    def _count(self, kind: str) -> None:
        fetches[self.issuer.issuer, kind] += 1

    @override
    async def _read(self) -> Reading[Keys]:
        import httpx  # noqa: PLC0415 - costs 100 ms, and only where an issuer is configured

        began = time.time()
        if self.issuer.discovery is not None and (self._value is None or began >= self._expires_at):
            self._jwks_uri = None
        known = self._value or {}
        # Not compressed, so that the bound holds for what is parsed too.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        async with httpx.AsyncClient(
            headers=headers, trust_env=not is_on_this_machine(self.issuer.jwks_uri or self.issuer.discovery or "")
        ) as client:
            if self._jwks_uri is None:
                self._jwks_uri = await self._discover(client)
            jwks = (await _fetch(client, self._jwks_uri)).get("keys")
        if not isinstance(jwks, list):
            raise UnusableAnswerError
        keys = _parse(jwks, known)
        if not any(keys.values()):
            logger.warning("An issuer publishes no usable key", extra=self._labels)
        self._read_at = began
        self._count("")
        return Reading(keys, began + SOFT, expires_at=began + HARD)

    async def _discover(self, client: "httpx.AsyncClient") -> str:
        metadata = await _fetch(client, self.issuer.discovery or "")
        if metadata.get("issuer") not in {self.issuer.issuer, *self.issuer.names}:
            raise MetadataOfAnotherIssuerError
        address = metadata.get("jwks_uri")
        if not isinstance(address, str) or not is_secure(address):
            raise UnusableAnswerError
        return address


async def _fetch(client: "httpx.AsyncClient", address: str) -> Mapping[str, Any]:
    async with client.stream("GET", address, follow_redirects=False) as response:
        if response.is_redirect:
            raise UnusableAnswerError  # to where, the settings do not say
        if response.status_code != 200:  # noqa: PLR2004
            raise StatusError(response.status_code)
        content = bytearray()
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > MAX_BYTES:
                raise UnusableAnswerError
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise UnusableAnswerError from None
    if not isinstance(document, dict):
        raise UnusableAnswerError
    return document


def _parse(jwks: list[Any], known: Keys) -> Keys:
    """Return the keys of a set, and those of `known` that have not changed as they are."""
    found: dict[str, dict[Algorithm, PublicKey]] = {}
    ambiguous = set()
    for item in jwks:
        if not isinstance(item, dict) or not isinstance(kid := item.get("kid"), str):
            continue
        keys = found.setdefault(kid, {})
        if (key := _usable(kid, item)) is None:
            continue
        if key.algorithm in keys:
            ambiguous.add((kid, key.algorithm))
        before = known.get(kid, {}).get(key.algorithm)
        keys[key.algorithm] = before if before == key and before is not None else key
    for kid, algorithm in ambiguous:  # which of them signed would have to be tried out
        del found[kid][algorithm]
    return found


def _usable(kid: str, item: Mapping[str, Any]) -> PublicKey | None:
    """Return a key that is public, for signatures, strong enough, and of an algorithm that is verified here."""
    kty, crv = item.get("kty"), item.get("crv")
    operations = item.get("key_ops", ["verify"])
    issuer = item.get("issuer")
    if (
        not isinstance(kty, str)
        or not (crv is None or isinstance(crv, str))
        or (algorithm := _ALGORITHMS.get((kty, crv))) is None
        or item.get("alg", algorithm) != algorithm
        or item.get("use", "sig") != "sig"
        or not (isinstance(operations, list) and "verify" in operations)
        or not (issuer is None or isinstance(issuer, str))
        or "d" in item
    ):
        return None
    try:
        verifier = jwk.construct(dict(item), algorithm)
    except Exception:  # noqa: BLE001 - the library raises whatever its parts raise
        return None
    if algorithm == "RS256" and verifier.prepared_key.key_size < MIN_RSA_BITS:
        return None
    return PublicKey(kid, algorithm, issuer, dict(item), verifier)
