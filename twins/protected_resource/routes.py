"""`/.well-known/oauth-protected-resource`."""

from shared.auth import METADATA
from shared.http.openapi import problems
from shared.http.problems import NotFound
from shared.http.routing import public_router
from twins.context import Ctx
from twins.protected_resource.models import ProtectedResource
from twins.scopes import SCOPES

router = public_router("metadata")


@router.get(METADATA, responses=problems(NotFound), response_model_exclude_none=True)
async def get_protected_resource(ctx: Ctx) -> ProtectedResource:
    """Get the identity providers whose tokens are accepted, and the scopes (RFC 9728).

    404 where the operator has not set the service's own address.
    """
    origin = ctx.settings.public_url
    if origin is None:
        raise NotFound("This service does not know its own address: PUBLIC_URL is not set.")
    issuers = [name for issuer in ctx.settings.auth_issuers for name in issuer.names]
    return ProtectedResource(
        resource=origin,
        authorization_servers=issuers or None,  # RFC 9728 §3.2: a member without a value is left out
        scopes_supported=list(SCOPES),
        bearer_methods_supported=["header"],
        jwks_uri=f"{origin}/.well-known/jwks.json",
        resource_name="Twins",
        resource_documentation=f"{origin}/docs",
    )
