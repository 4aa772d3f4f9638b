"""The product's settings, added to those of any service; the only reader of the environment."""

import json
from typing import Self

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator

from shared import settings
from twins.assurance import Assurance
from twins.controller import Controller


class Settings(settings.Settings):
    """Settings, one environment variable each, named like the field in upper case."""

    mongodb_database: str = Field("twins", min_length=1, max_length=63)

    receipt_keys: SecretStr | None = None
    """EC P-256 private keys as a JWK or a JSON array of them; the first signs, all are published."""
    key_vault_receipt_secret: str = "receipt-key"  # noqa: S105 - the name of a secret

    erasure_second_sweep: float = Field(300, ge=0)
    """Seconds from the first sweep of an erasure to the second."""

    backup_retention_days: int = Field(36, ge=0)
    """How long backups and logs are kept, as erasure certificates say."""

    journal_retention_days: int = Field(60, ge=1, validate_default=True)
    """How long the journal of refusals and erasures is kept: longer than any backup that may be restored."""

    controller: Controller | None = None
    """A JSON object: who is responsible for the records of consent, as their receipts say."""

    account_requests: int = Field(16, ge=1)
    """How many requests of one account an instance answers at once, but for those that the next two bound."""
    account_decisions: int = Field(32, ge=1)
    """The same of questions to the gate."""
    account_noes: int = Field(8, ge=1)
    """The same of one person's withdrawals, refusals and erasures."""
    account_concurrency: int = Field(2, ge=1)
    """How many of `account_requests` to each resource it works on at once, while the others wait their turn."""

    account_twins: int = Field(1_000_000, ge=0)
    """How many twins an owner may have."""
    account_versions: int = Field(5_000_000, ge=0)
    """How many versions of personas an owner may have."""
    account_consents: int = Field(10_000_000, ge=0)
    """How many consents an owner's twins may have, beside the first of each."""
    account_bytes: int = Field(10 * 1024**3, ge=0)
    """How many bytes of personas, and of long notices and terms, an owner may store."""

    min_assurance: Assurance = "recorded"
    """The lowest assurance that is a yes; a question may ask for a higher one."""

    log_names: bool = True
    """False: logs carry a keyed digest in place of each twin's name."""

    @field_validator("controller", mode="before")
    @classmethod
    def _object(cls, value: object) -> object:
        try:
            return json.loads(value) if isinstance(value, str) else value
        except ValueError:
            raise ValueError("must be a JSON object") from None

    @field_validator("journal_retention_days")
    @classmethod
    def _outlives_backups(cls, days: int, info: ValidationInfo) -> int:
        if days <= info.data.get("backup_retention_days", 0):
            raise ValueError("must be more than BACKUP_RETENTION_DAYS: a backup needs it")
        return days

    @model_validator(mode="after")
    def _some_source_of_signing_keys(self) -> Self:
        if self.key_vault_url is None and self.receipt_keys is None:
            raise ValueError("set RECEIPT_KEYS or KEY_VAULT_URL: there is no key to sign receipts with")
        return self


def load() -> Settings:
    """Read the settings from the environment; raises `ConfigurationError`, which names each unusable variable."""
    return settings.load(Settings)
