"""Keyed digests: names for people and things that must not be named."""

import hashlib
import hmac


class Digests:
    """HMAC-SHA-256 under one secret key, with a separate subkey for each use.

    Without the key nobody can tell whether a digest is of a value they guess.
    """

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    def digest(self, use: str, value: bytes) -> bytes:
        """Return the 32-byte digest of `value` for `use`; digests of two uses cannot be compared."""
        subkey = hmac.digest(self._key, use.encode(), hashlib.sha256)
        return hmac.digest(subkey, value, hashlib.sha256)

    def label(self, use: str, value: str) -> str:
        """Return the first 16 hexadecimal digits of the digest, for people to read in logs."""
        return self.digest(use, value.encode()).hex()[:16]
