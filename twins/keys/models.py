"""Public keys in answers."""

from typing import Annotated, Literal

from pydantic import Field

from shared.http.fields import Output


class Jwk(Output):
    """A public key for ES256 (RFC 7517, RFC 7518 §6.2)."""

    kty: Literal["EC"]
    crv: Literal["P-256"]
    x: Annotated[str, Field(description="The x coordinate of the point on the curve, in base64url.")]
    y: Annotated[str, Field(description="The y coordinate of the point on the curve, in base64url.")]
    kid: Annotated[str, Field(description="The key's thumbprint (RFC 7638), which the header of a signature names.")]
    use: Literal["sig"]
    alg: Literal["ES256"]


class Jwks(Output):
    """A JSON Web Key Set: the key that signs, and its predecessors."""

    keys: list[Jwk]
