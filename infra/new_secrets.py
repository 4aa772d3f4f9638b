"""Make new secrets: `python infra/new_secrets.py azure|compose|jwt-secret|receipt-key`.

The first two make all secrets of a first deployment, as lines for a shell (`eval "$(…)"`, for the
.bicepparam files) or for a `.env` file (for compose.yaml). The other two make one value, to rotate it:
`receipt-key` reads the current value from standard input, and keeps its public keys. Nothing is stored.
"""

import json
import secrets
import sys

from cryptography.hazmat.primitives.asymmetric import ec
from jose import jwk

_PUBLIC = ("kty", "crv", "x", "y")


def signing_key() -> dict[str, str]:
    """Return a new private key for ES256 as a JWK (RFC 7518 §6.2)."""
    key: dict[str, str] = jwk.construct(ec.generate_private_key(ec.SECP256R1()), "ES256").to_dict()
    return {name: key[name] for name in (*_PUBLIC, "d")}


def receipt_key() -> str:
    """Return a new key for receipts, as a value of the setting."""
    return json.dumps(signing_key())


def renewed(receipt_keys: str) -> str:
    """Return a new key for receipts, followed by the public half of each key in `receipt_keys`.

    Raises:
        ValueError: `receipt_keys` is neither a JWK nor a JSON array of them.
    """
    try:
        found = json.loads(receipt_keys)
        old = [{name: key[name] for name in _PUBLIC} for key in (found if isinstance(found, list) else [found])]
    except (KeyError, TypeError, ValueError):
        raise ValueError("standard input must have the current value, a JWK or a JSON array of them") from None
    return json.dumps([signing_key(), *old])


def main(target: str) -> None:
    """Print one secret, or one line for each secret."""
    password = secrets.token_urlsafe
    if target == "jwt-secret":
        sys.stdout.write(password(48) + "\n")
        return
    if target == "receipt-key":
        sys.stdout.write(renewed(sys.stdin.read()) + "\n")
        return
    lines = {
        "azure": {
            "export TWINS_JWT_SECRET": password(48),
            "export TWINS_DIGEST_KEY": password(48),
            "export TWINS_RECEIPT_KEY": receipt_key(),
        },
        "compose": {
            "JWT_SECRETS": password(48),
            "DIGEST_KEY": password(48),
            "RECEIPT_KEYS": receipt_key(),
            "POSTGRES_OWNER_PASSWORD": password(24),
            "POSTGRES_APP_PASSWORD": password(24),
        },
    }
    for name, value in lines[target].items():
        sys.stdout.write(f"{name}='{value}'\n")


if __name__ == "__main__":
    if sys.argv[1:] not in (["azure"], ["compose"], ["jwt-secret"], ["receipt-key"]):
        sys.exit(__doc__)
    try:
        main(sys.argv[1])
    except ValueError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
