"""Make the three secrets of a deployment: `python infra/new_secrets.py azure|compose`.

Prints lines for a shell (`eval "$(…)"`, read by the .bicepparam files) or for a `.env` file that
compose.yaml reads. Nothing is stored.
"""

import json
import secrets
import sys

from cryptography.hazmat.primitives.asymmetric import ec
from jose import jwk


def receipt_key() -> str:
    """Return a new private key for ES256 as a JWK (RFC 7518 §6.2)."""
    key = jwk.construct(ec.generate_private_key(ec.SECP256R1()), "ES256").to_dict()
    return json.dumps({name: key[name] for name in ("kty", "crv", "x", "y", "d")})


def main(target: str) -> None:
    """Print one line a secret."""
    password = secrets.token_urlsafe
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
    if sys.argv[1:] not in (["azure"], ["compose"]):
        sys.exit(__doc__)
    main(sys.argv[1])
