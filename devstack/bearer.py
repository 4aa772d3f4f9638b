"""Bearer tokens for trying the API."""

import os
import time

from jose import jwt

from devstack.process import StackError
from twins.settings import Settings, load

LIFETIME = 12 * 60 * 60
"""Seconds."""


def settings() -> Settings:
    """Return the app's settings, with stand-ins for stores that are not known yet.

    Raises:
        ConfigurationError: a setting in the environment is unusable.
    """
    unknown = {store: "unknown" for store in ("POSTGRES_DSN", "MONGODB_URI") if not os.environ.get(store)}
    os.environ.update(unknown)
    try:
        return load()
    finally:
        for store in unknown:
            del os.environ[store]


def bearer(subject: str, scope: str = "") -> str:
    """Sign a token that the running app accepts (RFC 7519, HS256), good for twelve hours.

    Raises:
        StackError: there is no subject.
        ConfigurationError: a setting in the environment is unusable.
    """
    if not subject.strip():
        raise StackError('whose token? Say it: make token SUB=alice [SCOPE="…"]')
    configured = settings()
    now = int(time.time())
    claims = {
        "sub": subject,
        "iat": now,
        "exp": now + LIFETIME,
        "scope": scope,
        "aud": configured.jwt_audience,
        "iss": configured.jwt_issuer,
    }
    stated = {name: value for name, value in claims.items() if value}
    token: str = jwt.encode(stated, configured.jwt_secrets[0].get_secret_value(), algorithm="HS256")
    return token
