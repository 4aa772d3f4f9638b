"""The rules of a deployment, each with its reason.

A rule yields one sentence for each thing that is wrong. `RULES` has all of them.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError

from infra.checks.deployment import Deployment
from migrations.roles import LIMITS
from shared.http.second_process import CONNECTIONS
from twins.settings import Settings

type Problems = Iterator[str]
type Rule = Callable[[Deployment], Problems]

SITE = "Microsoft.Web/sites"
VAULT = "Microsoft.KeyVault/vaults"
STORAGE = "Microsoft.Storage/storageAccounts"
POSTGRES = "Microsoft.DBforPostgreSQL/flexibleServers"
DOCUMENTDB = "Microsoft.DocumentDB/mongoClusters"
INSIGHTS = "Microsoft.Insights/components"
EVENTS = "Microsoft.EventGrid/systemTopics/eventSubscriptions"
EXPIRY = ["Microsoft.KeyVault.SecretNearExpiry", "Microsoft.KeyVault.SecretExpired"]
PUBLISHING = "Microsoft.Web/sites/basicPublishingCredentialsPolicies"
ROLE = "Microsoft.Authorization/roleAssignments"

type Wanted = tuple[tuple[str, str, Any], ...]
"""Rows of a resource type, a path in its body, and the one right value; None: the path must be absent."""

ALWAYS: Wanted = (
    (SITE, "properties.httpsOnly", True),
    (SITE, "properties.functionAppConfig.deployment.storage.authentication.type", "UserAssignedIdentity"),
    (SITE, "properties.functionAppConfig.runtime", {"name": "python", "version": "3.13"}),
    (SITE, "properties.siteConfig.cors", None),
    (SITE, "properties.siteConfig.ftpsState", "Disabled"),
    (SITE, "properties.siteConfig.healthCheckPath", None),  # has no effect on Flex Consumption: alerts replace it
    (SITE, "properties.siteConfig.http20Enabled", True),
    (SITE, "properties.siteConfig.minTlsVersion", "1.2"),
    (SITE, "properties.siteConfig.remoteDebuggingEnabled", False),
    (SITE, "properties.siteConfig.scmMinTlsVersion", "1.2"),
    (PUBLISHING, "properties.allow", False),
    (VAULT, "properties.enablePurgeProtection", True),
    (VAULT, "properties.enableRbacAuthorization", True),
    (VAULT, "properties.enableSoftDelete", True),
    (STORAGE, "properties.allowBlobPublicAccess", False),
    (STORAGE, "properties.allowSharedKeyAccess", False),
    (STORAGE, "properties.minimumTlsVersion", "TLS1_2"),
    (STORAGE, "properties.supportsHttpsTrafficOnly", True),
    (POSTGRES, "properties.administratorLogin", None),
    (POSTGRES, "properties.administratorLoginPassword", None),
    (POSTGRES, "properties.authConfig.activeDirectoryAuth", "Enabled"),
    (POSTGRES, "properties.authConfig.passwordAuth", "Disabled"),
    (DOCUMENTDB, "properties.administrator", None),
    (DOCUMENTDB, "properties.authConfig.allowedModes", ["MicrosoftEntraID"]),
    (INSIGHTS, "properties.DisableLocalAuth", True),
    (EVENTS, "properties.filter.includedEventTypes", EXPIRY),
    (ROLE, "properties.principalType", "ServicePrincipal"),
)
"""TLS 1.2 or newer; no password, account key or ingestion key opens anything; no secret is lost or expires unseen."""

IN_PRODUCTION: Wanted = (
    (SITE, "properties.publicNetworkAccess", "Disabled"),
    ("Microsoft.Web/serverfarms", "properties.zoneRedundant", True),
    (VAULT, "properties.networkAcls.defaultAction", "Deny"),
    (VAULT, "properties.publicNetworkAccess", "Disabled"),
    (STORAGE, "properties.networkAcls.defaultAction", "Deny"),
    (STORAGE, "properties.publicNetworkAccess", "Disabled"),
    (STORAGE, "sku.name", "Standard_ZRS"),
    (POSTGRES, "properties.backup.backupRetentionDays", 35),
    (POSTGRES, "properties.backup.geoRedundantBackup", "Enabled"),
    (POSTGRES, "properties.highAvailability.mode", "ZoneRedundant"),
    (POSTGRES, "properties.network.publicNetworkAccess", "Disabled"),
    (DOCUMENTDB, "properties.highAvailability.targetMode", "ZoneRedundantPreferred"),
    (DOCUMENTDB, "properties.publicNetworkAccess", "Disabled"),
)
"""Closed to the internet, standbys in another zone, backups elsewhere."""

SETTINGS = {
    "JWT_AUDIENCE": ".{2,}",  # without one, a token that names no audience is good for every service with this key
    "KEY_VAULT_JWT_SECRET": "(jwt-secret)?",  # nosec B105  # the name of a secret
    "KEY_VAULT_RECEIPT_SECRET": "receipt-key",  # nosec B105  # the name of a secret
    "LOG_NAMES": "false",
    "MONGODB_AUTH": "oidc",
    "MONGODB_URI": r"mongodb\+srv://.*[?&]tls=true.*",
    "POSTGRES_AUTH": "entra",
    "POSTGRES_DSN": ".*sslmode=verify-full&sslrootcert=/.*",  # asyncpg verifies the server only with both of them
}
"""Patterns of application settings."""

POSTGRES_PARAMETERS = {
    "azure.extensions": "BTREE_GIN,PG_TRGM",  # what migrations create, and nothing else
    "idle_in_transaction_session_timeout": "60000",  # nobody keeps a lock by falling asleep
    "log_error_verbosity": "TERSE",  # error details quote rows ("Failing row contains …"), which are personal data
    "require_secure_transport": "ON",
    "ssl_min_protocol_version": "TLSv1.[23]",
    "tcp_keepalives_count": "3",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_user_timeout": "60000",
}
"""Patterns of PostgreSQL's own parameters."""

PREVIEWS = {"Microsoft.Insights/diagnosticSettings": "2021-05-01-preview"}  # on purpose: there is no newer version

HOST_SETTINGS = {
    "AzureWebJobsStorage__accountName",
    "AzureWebJobsStorage__clientId",
    "AzureWebJobsStorage__credential",
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING",
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS",
    "PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY",
}
"""Settings that only the Functions host and its Python worker read."""

FORBIDDEN_ON_FLEX = re.compile(
    "FUNCTIONS_WORKER_RUNTIME|FUNCTIONS_EXTENSION_VERSION|FUNCTIONS_WORKER_PROCESS_COUNT"
    "|SCM_DO_BUILD_DURING_DEPLOYMENT|ENABLE_ORYX_BUILD|WEBSITE_RUN_FROM_PACKAGE|WEBSITE_CONTENT.*"
    "|WEBSITE_TIME_ZONE|TZ|AzureWebJobsStorage|AzureWebJobsDashboard"
)
"""Settings that Flex Consumption refuses, or that break there; the last two would hold an account key."""

FROM_VAULT = {"JWT_SECRETS", "RECEIPT_KEYS"}
"""Not set: with KEY_VAULT_URL the app reads them while it runs, so that they rotate without a restart."""

HARMLESS = {"APPLICATIONINSIGHTS_CONNECTION_STRING", "MONGODB_URI", "POSTGRES_DSN"}
"""Secret settings whose values open nothing: ingestion takes no key, and the users have no password."""

ROLES = {
    (VAULT, "4633458b-17de-408a-b874-0445c86b69e6"),  # Key Vault Secrets User
    (STORAGE, "b7e6dc6d-f1e8-4753-8033-0f276bb0955b"),  # Storage Blob Data Owner
    (INSIGHTS, "3913510d-42f4-4e42-8a64-420c390055eb"),  # Monitoring Metrics Publisher
}
"""The roles of the site, each on one resource of this type."""

USER_CONNECTIONS = {"Standard_B1ms": 35, "Standard_B2s": 414, "Standard_D2ds_v5": 844, "Standard_D4ds_v5": 1703}
"""The connections that PostgreSQL leaves to users, by size, from the service's documentation."""

PGBOUNCER_CLIENTS = 5000  # the default of `pgbouncer.max_client_conn`
OTHER_CONNECTIONS = 5  # reserved for a migration and for people

_REFERENCE = re.compile(r"@Microsoft\.KeyVault\(VaultName=[^;]+;SecretName=([a-z-]+)\)")
_PASSWORD = re.compile(r"://[^/@:]*:[^/@]+@|(?i:AccountKey=|SharedAccessSignature=|password=)")


def api_versions_are_stable(deployment: Deployment) -> Problems:
    """Preview versions are chosen on purpose, and every file uses the same version of a resource type."""
    versions: dict[str, str] = {}
    for resource in deployment.resources:
        version = resource.get("apiVersion")
        if version.endswith("-preview") and PREVIEWS.get(resource.type) != version:
            yield f"{resource.type}@{version} is a preview"
        if versions.setdefault(resource.type, version) != version:
            yield f"{resource.type} has two versions, {version} and {versions[resource.type]}"


def values_are_as_wanted(deployment: Deployment) -> Problems:
    """Resources, settings and parameters of PostgreSQL have the values listed above."""
    for type_, path, value in ALWAYS + IN_PRODUCTION if deployment.production else ALWAYS:
        found = deployment.of(type_)
        if not found:
            yield f"there is no {type_}"
        for resource in found:
            if resource.get(path) != value:
                yield f"{type_} {resource.name}: {path} is {resource.get(path)!r}, not {value!r}"
    for given, wanted in ((deployment.settings, SETTINGS), (_postgres_parameters(deployment), POSTGRES_PARAMETERS)):
        for name, pattern in wanted.items():
            if not re.fullmatch(pattern, given.get(name, "")):
                yield f"{name} is not {pattern}"


def nothing_else_leads_in(deployment: Deployment) -> Problems:
    """FTP and SCM take no password, no rule of the network admits the internet; production has no open server."""
    if len(deployment.of(PUBLISHING)) != len({"ftp", "scm"}):
        yield "FTP or SCM takes a publishing password"
    for group in deployment.of("Microsoft.Network/networkSecurityGroups"):
        for rule in group.get("properties.securityRules"):
            if (rule["properties"]["direction"], rule["properties"]["access"]) == ("Inbound", "Allow"):
                yield f"{rule['name']} lets somebody into the network"
    for resource in deployment.resources:
        if deployment.production and resource.type.endswith("/firewallRules"):
            yield f"{resource.type} opens a closed server"


def closed_is_reachable_inside(deployment: Deployment) -> Problems:
    """Each resource that refuses the internet has a private endpoint, and the site goes out through the network."""
    if not deployment.production:
        return
    groups = {
        group
        for endpoint in deployment.of("Microsoft.Network/privateEndpoints")
        for connection in endpoint.get("properties.privateLinkServiceConnections")
        for group in connection["properties"]["groupIds"]
    }
    for group in sorted({"blob", "vault", "postgresqlServer", "MongoCluster", "sites"} - groups):
        yield f"there is no private endpoint for {group}"
    for site in deployment.of(SITE):
        if not site.get("properties.virtualNetworkSubnetId"):
            yield "the site does not go out through the virtual network"


def serving_cannot_migrate(deployment: Deployment) -> Problems:
    """The administrator of PostgreSQL is not the site's identity, and in production no person."""
    administrators = deployment.of("Microsoft.DBforPostgreSQL/flexibleServers/administrators")
    if not administrators:
        yield "PostgreSQL has no administrator, so nobody can make roles"
    for administrator in administrators:
        name = administrator.get("properties.principalName")
        if deployment.production and administrator.get("properties.principalType") != "ServicePrincipal":
            yield f"{name}, a person, owns the schema in production"
        if f"//{name}@" in deployment.settings.get("POSTGRES_DSN", ""):
            yield f"{name} both serves and owns the schema"


def flex_consumption(deployment: Deployment) -> Problems:
    """The plan's own traps: refused settings, one request per instance, restarts that drop requests."""
    for site in deployment.of(SITE):
        for name in deployment.settings:
            if FORBIDDEN_ON_FLEX.fullmatch(name):
                yield f"{name} must not be set on Flex Consumption"
        scale = "properties.functionAppConfig.scaleAndConcurrency"
        if (site.get(f"{scale}.triggers.http.perInstanceConcurrency") or 1) <= 1:
            yield "perInstanceConcurrency is not set: Python serves one request an instance"
        always = {entry["name"]: entry["instanceCount"] for entry in site.get(f"{scale}.alwaysReady") or []}
        if always.get("http", 0) < 1:
            yield "no instance is always ready"
        # Without the parameter there is no strategy: not every region has this preview.
        if site.get("properties.functionAppConfig.siteUpdateStrategy") not in (None, {"type": "RollingUpdate"}):
            yield "a deployment ends requests that are under way"


def settings_match_the_code(deployment: Deployment) -> Problems:
    """The code's settings and the site's settings are the same, and the values fit."""
    wanted = {name.upper() for name in Settings.model_fields} - FROM_VAULT | HOST_SETTINGS
    for name in sorted(wanted ^ deployment.settings.keys()):
        yield f"{name} is {'read and not set' if name in wanted else 'set and not read'}"
    try:
        parse_settings(deployment.settings)
    except ValidationError as error:
        for item in error.errors(include_url=False, include_context=False, include_input=False):
            yield f"{'.'.join(map(str, item['loc'])).upper() or 'the settings'}: {item['msg']}"


def parse_settings(given: dict[str, str]) -> Settings:
    """Read settings like the app does from its environment."""
    return Settings.model_validate({name.lower(): value for name, value in given.items() if value != ""})


def secrets_are_references(deployment: Deployment) -> Problems:
    """A secret is in the vault; the settings hold only its address."""
    kept = {secret.name for secret in deployment.of(f"{VAULT}/secrets")}
    for name, value in deployment.settings.items():
        reference = _REFERENCE.fullmatch(value)
        if reference and reference[1] not in kept:
            yield f"{name} refers to {reference[1]}, which the vault does not have"
        if not reference and _PASSWORD.search(value):
            yield f"{name} holds a password or key"
        field = Settings.model_fields.get(name.lower())
        if not reference and field and "SecretStr" in str(field.annotation) and name not in HARMLESS:
            yield f"{name} is a secret and no Key Vault reference"
    for site in deployment.of(SITE):
        identities = site.get("identity.userAssignedIdentities") or {}
        if site.get("properties.keyVaultReferenceIdentity") not in identities:
            yield "keyVaultReferenceIdentity is not the site's identity: no reference can be read"


def roles_are_the_least(deployment: Deployment) -> Problems:
    """Each role is needed, and is assigned on the one resource that needs it."""
    given = {(role.scope, role.get("properties.roleDefinitionId").rpartition("/")[2]) for role in deployment.of(ROLE)}
    for scope, role in given ^ ROLES:
        where = scope or "the whole resource group"
        yield f"role {role} on {where} is {'needed and not given' if (scope, role) in ROLES else 'more than is needed'}"


def secrets_are_kept(deployment: Deployment) -> Problems:
    """Every secret has a content type and expires; a deployment without it leaves the vault's secret unchanged."""
    for secret in deployment.of(f"{VAULT}/secrets"):
        if not secret.get("properties.attributes.exp"):
            yield f"secret {secret.name} never expires"
        if not secret.get("properties.contentType"):
            yield f"secret {secret.name} has no content type"
        value = re.fullmatch(r"\[(parameters\('\w+'\))\]", secret.get("properties.value"))
        if value is None or secret.get("condition") != f"[not(equals({value[1]}, ''))]":
            yield f"a later deployment, without secret {secret.name}, would replace it"


def names_are_allowed(deployment: Deployment) -> Problems:
    """Azure requires 3 to 24 lower-case letters and digits as the name of a storage account."""
    for account in deployment.of("Microsoft.Storage/storageAccounts"):
        if not re.fullmatch("[a-z0-9]{3,24}", account.name):
            yield f"{account.name} is no name for a storage account"


def connections_fit(deployment: Deployment) -> Problems:
    """The highest number of instances times what each opens stays below the connections of PostgreSQL."""
    servers, sites = deployment.of(POSTGRES), deployment.of(SITE)
    if len(servers) != 1 or len(sites) != 1:
        yield "there is not one server and one site"
        return
    size = servers[0].get("sku.name")
    if size not in USER_CONNECTIONS:
        yield f"how many connections {size} takes is not known here"
        return
    instances = sites[0].get("properties.functionAppConfig.scaleAndConcurrency.maximumInstanceCount")
    second = CONNECTIONS if deployment.settings["SECOND_PROCESS"] == "true" else 0
    # The timer runs in an instance of its own, which has no second process.
    clients = (instances + 1) * int(deployment.settings["POSTGRES_POOL_MAX"]) + instances * second
    pooled = _postgres_parameters(deployment).get("pgbouncer.enabled") == "true"
    limit = PGBOUNCER_CLIENTS if pooled else USER_CONNECTIONS[size] - OTHER_CONNECTIONS
    if clients > limit:
        yield f"{clients} connections at the most, and {size} takes {limit}"


def the_server_waits_longer_than_the_app(deployment: Deployment) -> Problems:
    """The app gives a statement up before the server does, so that the server's limit is for clients that cannot."""
    app, server = float(deployment.settings["POSTGRES_COMMAND_TIMEOUT"]), LIMITS["statement_timeout"] / 1000
    if app >= server:
        yield f"POSTGRES_COMMAND_TIMEOUT is {app} s, and the server ends a statement after {server} s"


def pooler_is_used_right(deployment: Deployment) -> Problems:
    """PgBouncer opens no more connections than the server accepts, and the app is set up for it."""
    parameters = _postgres_parameters(deployment)
    pooled = parameters.get("pgbouncer.enabled") == "true"
    if (":6432/" in deployment.settings.get("POSTGRES_DSN", "")) != pooled:
        yield "the app and the server disagree on PgBouncer"
    if not pooled:
        return
    if deployment.settings.get("POSTGRES_STATEMENT_CACHE") != "0":
        yield "PgBouncer knows no prepared statements: POSTGRES_STATEMENT_CACHE must be 0"
    for server in deployment.of(POSTGRES):
        size, pool = server.get("sku.name"), int(parameters["pgbouncer.default_pool_size"])
        if pool > USER_CONNECTIONS.get(size, 0) - OTHER_CONNECTIONS:
            yield f"PgBouncer opens {pool} connections, and {size} takes {USER_CONNECTIONS.get(size)}"
        if server.get("sku.tier") == "Burstable":
            yield "Burstable sizes have no PgBouncer"


def everything_is_watched(deployment: Deployment) -> Problems:
    """Each alert is enabled and reaches somebody; probes come from outside, by TLS."""
    for rule in deployment.of("Microsoft.Insights/scheduledQueryRules", "Microsoft.Insights/metricAlerts"):
        actions = rule.get("properties.actions")
        if not (actions["actionGroups"] if isinstance(actions, dict) else actions):
            yield f"alert {rule.name} reaches nobody"
        if rule.get("properties.enabled") is not True:
            yield f"alert {rule.name} is off"
    tests = {test.name.rpartition("-")[2]: test for test in deployment.of("Microsoft.Insights/webtests")}
    if not deployment.production and tests.keys() != {"health", "ready"}:
        yield "/health and /ready are not tested from outside"
    for name, test in tests.items():
        if "http://" in test.get("properties.Request.RequestUrl"):
            yield f"/{name} is called without TLS"


def logs_are_kept(deployment: Deployment) -> Problems:
    """The logs of the site, the vault and each store go to the workspace."""
    logged = {setting.scope or "" for setting in deployment.of("Microsoft.Insights/diagnosticSettings")}
    for type_ in sorted({SITE, VAULT, f"{STORAGE}/blobServices", POSTGRES, DOCUMENTDB} - logged):
        yield f"the log of {type_} is not kept"


def _postgres_parameters(deployment: Deployment) -> dict[str, str]:
    found = deployment.of(f"{POSTGRES}/configurations")
    return {parameter.name: parameter.get("properties.value") for parameter in found}


RULES: tuple[Rule, ...] = (
    api_versions_are_stable,
    values_are_as_wanted,
    nothing_else_leads_in,
    closed_is_reachable_inside,
    serving_cannot_migrate,
    flex_consumption,
    settings_match_the_code,
    secrets_are_references,
    roles_are_the_least,
    secrets_are_kept,
    names_are_allowed,
    connections_fit,
    the_server_waits_longer_than_the_app,
    pooler_is_used_right,
    everything_is_watched,
    logs_are_kept,
)


def problems(deployment: Deployment) -> list[str]:
    """Return the broken rules, each with the rule's name."""
    return [f"{rule.__name__}: {problem}" for rule in RULES for problem in rule(deployment)]
