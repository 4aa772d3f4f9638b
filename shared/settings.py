"""The settings of any such service. A product adds its own in a subclass."""

import json
import os
import re
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from shared.issuers import Issuer, is_secure

MIN_KEY_BYTES = 32
"""RFC 7518 §3.2: an HS256 key is at least as long as the hash's output, 256 bits."""


class ConfigurationError(Exception):
    """A setting is missing or unusable; the text names the setting and never shows its value."""


def _long_enough(key: SecretStr) -> SecretStr:
    if len(key.get_secret_value().encode()) < MIN_KEY_BYTES:
        raise ValueError(f"a key must have at least {MIN_KEY_BYTES} bytes")
    return key


Key = Annotated[SecretStr, AfterValidator(_long_enough)]


def _origin(address: str) -> str:
    if not is_secure(address) or not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]-]+/?", address):
        raise ValueError("must be an https origin, as https://api.example.com (http only on this machine)")
    return address.rstrip("/")


Origin = Annotated[str, AfterValidator(_origin)]


class Settings(BaseModel):
    """Settings from environment variables, each with its field's name in upper case; times are in seconds."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True, validate_default=True)

    postgres_dsn: SecretStr
    """libpq URL of the serving role; in Azure with `sslmode=verify-full` and no password."""
    postgres_auth: Literal["dsn", "entra"] = "dsn"
    """`entra`: the password of each new connection is a Microsoft Entra token."""
    postgres_pool_min: int = Field(0, ge=0)
    postgres_pool_max: int = Field(14, ge=1)
    postgres_pool_reserved: int = Field(4, ge=0)
    """How many of these connections common work may never hold: half of them are for the most urgent work alone."""
    postgres_pool_idle: float = Field(60, gt=0)
    """The life of an unused connection."""
    postgres_acquire_timeout: float = Field(2, gt=0)
    """How long a request waits for a free connection before the answer is 503."""
    postgres_connect_timeout: float = Field(2, gt=0)
    postgres_command_timeout: float = Field(3, gt=0)
    postgres_statement_cache: int = Field(100, ge=0)
    """Prepared statements per connection; 0 behind PgBouncer."""

    mongodb_uri: SecretStr
    mongodb_auth: Literal["uri", "oidc"] = "uri"
    """`oidc`: MONGODB-OIDC with a Microsoft Entra token of the managed identity."""
    mongodb_database: str = Field(min_length=1, max_length=63)
    mongodb_pool_max: int = Field(20, ge=1)
    mongodb_timeout: float = Field(3, gt=0)
    """Limit of one operation, including the search for a server."""

    jwt_secrets: tuple[Key, ...] = ()
    """One HS256 key, or a JSON array of keys for rotation; the first signs."""
    auth_issuers: tuple[Issuer, ...] = ()
    """A JSON array of the identity providers whose tokens are accepted, beside HS256 or alone."""
    jwt_audience: str | None = None
    jwt_issuer: str | None = None
    jwt_require_exp: bool = True
    jwt_max_life: float = Field(172_800, gt=0)
    """How far away the end of a token may be: a stolen token without such a bound is one for ever."""
    jwt_nbf_leeway: float = Field(10, ge=0, le=300)
    """How long before its `nbf` a token is accepted: the clock of its issuer may be ahead of ours."""
    digest_key: Key
    """Keys the digests of account names, and the seals of cursors."""

    key_vault_url: str | None = None
    """Where set, keys come from this vault, with refreshes, and not from the environment."""
    key_vault_jwt_secret: str | None = Field(
        default_factory=lambda given: None if given.get("auth_issuers") else "jwt-secret"
    )
    """The secret with the HS256 keys; none by default where tokens come from issuers."""
    key_vault_refresh: float = Field(300, gt=0)
    key_vault_max_age: float = Field(3600, gt=0)
    """The age from which no HS256 key from the vault verifies: the vault may have disabled it since."""
    azure_client_id: str | None = None
    """The user-assigned managed identity that signs in."""

    public_url: Origin | None = None
    """The origin at which callers reach this service. Never taken from a request, whose sender chooses `Host`."""

    second_process: bool = True
    """Whether a process of its own answers what is heavy for the processor; it begins with the first such request."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    applicationinsights_connection_string: SecretStr | None = None
    """Where set, telemetry goes to Azure Monitor."""

    @field_validator("jwt_secrets", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if not value.lstrip().startswith("["):
            return (value,)
        try:
            keys = json.loads(value)
        except ValueError:
            keys = None
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise ValueError("must be one secret or a JSON array of strings")
        return tuple(keys)

    @field_validator("auth_issuers", mode="before")
    @classmethod
    def _rows(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError("must be a JSON array of objects") from None

    @model_validator(mode="after")
    def _common_work_has_connections(self) -> Self:
        if self.postgres_pool_reserved >= self.postgres_pool_max:
            raise ValueError("POSTGRES_POOL_RESERVED must be less than POSTGRES_POOL_MAX")
        return self

    @model_validator(mode="after")
    def _some_source_of_keys(self) -> Self:
        if not self.takes_hs256 and not self.auth_issuers:
            raise ValueError("set JWT_SECRETS, KEY_VAULT_URL or AUTH_ISSUERS: there is no key to verify tokens with")
        return self

    @model_validator(mode="after")
    def _issuers_do_not_meet(self) -> Self:
        names = [name for issuer in self.auth_issuers for name in issuer.names]
        if len(set(names)) < len(names):
            raise ValueError("AUTH_ISSUERS has an issuer twice")
        if self.jwt_issuer in names:
            raise ValueError("JWT_ISSUER, of HS256 tokens, is an issuer of AUTH_ISSUERS too")
        bare = sum(issuer.bare_subjects for issuer in self.auth_issuers)
        if bare > 1:
            raise ValueError("only one issuer of AUTH_ISSUERS may have bare_subjects")
        if bare and self.takes_hs256:
            raise ValueError("bare_subjects in AUTH_ISSUERS are the accounts of HS256 tokens, which must be off")
        return self

    @property
    def takes_hs256(self) -> bool:
        """Whether HS256 tokens are accepted."""
        in_vault = self.key_vault_url is not None and self.key_vault_jwt_secret is not None
        return in_vault or bool(self.jwt_secrets)

    @model_validator(mode="after")
    def _keys_live_longer_than_their_refresh(self) -> Self:
        if self.key_vault_max_age < 2 * self.key_vault_refresh:
            raise ValueError("KEY_VAULT_MAX_AGE must be at least twice KEY_VAULT_REFRESH")
        return self


def load[S: Settings](kind: type[S]) -> S:
    """Read settings from the environment, where an empty variable is none.

    Raises `ConfigurationError`, which names each bad or missing variable.
    """
    # Not by pydantic-settings: its command line and its vaults were a tenth of our own part of a cold start.
    variables = {name: os.environ.get(name.upper()) for name in kind.model_fields}
    try:
        return kind.model_validate({name: value for name, value in variables.items() if value})
    except ValidationError as error:
        problems = "; ".join(
            f"{_place(item['loc'])}: {item['msg']}"
            for item in error.errors(include_url=False, include_context=False, include_input=False)
        )
        raise ConfigurationError(f"Unusable configuration. {problems}") from None


def _place(loc: tuple[int | str, ...]) -> str:
    """Return a place as the operator knows it, such as `AUTH_ISSUERS[0].audience`."""
    if not loc:
        return "settings"
    name, *inside = loc
    return str(name).upper() + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in inside)
