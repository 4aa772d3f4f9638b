"""`/.well-known/jwks.json`."""

from fastapi import Response

from shared.http.conditional import IfNoneMatch, cacheable
from shared.http.openapi import problems
from shared.http.problems import Unavailable
from shared.http.routing import public_router
from twins.context import Ctx
from twins.keys.models import Jwks

router = public_router("keys")


MAX_AGE = 300
"""Seconds for which a client may keep the keys."""


@router.get("/.well-known/jwks.json", response_model=Jwks, responses=problems(Unavailable))
async def get_jwks(ctx: Ctx, if_none_match: IfNoneMatch = None) -> Response:
    """Get the public keys that verify receipts and certificates (RFC 7517)."""
    keys = Jwks.model_validate(await ctx.signer.jwks())
    return cacheable(keys.model_dump_json().encode(), "application/json", MAX_AGE, if_none_match)
