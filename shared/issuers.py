"""The identity providers whose tokens are accepted: one row of the table `AUTH_ISSUERS` each."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

TENANT = "{tenantid}"
"""What stands for a tenant's id in the issuer of Microsoft's shared metadata."""

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}

type Algorithm = Literal["RS256", "ES256"]


def is_secure(address: str) -> bool:
    """Return whether an address is https, or http on this machine, and carries no credentials or fragment."""
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or "@" in parts.netloc or "#" in address or not re.fullmatch(r"[\x21-\x7e]+", address):
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)


def is_on_this_machine(address: str) -> bool:
    """Return whether an address is on the loopback interface."""
    return urlsplit(address).hostname in _LOOPBACK


def _secure(address: str) -> str:
    if not is_secure(address):
        raise ValueError("must be an https address, without credentials and fragment (http only on this machine)")
    return address


type Address = Annotated[str, AfterValidator(_secure)]
type Word = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,255}$")]
type Claim = Annotated[str, StringConstraints(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]{1,100}$")]
"""A claim's name, which may be an address; of characters that a challenge can repeat (RFC 6750 §3)."""


def _media_type(typ: str) -> str:
    """Return a `typ` without `application/` and in lower case (RFC 7515 §4.1.9)."""
    return typ.lower().removeprefix("application/")


class Issuer(BaseModel):
    """An issuer of tokens: what its tokens look like, and where its keys are published."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    issuer: Word
    """Exactly the claim `iss`; with `tenants`, `{tenantid}` in it stands for each of them."""
    audience: tuple[Word, ...] = Field(min_length=1)
    """A token must be for one of these."""
    subject_claim: Claim
    """The claim that names the person or service, the same for ever: `sub`, with Entra ID often `oid`."""
    owner_claim: Claim | None = None
    """The claim that names the organisation for which the subject acts, such as `tid` or `org_id`."""
    scope_claims: tuple[Claim, ...] = Field(("scope",), min_length=1)
    """Claims with scopes, each a text with spaces or an array."""
    algorithms: tuple[Algorithm, ...] = Field(min_length=1)
    typ: tuple[Annotated[Word, AfterValidator(_media_type)], ...] | None = Field(None, min_length=1)
    """Accepted types in the token's header, such as `at+jwt` (RFC 9068); any where it is left out."""
    tenants: tuple[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,100}$")], ...] = ()
    bare_subjects: bool = False
    """The subjects are the accounts that HS256 tokens had before."""
    discovery: Address | None = None
    """Address of the OpenID Connect or RFC 8414 metadata, which names the keys' address."""
    jwks_uri: Address | None = None
    """Address of the keys."""

    @model_validator(mode="after")
    def _one_address_and_whole_template(self) -> Self:
        if (self.discovery is None) == (self.jwks_uri is None):
            raise ValueError("needs either discovery or jwks_uri")
        if (TENANT in self.issuer) != bool(self.tenants):
            raise ValueError(f"tenants and {TENANT} in issuer belong together")
        if max(map(len, self.names)) > 255:  # noqa: PLR2004 - as a body may name it
            raise ValueError("has more than 255 characters with a tenant in it")
        return self

    @property
    def names(self) -> Mapping[str, str | None]:
        """Return the claims `iss` that belong to this row, each with its tenant."""
        if not self.tenants:
            return {self.issuer: None}
        return {self.issuer.replace(TENANT, tenant): tenant for tenant in self.tenants}

    def takes(self, typ: object) -> bool:
        """Return whether tokens of this type are accepted."""
        return self.typ is None or (isinstance(typ, str) and _media_type(typ) in self.typ)
