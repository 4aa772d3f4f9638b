"""One Settings class reads what a developer, a Docker user and Azure give it."""

import json
import re
from collections.abc import Callable

import pytest
import yaml

from infra.checks.deployment import FOLDER, read
from infra.checks.rules import FROM_VAULT, HOST_SETTINGS, parse_settings
from infra.new_secrets import receipt_key
from twins.settings import Settings, load

ROOT = FOLDER.parent
HOST_ONLY = HOST_SETTINGS | {"AzureWebJobsStorage", "AzureWebJobs.drain.Disabled", "FUNCTIONS_WORKER_RUNTIME"}
POSTGRES, WORKSPACE = "Microsoft.DBforPostgreSQL/flexibleServers", "Microsoft.OperationalInsights/workspaces"
DOCUMENTDB_BACKUP_DAYS = 35
"""The service's own, which nobody sets."""
SECRETS = {
    "JWT_SECRETS": "j" * 64,
    "DIGEST_KEY": "d" * 64,
    "RECEIPT_KEYS": receipt_key(),
    "POSTGRES_APP_PASSWORD": "p" * 32,
}


def _local() -> dict[str, str]:
    values: dict[str, str] = json.loads((ROOT / "local.settings.example.json").read_text())["Values"]
    return values


def _compose() -> dict[str, str]:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    return {
        name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", re.sub(r"\$\{(\w+)-\}", lambda match: SECRETS[match[1]], value))
        for name, value in services["app"]["environment"].items()
    }


def _azure(label: str) -> dict[str, str]:
    return read(FOLDER / f"{label}.snapshot.json").settings


SOURCES: dict[str, Callable[[], dict[str, str]]] = {
    "local": _local,
    "compose": _compose,
    "azure": lambda: _azure("main"),
    "azure in production": lambda: _azure("prod"),
}


@pytest.mark.parametrize("source", SOURCES)
def test_the_settings_class_reads_it_and_knows_each_name(source: str) -> None:
    given = SOURCES[source]()
    read = {name.upper() for name in Settings.model_fields}
    assert given.keys() - HOST_ONLY <= read
    settings = parse_settings(given)
    assert settings.mongodb_database == "twins"


def test_what_a_developer_copies_names_every_setting() -> None:
    assert {name.upper() for name in Settings.model_fields} <= _local().keys()


def test_azure_sets_every_setting_but_those_read_from_the_vault() -> None:
    read = {name.upper() for name in Settings.model_fields}
    assert read - _azure("prod").keys() == FROM_VAULT


def test_compose_starts_the_app_as_the_environment_would(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in _compose().items():
        monkeypatch.setenv(name, value)
    settings = load()
    assert settings.postgres_dsn.get_secret_value().startswith("postgresql://twins_app:pppp")
    assert len(settings.jwt_secrets) == 1


@pytest.mark.parametrize("label", ["main", "prod"])
def test_certificates_name_a_day_on_which_every_backup_and_log_has_gone(label: str) -> None:
    deployment = read(FOLDER / f"{label}.snapshot.json")
    kept = [
        *(server.get("properties.backup.backupRetentionDays") for server in deployment.of(POSTGRES)),
        *(workspace.get("properties.retentionInDays") for workspace in deployment.of(WORKSPACE)),
    ]

    assert len(kept) == 2
    assert parse_settings(deployment.settings).backup_retention_days > max(*kept, DOCUMENTDB_BACKUP_DAYS)
