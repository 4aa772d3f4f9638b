"""Keyed digests, which stand in for names of people and things."""

import hashlib
import hmac


class Digests:
    """HMAC-SHA-256 with a subkey for each use; without the secret key nobody can check a guessed value."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()
        self._subkeys: dict[str, bytes] = {}

    def digest(self, use: str, value: bytes) -> bytes:
        """Return the 32-byte digest of `value` for `use`; digests of two uses cannot be compared."""
        subkey = self._subkeys.get(use)
        if subkey is None:
            subkey = self._subkeys[use] = hmac.digest(self._key, use.encode(), hashlib.sha256)
        return hmac.digest(subkey, value, hashlib.sha256)

    def label(self, use: str, value: str) -> str:
        """Return the first 16 hexadecimal digits of the digest, for readers of logs."""
        return self.digest(use, value.encode()).hex()[:16]
