"""Every setting of the application; the only reader of the environment."""

import json
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MIN_KEY_BYTES = 32
"""RFC 7518 §3.2: an HS256 key is at least as long as the hash's output, 256 bits."""


class ConfigurationError(Exception):
    """A setting is missing or unusable; the text names it and never shows its value."""


class Settings(BaseSettings):
    """Settings, one environment variable each, named like the field in upper case.

    Times are in seconds. Raises `ValidationError` where a value does not fit; `load` turns that
    into a `ConfigurationError` that is safe to print.
    """

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True)

    postgres_dsn: SecretStr
    """libpq URL of the serving role; in Azure with `sslmode=verify-full` and no password."""
    postgres_auth: Literal["dsn", "entra"] = "dsn"
    """`entra`: the password of each new connection is a Microsoft Entra token."""
    postgres_pool_min: int = Field(0, ge=0)
    postgres_pool_max: int = Field(10, ge=1)
    postgres_pool_idle: float = Field(60, gt=0)
    """How long an unused connection is kept."""
    postgres_acquire_timeout: float = Field(2, gt=0)
    """How long a request waits for a free connection before it is answered 503."""
    postgres_connect_timeout: float = Field(2, gt=0)
    postgres_command_timeout: float = Field(3, gt=0)
    postgres_statement_cache: int = Field(100, ge=0)
    """Prepared statements kept a connection; 0 behind PgBouncer."""

    mongodb_uri: SecretStr
    mongodb_auth: Literal["uri", "oidc"] = "uri"
    """`oidc`: MONGODB-OIDC with a Microsoft Entra token of the managed identity."""
    mongodb_database: str = Field("twins", min_length=1, max_length=63)
    mongodb_pool_max: int = Field(20, ge=1)
    mongodb_timeout: float = Field(3, gt=0)
    """Bound of one operation, the search for a server included."""

    jwt_secrets: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    """HS256 keys: one, or a JSON array of them for rotation, where the first signs."""
    jwt_audience: str | None = None
    jwt_issuer: str | None = None
    jwt_require_exp: bool = True
    digest_key: SecretStr
    """Keys the digests that stand in for owners in logs and erasures, and seals cursors."""
    receipt_keys: SecretStr | None = None
    """EC P-256 private keys as a JWK or a JSON array of them; the first signs, all are published."""

    key_vault_url: str | None = None
    """Where set, `jwt_secrets` and `receipt_keys` are read and refreshed from this vault."""
    key_vault_jwt_secret: str = "jwt-secret"  # noqa: S105 - the name of a secret
    key_vault_receipt_secret: str = "receipt-key"  # noqa: S105 - the name of a secret
    key_vault_refresh: float = Field(300, gt=0)
    azure_client_id: str | None = None
    """The user-assigned managed identity to sign in with."""

    erasure_second_sweep: float = Field(300, ge=0)
    """How long after the first sweep of an erasure the second runs."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_names: bool = True
    """False: logs carry a keyed digest in place of each twin's name."""
    applicationinsights_connection_string: SecretStr | None = None
    """Where set, telemetry is exported to Azure Monitor."""

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

    @field_validator("jwt_secrets")
    @classmethod
    def _long_enough(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(len(key.get_secret_value().encode()) < MIN_KEY_BYTES for key in value):
            raise ValueError(f"every key must have at least {MIN_KEY_BYTES} bytes (RFC 7518 §3.2)")
        return value

    @field_validator("digest_key")
    @classmethod
    def _digest_key_long_enough(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value().encode()) < MIN_KEY_BYTES:
            raise ValueError(f"must have at least {MIN_KEY_BYTES} bytes")
        return value

    @model_validator(mode="after")
    def _some_source_of_keys(self) -> Self:
        if self.key_vault_url is None:
            if not self.jwt_secrets:
                raise ValueError("set JWT_SECRETS or KEY_VAULT_URL: there is no key to verify tokens with")
            if self.receipt_keys is None:
                raise ValueError("set RECEIPT_KEYS or KEY_VAULT_URL: there is no key to sign receipts with")
        return self


def load() -> Settings:
    """Read the settings from the environment.

    Raises:
        ConfigurationError: names each variable that is missing or does not fit.
    """
    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'][:1]).upper() or 'settings'}: {item['msg']}"
            for item in error.errors(include_url=False, include_context=False, include_input=False)
        )
        raise ConfigurationError(f"Unusable configuration. {problems}") from None
