# ruff: noqa: E501 - tables, one case a line
"""Each rule holds of the templates as they are, and is broken by a template that is wrong."""

import re
import shutil
from pathlib import Path

import pytest

from infra.checks import rules, sources
from infra.checks.__main__ import ENVIRONMENT, FOLDER, evaluated
from infra.checks.bicep import BicepSyntaxError, parse
from infra.checks.evaluate import deployment

PROD, DEV = "prod.bicepparam", "main.bicepparam"

# The rule; the file, what is there, what somebody might make of it; the parameters that show it.
BREAKS: list[tuple[str, str, str, str, str]] = [
    ("api_versions_are_listed", "modules/vault.bicep", "vaults@2024-11-01' = {", "vaults@2022-07-01' = {", DEV),
    ("private_means_closed", "modules/postgres.bicep", "private ? 'Disabled' : 'Enabled'", "'Enabled'", PROD),
    ("private_means_closed", "modules/documentdb.bicep", "private ? 'Disabled' : 'Enabled'", "'Enabled'", PROD),
    ("private_means_closed", "modules/storage.bicep", "private ? 'Disabled' : 'Enabled'", "'Enabled'", PROD),
    ("private_means_closed", "modules/vault.bicep", "private ? 'Disabled' : 'Enabled'", "'Enabled'", PROD),
    ("private_means_closed", "modules/site.bicep", "private ? 'Disabled' : 'Enabled'", "'Enabled'", PROD),
    ("private_means_closed", "modules/vault.bicep", "private ? 'Deny' : 'Allow'", "'Allow'", PROD),
    ("private_means_closed", "modules/postgres.bicep", "if (private == false)", "if (private)", PROD),
    ("closed_is_reachable_inside", "main.bicep", "group: 'vault'", "group: 'blob'", PROD),
    ("closed_is_reachable_inside", "modules/site.bicep", "subnetId == '' ? null : subnetId", "null", PROD),
    ("tls_everywhere", "modules/site.bicep", "httpsOnly: true", "httpsOnly: false", DEV),
    ("tls_everywhere", "modules/site.bicep", " minTlsVersion: '1.2'", " minTlsVersion: '1.0'", DEV),
    ("tls_everywhere", "modules/site.bicep", "ftpsState: 'Disabled'", "ftpsState: 'AllAllowed'", DEV),
    ("tls_everywhere", "modules/storage.bicep", "'TLS1_2'", "'TLS1_0'", DEV),
    ("tls_everywhere", "modules/postgres.bicep", "'TLSv1.2'", "'TLSv1.1'", DEV),
    ("tls_everywhere", "modules/postgres.bicep", "value: 'ON'", "value: 'OFF'", DEV),
    ("tls_everywhere", "modules/site.bicep", "sslmode=verify-full", "sslmode=require", DEV),
    ("tls_everywhere", "modules/site.bicep", "?tls=true&", "?", DEV),
    ("tls_everywhere", PROD, "'TWINS_PUBLIC_URL', ''", "'NOT_SET', 'http://twins.example'", PROD),
    ("only_entra_signs_in", "modules/postgres.bicep", "passwordAuth: 'Disabled'", "passwordAuth: 'Enabled'", DEV),
    ("only_entra_signs_in", "modules/postgres.bicep", "version: '18'", "administratorLogin: 'admin'", DEV),
    ("only_entra_signs_in", "modules/documentdb.bicep", "'MicrosoftEntraID'\n      ]", "'NativeAuth'\n      ]", DEV),
    ("only_entra_signs_in", "modules/storage.bicep", "allowSharedKeyAccess: false", "allowSharedKeyAccess: true", DEV),
    ("only_entra_signs_in", "modules/monitoring.bicep", "DisableLocalAuth: true", "DisableLocalAuth: false", DEV),
    ("only_entra_signs_in", "modules/site.bicep", "allow: false", "allow: true", DEV),
    ("only_entra_signs_in", "modules/site.bicep", "POSTGRES_AUTH: 'entra'", "POSTGRES_AUTH: 'dsn'", DEV),
    ("serving_cannot_migrate", "main.bicep", "adminName: identities.outputs.migrateName", "adminName: identities.outputs.appName", DEV),
    ("serving_cannot_migrate", PROD, "param network = 'private'", "param network = 'private'\nparam operatorObjectId = 'x'", PROD),
    ("flex_consumption", "modules/site.bicep", "LOG_LEVEL: 'INFO'", "LOG_LEVEL: 'INFO'\n  WEBSITE_RUN_FROM_PACKAGE: '1'", DEV),
    ("flex_consumption", "modules/site.bicep", "LOG_LEVEL: 'INFO'", "LOG_LEVEL: 'INFO'\n  FUNCTIONS_WORKER_RUNTIME: 'python'", DEV),
    ("flex_consumption", "modules/site.bicep", "LOG_LEVEL: 'INFO'", "LOG_LEVEL: 'INFO'\n  WEBSITE_CONTENTSHARE: 'x'", DEV),
    ("flex_consumption", "modules/site.bicep", "http20Enabled: true", "healthCheckPath: '/health'", DEV),
    ("flex_consumption", "modules/site.bicep", "perInstanceConcurrency: requestsPerInstance", "notThat: 1", DEV),
    ("flex_consumption", "modules/site.bicep", "name: 'http'\n", "name: 'blob'\n", DEV),
    ("flex_consumption", "modules/site.bicep", "version: '3.13'", "version: '3.12'", DEV),
    ("flex_consumption", "modules/site.bicep", "'RollingUpdate'", "'Recreate'", DEV),
    ("flex_consumption", "modules/site.bicep", "type: 'UserAssignedIdentity'", "type: 'StorageAccountConnectionString'", DEV),
    ("settings_match_the_code", "modules/site.bicep", "  POSTGRES_POOL_IDLE: '60'\n", "", DEV),
    ("settings_match_the_code", "modules/site.bicep", "LOG_LEVEL: 'INFO'", "LOG_LEVEL: 'INFO'\n  LOG_COLOUR: 'red'", DEV),
    ("settings_match_the_code", "modules/site.bicep", "LOG_LEVEL: 'INFO'", "LOG_LEVEL: 'LOUD'", DEV),
    ("settings_match_the_code", "modules/site.bicep", "  AzureWebJobsStorage__clientId: identityClientId\n", "", DEV),
    ("settings_match_the_code", "modules/site.bicep", "  KEY_VAULT_URL: vaultUrl\n", "", DEV),
    ("secrets_are_references", "modules/site.bicep", "'@Microsoft.KeyVault(VaultName=${vaultName};SecretName=digest-key)'", "'a-key-that-anyone-can-read-in-the-portal'", DEV),
    ("secrets_are_references", "modules/site.bicep", "SecretName=digest-key", "SecretName=other-key", DEV),
    ("secrets_are_references", "modules/site.bicep", "${postgresRole}@", "${postgresRole}:password@", DEV),
    ("secrets_are_references", "modules/site.bicep", "keyVaultReferenceIdentity: identityId", "keyVaultReferenceIdentity: 'SystemAssigned'", DEV),
    ("secrets_are_references", "modules/monitoring.bicep", "DisableLocalAuth: true", "DisableLocalAuth: false", DEV),
    ("secrets_are_references", "modules/site.bicep", "KEY_VAULT_JWT_SECRET: 'jwt-secret'", "KEY_VAULT_JWT_SECRET: 'jwt'", DEV),
    ("roles_are_the_least", "modules/roles.bicep", "  scope: vault\n", "", DEV),
    ("roles_are_the_least", "modules/roles.bicep", "'4633458b-17de-408a-b874-0445c86b69e6'", "'00482a5a-887f-4fb3-b363-3b7fe8e74483'", DEV),
    ("roles_are_the_least", "modules/roles.bicep", "  scope: storage\n", "  scope: vault\n", DEV),
    ("roles_are_the_least", "modules/roles.bicep", "principalType: 'ServicePrincipal'", "principalType: 'User'", DEV),
    ("secrets_are_kept", "modules/vault.bicep", "enablePurgeProtection: true", "enablePurgeProtection: false", DEV),
    ("secrets_are_kept", "modules/vault.bicep", "enableRbacAuthorization: true", "enableRbacAuthorization: false", DEV),
    ("secrets_are_kept", "modules/vault.bicep", "      exp: expires\n", "", DEV),
    ("secrets_are_kept", "modules/vault.bicep", "    contentType: 'text/plain'\n", "", DEV),
    ("names_are_allowed", "main.bicep", "replace(name, '-', '')", "toUpper(name)", DEV),
    ("names_are_allowed", "main.bicep", "take(replace(name, '-', ''), 24)", "'st'", DEV),
    ("connections_fit", DEV, "postgresPoolMax = 8", "postgresPoolMax = 20", DEV),
    ("connections_fit", PROD, "maximumInstances = 100", "maximumInstances = 1000", PROD),
    ("connections_fit", DEV, "'Standard_B2s'", "'Standard_B1ms'", DEV),
    ("connections_fit", DEV, "'Standard_B2s'", "'Standard_Unheard_Of'", DEV),
    ("pooler_is_used_right", "modules/postgres.bicep", "value: '200'", "value: '1800'", PROD),
    ("pooler_is_used_right", "modules/site.bicep", "pgBouncer ? 6432 : 5432", "5432", PROD),
    ("pooler_is_used_right", "modules/site.bicep", "pgBouncer ? '0' : '100'", "'100'", PROD),
    ("pooler_is_used_right", "main.bicep", "var pgBouncer = postgresTier != 'Burstable'", "var pgBouncer = true", DEV),
    ("production_survives_a_zone", PROD, "highAvailability = true", "highAvailability = false", PROD),
    ("production_survives_a_zone", PROD, "postgresBackupDays = 35", "postgresBackupDays = 7", PROD),
    ("logs_hold_no_rows", "modules/postgres.bicep", "'TERSE'", "'DEFAULT'", DEV),
    ("logs_hold_no_rows", "modules/site.bicep", "LOG_NAMES: 'false'", "LOG_NAMES: 'true'", DEV),
    ("everything_is_watched", "modules/alerts.bicep", "name: 'dead-letters'", "name: 'letters'", DEV),
    ("everything_is_watched", "modules/alerts.bicep", "      actionGroups: [\n        operators.id\n      ]", "      actionGroups: []", DEV),
    ("everything_is_watched", "modules/alerts.bicep", "severity: alert.severity\n    enabled: true", "severity: alert.severity\n    enabled: false", DEV),
    ("everything_is_watched", "modules/alerts.bicep", "'Microsoft.KeyVault.SecretNearExpiry'", "'Microsoft.KeyVault.KeyNearExpiry'", DEV),
    ("everything_is_watched", "modules/alerts.bicep", "  'ready'\n", "", DEV),
    ("logs_are_kept", "modules/vault.bicep", "scope: vault\n", "scope: jwt\n", DEV),
]  # fmt: skip


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    """A copy to break."""
    folder = tmp_path / "infra"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    return folder


def _change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text, f"{file.name} has changed: {old!r} is no longer there"
    file.write_text(text.replace(old, new))


def test_the_templates_as_they_are_break_no_rule() -> None:
    assert evaluated(FOLDER) == []
    assert sources.problems(FOLDER) == []


@pytest.mark.parametrize(
    ("rule", "file", "old", "new", "parameters"), BREAKS, ids=[f"{b[0]}: {b[3].strip()[:40]}" for b in BREAKS]
)
def test_a_wrong_template_breaks_its_rule(
    templates: Path, rule: str, file: str, old: str, new: str, parameters: str
) -> None:
    _change(templates / file, old, new)
    found = rules.problems(deployment(templates / parameters, ENVIRONMENT))
    assert rule in {problem.partition(":")[0] for problem in found}


def test_every_rule_has_a_template_that_breaks_it() -> None:
    assert {rule.__name__ for rule in rules.RULES} == {broken[0] for broken in BREAKS}


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("modules/vault.bicep", "@description('Region.')\n", "", "param location has no @description"),
        ("main.bicep", "@description('Host of DocumentDB.')\n", "", "documentDbHost has no @description"),
        ("main.bicep", "@secure()\n@description('HS256", "@description('HS256", "jwtSecret is not @secure"),
        ("modules/vault.bicep", "string = vault.name", "string = jwtSecret", "shows the secret jwtSecret"),
        ("modules/storage.bicep", "string = storage.name", "string = listKeys(storage.id, 'x')", "listKeys"),
    ],
)
def test_a_wrong_source_is_found(templates: Path, file: str, old: str, new: str, problem: str) -> None:
    _change(templates / file, old, new)
    assert any(problem in found for found in sources.problems(templates))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("main.bicep", "param network string", "param network string?"),
        ("main.bicep", "var private = network == 'private'", "var private = !(network == 'public')"),
        ("main.bicep", "vaultUrl: vault.outputs.url", "vaultUrl: vault.outputs.uri"),
        ("main.bicep", "name: name\n    location: location\n    enabled", "nom: name\n    location: location\n    enabled"),
        ("main.bicep", "database: database", "database: base"),
        (DEV, "param network = 'public'\n", ""),
        (DEV, "param network = 'public'", "param network = 'open'"),
        (DEV, "using './main.bicep'\n", ""),
        ("modules/site.bicep", "LOG_LEVEL: 'INFO'", "LOG_LEVEL: 'INFO"),
    ],
)  # fmt: skip
def test_what_cannot_be_evaluated_is_an_error_and_never_passes(templates: Path, file: str, old: str, new: str) -> None:
    _change(templates / file, old, new)
    with pytest.raises(BicepSyntaxError):
        deployment(templates / DEV, {})
    assert evaluated(templates)


def test_each_skip_of_checkov_has_a_reason_and_names_a_rule_where_one_takes_over() -> None:
    names = {rule.__name__ for rule in rules.RULES}
    skips = [
        match for path in FOLDER.rglob("*.bicep") for match in re.finditer(r"checkov:skip=(\w+)(.*)", path.read_text())
    ]
    assert skips
    for skip in skips:
        reason = skip[2].removeprefix(":").strip()
        assert len(reason.split()) >= 8, f"{skip[1]} is skipped without a reason"
        for name in re.findall(r"\b[a-z]+_[a-z_]+\b", reason):
            assert name in names


def test_a_string_is_not_a_name() -> None:
    file = parse("var x = 'y'\nvar y = 'z'\n", "test")
    assert str(file.declarations["x"].value) == "Literal(value='y')"


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        ("'it\\'s'", 'Literal(value="it\'s")'),
        ("'a${'b'}c'", "Text(parts=(Literal(value='a'), Literal(value='b'), Literal(value='c')))"),
        ("'${a ? 'b' : 'c}'}'", "'c}'"),
    ],
)
def test_strings_are_read_as_bicep_does(written: str, parts: str) -> None:
    value = parse(f"var x = {written}\n", "test").declarations["x"].value
    assert parts in str(value)
