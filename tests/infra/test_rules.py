# ruff: noqa: E501 - a table, one case a line
"""Each rule holds of the snapshots as they are, and finds the one thing that is changed in a copy."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.checks import rules
from infra.checks.__main__ import broken
from infra.checks.deployment import FOLDER, RUNTIME, read
from infra.checks.rules import POSTGRES, PUBLISHING, ROLE, SITE, STORAGE, VAULT

PROD, DEV = "prod", "main"
CONFIGURATION, ADMINISTRATOR = f"{POSTGRES}/configurations", f"{POSTGRES}/administrators"
ENDPOINT, NETWORK = "Microsoft.Network/privateEndpoints", "Microsoft.Network/networkSecurityGroups"
DIAGNOSTICS, ALERT, TEST = (f"Microsoft.Insights/{kind}" for kind in ("diagnosticSettings", "metricAlerts", "webtests"))
LEVEL = '{"name": "LOG_LEVEL", "value": "INFO"}'


def _and(name: str) -> str:
    return f'{LEVEL}, {{"name": "{name}", "value": "1"}}'


# The rule; the snapshot and the type of resource to change; what its JSON holds, and what a mistake would make of it.
BREAKS: list[tuple[str, str, str, str, str]] = [
    ("api_versions_are_stable", DEV, VAULT, '"apiVersion": "2024-11-01"', '"apiVersion": "2026-06-01-preview"'),
    ("api_versions_are_stable", DEV, TEST, f'"type": "{TEST}"', f'"type": "{ALERT}"'),
    ("values_are_as_wanted", DEV, STORAGE, STORAGE, "Microsoft.Storage/other"),
    ("nothing_else_leads_in", DEV, PUBLISHING, '"type": "Microsoft.Web/sites/', '"type": "Microsoft.Web/slots/'),
    ("nothing_else_leads_in", PROD, NETWORK, '"access": "Deny"', '"access": "Allow"'),
    ("nothing_else_leads_in", PROD, DIAGNOSTICS, f'"type": "{DIAGNOSTICS}"', f'"type": "{POSTGRES}/firewallRules"'),
    ("closed_is_reachable_inside", PROD, ENDPOINT, '["vault"]', '["blob"]'),
    ("closed_is_reachable_inside", PROD, SITE, '"virtualNetworkSubnetId"', '"noSubnetId"'),
    ("serving_cannot_migrate", DEV, ADMINISTRATOR, f'"type": "{ADMINISTRATOR}"', '"type": "gone"'),
    ("serving_cannot_migrate", DEV, ADMINISTRATOR, '-migrate", "principalType"', '-app", "principalType"'),
    ("serving_cannot_migrate", PROD, ADMINISTRATOR, '"ServicePrincipal"', '"User"'),
    ("flex_consumption", DEV, SITE, LEVEL, _and("WEBSITE_RUN_FROM_PACKAGE")),
    ("flex_consumption", DEV, SITE, LEVEL, _and("FUNCTIONS_WORKER_RUNTIME")),
    ("flex_consumption", DEV, SITE, LEVEL, _and("WEBSITE_CONTENTSHARE")),
    ("flex_consumption", DEV, SITE, '"perInstanceConcurrency": 32', '"perInstanceConcurrency": 1'),
    ("flex_consumption", DEV, SITE, '"perInstanceConcurrency"', '"notThat"'),
    ("flex_consumption", DEV, SITE, '"name": "http"', '"name": "blob"'),
    ("flex_consumption", PROD, SITE, '"RollingUpdate"', '"Recreate"'),
    ("settings_match_the_code", DEV, SITE, '"POSTGRES_POOL_IDLE"', '"POSTGRES_POOL_IDEL"'),
    ("settings_match_the_code", DEV, SITE, LEVEL, _and("LOG_COLOUR")),
    ("settings_match_the_code", DEV, SITE, LEVEL, LEVEL.replace("INFO", "LOUD")),
    ("settings_match_the_code", DEV, SITE, '"AzureWebJobsStorage__clientId"', '"AzureWebJobsStorage__client"'),
    ("secrets_are_references", DEV, SITE, "@Microsoft.KeyVault(", "a-key-that-anyone-can-read("),
    ("secrets_are_references", DEV, SITE, "SecretName=digest-key", "SecretName=other-key"),
    ("secrets_are_references", DEV, SITE, "mongodb+srv://", "mongodb+srv://twins:password@"),
    ("secrets_are_references", DEV, SITE, LEVEL, LEVEL.replace("INFO", "AccountKey=abc")),
    ("secrets_are_references", DEV, SITE, '-app", "publicNetworkAccess', '-other", "publicNetworkAccess'),
    ("roles_are_the_least", DEV, ROLE, "/providers/Microsoft.KeyVault/vaults/twins-xr325yovyneyy", ""),
    ("roles_are_the_least", DEV, ROLE, "Microsoft.KeyVault/vaults", STORAGE),
    ("roles_are_the_least", DEV, ROLE, "4633458b-17de-408a-b874-0445c86b69e6", "00482a5a-887f-4fb3-b363-3b7fe8e74483"),
    ("secrets_are_kept", DEV, f"{VAULT}/secrets", '"exp"', '"nbf"'),
    ("secrets_are_kept", DEV, f"{VAULT}/secrets", '"contentType"', '"content"'),
    ("secrets_are_kept", DEV, f"{VAULT}/secrets", '"condition"', '"dependsOn"'),
    ("secrets_are_kept", DEV, f"{VAULT}/secrets", '"[parameters(\'digestKey\')]"', '"given"'),
    ("names_are_allowed", DEV, STORAGE, '"name": "twins', '"name": "Twins'),
    ("names_are_allowed", DEV, STORAGE, '"name": "twinsxr325yovyneyy"', '"name": "st"'),
    ("connections_fit", DEV, SITE, '"POSTGRES_POOL_MAX", "value": "8"', '"POSTGRES_POOL_MAX", "value": "20"'),
    ("connections_fit", PROD, SITE, '"maximumInstanceCount": 100', '"maximumInstanceCount": 1000'),
    ("connections_fit", DEV, POSTGRES, '"Standard_B2s"', '"Standard_B1ms"'),
    ("connections_fit", DEV, POSTGRES, '"Standard_B2s"', '"Standard_Unheard_Of"'),
    ("connections_fit", DEV, POSTGRES, f'"type": "{POSTGRES}"', '"type": "gone"'),
    ("the_server_waits_longer_than_the_app", PROD, SITE, '"POSTGRES_COMMAND_TIMEOUT", "value": "3"', '"POSTGRES_COMMAND_TIMEOUT", "value": "10"'),
    ("pooler_is_used_right", PROD, CONFIGURATION, '"value": "200"', '"value": "1800"'),
    ("pooler_is_used_right", PROD, SITE, ", 6432, ", ", 5432, "),
    ("pooler_is_used_right", PROD, SITE, '"POSTGRES_STATEMENT_CACHE", "value": "0"', '"POSTGRES_STATEMENT_CACHE", "value": "100"'),
    ("pooler_is_used_right", PROD, POSTGRES, '"GeneralPurpose"', '"Burstable"'),
    ("everything_is_watched", DEV, ALERT, '"actions": [', '"actions": [], "was": ['),
    ("everything_is_watched", DEV, ALERT, '"enabled": true', '"enabled": false'),
    ("everything_is_watched", DEV, "Microsoft.Insights/scheduledQueryRules", '"actionGroups": ["', '"actionGroups": [], "was": ["'),
    ("everything_is_watched", DEV, TEST, '-ready"', '-steady"'),
    ("everything_is_watched", PROD, TEST, "https://", "http://"),
    ("logs_are_kept", DEV, DIAGNOSTICS, "Microsoft.KeyVault/vaults", "Microsoft.KeyVault/hsms"),
]  # fmt: skip


def _broken(label: str, type_: str, change: Callable[[Any], Any], folder: Path) -> list[str]:
    """Change the resources of one type in a copy of a snapshot; return what breaks a rule."""
    snapshot = json.loads((FOLDER / f"{label}.snapshot.json").read_text())
    resources = snapshot["predictedResources"]
    changed = [change(found) if found["type"] == type_ else found for found in json.loads(json.dumps(resources))]
    assert changed != resources, f"{type_} in {label} has changed: what is to be broken is no longer there"
    (folder / f"{label}.snapshot.json").write_text(json.dumps({"predictedResources": changed}))
    return rules.problems(read(folder / f"{label}.snapshot.json"))


def test_the_snapshots_as_they_are_break_no_rule() -> None:
    assert broken(FOLDER) == []


@pytest.mark.parametrize(
    ("rule", "label", "type_", "old", "new"), BREAKS, ids=[f"{b[0]}: {b[4].strip()[:40]}" for b in BREAKS]
)
def test_one_wrong_thing_breaks_its_rule(tmp_path: Path, rule: str, label: str, type_: str, old: str, new: str) -> None:
    found = _broken(label, type_, lambda body: json.loads(json.dumps(body).replace(old, new)), tmp_path)
    assert rule in {problem.partition(":")[0] for problem in found}


def test_every_rule_is_broken_once() -> None:
    assert {rule.__name__ for rule in rules.RULES} == {case[0] for case in BREAKS}


@pytest.mark.parametrize(("type_", "path", "value"), rules.ALWAYS + rules.IN_PRODUCTION)
def test_each_value_that_is_wanted_is_missed(tmp_path: Path, type_: str, path: str, value: object) -> None:
    def change(body: Any) -> Any:
        *parents, last = path.split(".")
        inner = body
        for name in parents:
            inner = inner[name]
        inner[last] = "another value"
        return body

    found = _broken(PROD, type_, change, tmp_path)
    assert any(f"{path} is 'another value', not {value!r}" in problem for problem in found)


@pytest.mark.parametrize("name", rules.SETTINGS)
def test_each_setting_that_is_wanted_is_missed(tmp_path: Path, name: str) -> None:
    def change(body: Any) -> Any:
        next(item for item in body["properties"]["siteConfig"]["appSettings"] if item["name"] == name)["value"] = "x"
        return body

    assert any(f"{name} is not" in problem for problem in _broken(DEV, SITE, change, tmp_path))


@pytest.mark.parametrize("name", rules.POSTGRES_PARAMETERS)
def test_each_parameter_of_postgresql_that_is_wanted_is_missed(tmp_path: Path, name: str) -> None:
    def change(body: Any) -> Any:
        body["properties"]["value"] = "x"
        return body

    assert any(f"{name} is not" in problem for problem in _broken(DEV, CONFIGURATION, change, tmp_path))


def test_without_a_strategy_an_update_is_as_the_region_can(tmp_path: Path) -> None:
    def change(body: Any) -> Any:
        body["properties"]["functionAppConfig"]["siteUpdateStrategy"] = None
        return body

    assert _broken(PROD, SITE, change, tmp_path) == []


@pytest.mark.parametrize("label", [DEV, PROD])
def test_what_only_azure_knows_has_one_stand_in(label: str) -> None:
    """A `format(…)` in the snapshot is put together as far as it is known; nothing else is an expression."""
    settings = read(FOLDER / f"{label}.snapshot.json").settings
    port = {DEV: 5432, PROD: 6432}[label]
    assert settings["POSTGRES_DSN"].startswith(f"postgresql://twins-xr325yovyneyy-app@{RUNTIME}:{port}/twins?")
    assert settings["APPLICATIONINSIGHTS_AUTHENTICATION_STRING"] == f"ClientId={RUNTIME};Authorization=AAD"
    assert settings["KEY_VAULT_URL"] == RUNTIME
    assert not [
        name for name, value in settings.items() if "[" in value or "(" in value.removeprefix("@Microsoft.KeyVault(")
    ]
