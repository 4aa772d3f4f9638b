"""ES256 signatures, and the JWKS that verifies them (RFC 7515, 7517, 7518)."""

import base64
import hashlib
import json
from typing import Any

from jose import jwk, jws
from jose.exceptions import JOSEError

from shared.http.problems import Unavailable
from shared.tokens import Keys

_PUBLIC = ("kty", "crv", "x", "y")


class SigningKeyError(ValueError):
    """A signing key is not an EC P-256 JWK."""


def parse_keys(texts: tuple[str, ...]) -> list[dict[str, str]]:
    """Return the JWKs without duplicates; each text is one JWK or a JSON array of them, or `SigningKeyError`."""
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        try:
            parsed = json.loads(text)
            for key in parsed if isinstance(parsed, list) else [parsed]:
                if key["kty"] != "EC" or key["crv"] != "P-256":
                    raise SigningKeyError("a signing key must be EC P-256")
                jwk.construct(key, "ES256")
                found.setdefault(_thumbprint(key), key)
        except (ValueError, TypeError, KeyError, JOSEError):
            raise SigningKeyError("a signing key must be an EC P-256 JWK or a JSON array of them") from None
    return list(found.values())


class Signer:
    """Signs with the first private key, and publishes the public part of every key."""

    def __init__(self, source: Keys) -> None:
        self._source = source
        self._texts: tuple[str, ...] = ()
        self._keys: list[dict[str, str]] = []

    async def sign(self, payload: dict[str, Any], typ: str) -> str:
        """Return a compact JWS of `payload` as JSON, of type `typ` (RFC 8725 §3.11); raises `Unavailable`."""
        key = next((key for key in await self._load() if "d" in key), None)
        if key is None:
            raise Unavailable("There is no key to sign with.")
        content = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
        signed: str = jws.sign(content, key, headers={"kid": _thumbprint(key), "typ": typ}, algorithm="ES256")
        return signed

    async def jwks(self) -> dict[str, Any]:
        """Return the JSON Web Key Set of all keys, including old ones."""
        return {
            "keys": [
                {name: key[name] for name in _PUBLIC} | {"kid": _thumbprint(key), "use": "sig", "alg": "ES256"}
                for key in await self._load()
            ]
        }

    async def _load(self) -> list[dict[str, str]]:
        texts = await self._source.values()
        if texts is not self._texts:
            try:
                self._keys, self._texts = parse_keys(texts), texts
            except SigningKeyError:
                raise Unavailable("The signing keys cannot be used.") from None
        return self._keys


def _thumbprint(key: dict[str, str]) -> str:
    """Return the key's id (RFC 7638)."""
    required = json.dumps({name: key[name] for name in _PUBLIC}, sort_keys=True, separators=(",", ":"))
    return base64.urlsafe_b64encode(hashlib.sha256(required.encode()).digest()).decode().rstrip("=")
