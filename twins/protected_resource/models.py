"""The metadata of a protected resource (RFC 9728)."""

from pydantic import BaseModel


class ProtectedResource(BaseModel):
    """Where a client gets a token for this service, and how it sends it."""

    resource: str
    authorization_servers: list[str] | None = None
    scopes_supported: list[str]
    bearer_methods_supported: list[str]
    jwks_uri: str
    resource_name: str
    resource_documentation: str
