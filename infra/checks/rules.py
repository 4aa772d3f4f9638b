"""What must hold of a deployment and checkov does not know, each with why.

A rule yields one sentence for each thing that is wrong. `RULES` is all of them.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, get_args

from pydantic import SecretStr, ValidationError

from infra.checks.resources import Deployment, Resource
from shared.settings import Settings

type Problems = Iterator[str]
type Rule = Callable[[Deployment], Problems]

SITE = "Microsoft.Web/sites"
VAULT = "Microsoft.KeyVault/vaults"
STORAGE = "Microsoft.Storage/storageAccounts"
POSTGRES = "Microsoft.DBforPostgreSQL/flexibleServers"
DOCUMENTDB = "Microsoft.DocumentDB/mongoClusters"
INSIGHTS = "Microsoft.Insights/components"

API_VERSIONS = {
    "Microsoft.Authorization/roleAssignments": "2022-04-01",
    "Microsoft.DBforPostgreSQL/flexibleServers": "2025-08-01",
    "Microsoft.DBforPostgreSQL/flexibleServers/administrators": "2025-08-01",
    "Microsoft.DBforPostgreSQL/flexibleServers/configurations": "2025-08-01",
    "Microsoft.DBforPostgreSQL/flexibleServers/databases": "2025-08-01",
    "Microsoft.DBforPostgreSQL/flexibleServers/firewallRules": "2025-08-01",
    "Microsoft.DocumentDB/mongoClusters": "2025-09-01",
    "Microsoft.DocumentDB/mongoClusters/firewallRules": "2025-09-01",
    "Microsoft.DocumentDB/mongoClusters/users": "2025-09-01",
    "Microsoft.EventGrid/systemTopics": "2025-02-15",
    "Microsoft.EventGrid/systemTopics/eventSubscriptions": "2025-02-15",
    "Microsoft.Insights/actionGroups": "2023-01-01",
    "Microsoft.Insights/components": "2020-02-02",
    "Microsoft.Insights/diagnosticSettings": "2021-05-01-preview",
    "Microsoft.Insights/metricAlerts": "2018-03-01",
    "Microsoft.Insights/scheduledQueryRules": "2023-12-01",
    "Microsoft.Insights/webtests": "2022-06-15",
    "Microsoft.KeyVault/vaults": "2024-11-01",
    "Microsoft.KeyVault/vaults/secrets": "2024-11-01",
    "Microsoft.ManagedIdentity/userAssignedIdentities": "2024-11-30",
    "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials": "2024-11-30",
    "Microsoft.Network/natGateways": "2024-10-01",
    "Microsoft.Network/networkSecurityGroups": "2024-10-01",
    "Microsoft.Network/privateDnsZones": "2024-06-01",
    "Microsoft.Network/privateDnsZones/virtualNetworkLinks": "2024-06-01",
    "Microsoft.Network/privateEndpoints": "2024-10-01",
    "Microsoft.Network/privateEndpoints/privateDnsZoneGroups": "2024-10-01",
    "Microsoft.Network/publicIPAddresses": "2024-10-01",
    "Microsoft.Network/virtualNetworks": "2024-10-01",
    "Microsoft.OperationalInsights/workspaces": "2025-02-01",
    "Microsoft.Storage/storageAccounts": "2025-01-01",
    "Microsoft.Storage/storageAccounts/blobServices": "2025-01-01",
    "Microsoft.Storage/storageAccounts/blobServices/containers": "2025-01-01",
    "Microsoft.Web/serverfarms": "2025-05-01",  # 2025-05-01 is the first to describe siteUpdateStrategy
    "Microsoft.Web/sites": "2025-05-01",
    "Microsoft.Web/sites/basicPublishingCredentialsPolicies": "2025-05-01",
}
"""The one version of each resource type, so that two files never disagree on what a property means."""

HOST_SETTINGS = {
    "AzureWebJobsStorage__accountName",
    "AzureWebJobsStorage__clientId",
    "AzureWebJobsStorage__credential",
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING",
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS",
    "PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY",
}
"""What the Functions host and its Python worker read, and the application does not."""

FORBIDDEN_ON_FLEX = re.compile(
    "FUNCTIONS_WORKER_RUNTIME|FUNCTIONS_EXTENSION_VERSION|FUNCTIONS_WORKER_PROCESS_COUNT"
    "|SCM_DO_BUILD_DURING_DEPLOYMENT|ENABLE_ORYX_BUILD|WEBSITE_RUN_FROM_PACKAGE|WEBSITE_CONTENT.*"
    "|WEBSITE_TIME_ZONE|TZ|AzureWebJobsStorage|AzureWebJobsDashboard"
)
"""Settings that break or are refused on Flex Consumption; the last two would hold an account key."""

FROM_VAULT = {"JWT_SECRETS", "RECEIPT_KEYS"}
"""Not set: KEY_VAULT_URL has them read while the app runs, so that they rotate without a restart."""

ROLES = {
    VAULT: {"4633458b-17de-408a-b874-0445c86b69e6"},  # Key Vault Secrets User
    STORAGE: {"b7e6dc6d-f1e8-4753-8033-0f276bb0955b"},  # Storage Blob Data Owner
    INSIGHTS: {"3913510d-42f4-4e42-8a64-420c390055eb"},  # Monitoring Metrics Publisher
}
"""The only roles that may be given, each on one resource of this type."""

USER_CONNECTIONS = {
    "Standard_B1ms": 35,
    "Standard_B2s": 414,
    "Standard_D2ds_v5": 844,
    "Standard_D4ds_v5": 1703,
}
"""Connections that PostgreSQL leaves to users, by size, from the service's documentation."""

PGBOUNCER_CLIENTS = 5000
"""The default of `pgbouncer.max_client_conn`."""

OTHER_CONNECTIONS = 5
"""Kept for a migration and for people."""

ALERTS = {
    "server-errors",
    "slow",
    "outbox-age",
    "dead-letters",
    "heartbeat",
    "broken-record",
    "vault-errors",
    "postgres-storage",
    "postgres-cpu",
    "documentdb-storage",
}
"""Alerts that exist always; each has a section in docs/OPERATIONS.md."""

_REFERENCE = re.compile(r"@Microsoft\.KeyVault\(VaultName=[^;]+;SecretName=([a-z-]+)\)")
_PASSWORD = re.compile(r"://[^/@:]*:[^/@]+@|(?i:AccountKey=|SharedAccessSignature=|password=)")


def api_versions_are_listed(deployment: Deployment) -> Problems:
    """A preview version or a newer one is chosen on purpose, not by copying an example."""
    for resource in deployment.resources:
        if API_VERSIONS.get(resource.type) != resource.version:
            yield f"{resource.type}@{resource.version} is not in the list of API versions"


def private_means_closed(deployment: Deployment) -> Problems:
    """Each store, the vault and the site refuse the internet."""
    if not deployment.private:
        return
    paths = {
        SITE: "properties.publicNetworkAccess",
        VAULT: "properties.publicNetworkAccess",
        STORAGE: "properties.publicNetworkAccess",
        POSTGRES: "properties.network.publicNetworkAccess",
        DOCUMENTDB: "properties.publicNetworkAccess",
    }
    for type_, path in paths.items():
        for resource in deployment.of(type_):
            if resource.get(path) != "Disabled":
                yield f"{type_} is open to the internet"
    for type_ in (VAULT, STORAGE):
        for resource in deployment.of(type_):
            if resource.get("properties.networkAcls.defaultAction") != "Deny":
                yield f"{type_} lets every network in"
    for resource in deployment.resources:
        if resource.type.endswith("/firewallRules"):
            yield f"{resource.type} opens a closed server"


def closed_is_reachable_inside(deployment: Deployment) -> Problems:
    """What refuses the internet has a private endpoint, and the site goes out through the network."""
    if not deployment.private:
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


def tls_everywhere(deployment: Deployment) -> Problems:
    """TLS 1.2 or newer on every way in and out, and certificates verified."""
    wanted: dict[str, dict[str, Any]] = {
        SITE: {
            "properties.httpsOnly": True,
            "properties.siteConfig.minTlsVersion": "1.2",
            "properties.siteConfig.scmMinTlsVersion": "1.2",
            "properties.siteConfig.ftpsState": "Disabled",
        },
        STORAGE: {
            "properties.supportsHttpsTrafficOnly": True,
            "properties.minimumTlsVersion": "TLS1_2",
        },
    }
    yield from _differences(deployment, wanted)
    parameters = _postgres_parameters(deployment)
    if parameters.get("require_secure_transport") != "ON":
        yield "PostgreSQL takes connections without TLS"
    if parameters.get("ssl_min_protocol_version") not in {"TLSv1.2", "TLSv1.3"}:
        yield "PostgreSQL takes TLS older than 1.2"
    if "sslmode=verify-full&sslrootcert=/" not in deployment.settings.get("POSTGRES_DSN", ""):
        yield "POSTGRES_DSN does not verify the server (asyncpg needs sslmode=verify-full and sslrootcert)"
    if not re.match(r"mongodb\+srv://.*[?&]tls=true", deployment.settings.get("MONGODB_URI", "")):
        yield "MONGODB_URI does not ask for TLS"
    for test in deployment.of("Microsoft.Insights/webtests"):
        if str(test.get("properties.Request.RequestUrl")).startswith("http:"):
            yield "an availability test calls without TLS"


def only_entra_signs_in(deployment: Deployment) -> Problems:
    """No password, account key or ingestion key opens anything."""
    wanted: dict[str, dict[str, Any]] = {
        POSTGRES: {
            "properties.authConfig.activeDirectoryAuth": "Enabled",
            "properties.authConfig.passwordAuth": "Disabled",
            "properties.administratorLogin": None,
            "properties.administratorLoginPassword": None,
        },
        DOCUMENTDB: {
            "properties.authConfig.allowedModes": ["MicrosoftEntraID"],
            "properties.administrator": None,
        },
        STORAGE: {"properties.allowSharedKeyAccess": False, "properties.allowBlobPublicAccess": False},
        INSIGHTS: {"properties.DisableLocalAuth": True},
        "Microsoft.Web/sites/basicPublishingCredentialsPolicies": {"properties.allow": False},
    }
    yield from _differences(deployment, wanted)
    if len(deployment.of("Microsoft.Web/sites/basicPublishingCredentialsPolicies")) != len({"ftp", "scm"}):
        yield "FTP or SCM takes a publishing password"
    settings = deployment.settings
    if (settings.get("POSTGRES_AUTH"), settings.get("MONGODB_AUTH")) != ("entra", "oidc"):
        yield "the app does not sign in to both stores with tokens"


def serving_cannot_migrate(deployment: Deployment) -> Problems:
    """PostgreSQL is administered by an identity that the site does not run as; in production by no person."""
    administrators = [
        administrator.get("properties.principalName")
        for administrator in deployment.of("Microsoft.DBforPostgreSQL/flexibleServers/administrators")
    ]
    if not administrators:
        yield "PostgreSQL has no administrator, so nobody can make roles"
    for administrator in deployment.of("Microsoft.DBforPostgreSQL/flexibleServers/administrators"):
        if deployment.private and administrator.get("properties.principalType") != "ServicePrincipal":
            yield "a person owns the schema in production"
    for name in administrators:
        if f"//{name}@" in deployment.settings.get("POSTGRES_DSN", ""):
            yield f"{name} both serves and owns the schema"


def flex_consumption(deployment: Deployment) -> Problems:
    """The plan's own traps: refused settings, one request an instance, restarts that drop requests."""
    for site in deployment.of(SITE):
        for name in deployment.settings:
            if FORBIDDEN_ON_FLEX.fullmatch(name):
                yield f"{name} must not be set on Flex Consumption"
        if site.get("properties.siteConfig.healthCheckPath") is not None:
            yield "healthCheckPath does nothing on Flex Consumption: alerts take its place"
        config = site.get("properties.functionAppConfig") or {}
        scale = config.get("scaleAndConcurrency") or {}
        http = ((scale.get("triggers") or {}).get("http") or {}).get("perInstanceConcurrency")
        if not isinstance(http, int) or http <= 1:
            yield "perInstanceConcurrency is not set: Python serves one request an instance"
        always = {entry["name"]: entry["instanceCount"] for entry in scale.get("alwaysReady") or []}
        if always.get("http", 0) < 1:
            yield "no instance is always ready"
        if config.get("runtime") != {"name": "python", "version": "3.13"}:
            yield "the runtime is not Python 3.13"
        if (config.get("siteUpdateStrategy") or {}).get("type") != "RollingUpdate":
            yield "a deployment ends requests that are under way"
        authentication = (config.get("deployment") or {}).get("storage", {}).get("authentication", {})
        if authentication.get("type") != "UserAssignedIdentity":
            yield "packages are not read with the site's identity"


def settings_match_the_code(deployment: Deployment) -> Problems:
    """Each setting that the code reads is set, each that is set is read, and the values fit."""
    read = {name.upper() for name in Settings.model_fields}
    given = deployment.settings
    for name in sorted(read - FROM_VAULT - given.keys()):
        yield f"{name} is read and not set"
    for name in sorted(given.keys() - read - HOST_SETTINGS):
        yield f"{name} is set and not read"
    for name in sorted(HOST_SETTINGS - given.keys()):
        yield f"{name} is not set, and the Functions host needs it"
    if "KEY_VAULT_URL" not in given:
        yield f"{', '.join(sorted(FROM_VAULT))} come from no vault"
    try:
        parse_settings(given)
    except ValidationError as error:
        for item in error.errors(include_url=False, include_context=False, include_input=False):
            yield f"{'.'.join(map(str, item['loc'])).upper() or 'the settings'}: {item['msg']}"


def parse_settings(given: dict[str, str]) -> Settings:
    """Read settings as the app would, with each Key Vault reference resolved to some key."""
    resolved = {name: "k" * 64 if _REFERENCE.fullmatch(value) else value for name, value in given.items()}
    fields = {name.lower(): value for name, value in resolved.items() if value != ""}
    return Settings.model_validate(fields)


def secrets_are_references(deployment: Deployment) -> Problems:
    """A secret is in the vault; what the settings hold is where."""
    kept = {"jwt-secret", "digest-key", "receipt-key"}
    for name, value in deployment.settings.items():
        reference = _REFERENCE.fullmatch(value)
        if reference and reference[1] not in kept:
            yield f"{name} refers to {reference[1]}, which the vault does not have"
        if not reference and _PASSWORD.search(value):
            yield f"{name} holds a password or key"
        if not reference and _is_secret(name) and name not in _harmless(deployment):
            yield f"{name} is a secret and no Key Vault reference"
    for name in ("KEY_VAULT_JWT_SECRET", "KEY_VAULT_RECEIPT_SECRET"):
        if deployment.settings.get(name) not in kept:
            yield f"{name} names a secret that the vault does not have"
    for site in deployment.of(SITE):
        identities = site.get("identity.userAssignedIdentities") or {}
        if site.get("properties.keyVaultReferenceIdentity") not in identities:
            yield "keyVaultReferenceIdentity is not the site's identity: no reference can be read"


def _is_secret(setting: str) -> bool:
    field = Settings.model_fields.get(setting.lower())
    return field is not None and SecretStr in {field.annotation, *_flat(field.annotation)}


def _flat(annotation: Any) -> Iterator[Any]:
    for argument in get_args(annotation):
        yield argument
        yield from _flat(argument)


def _harmless(deployment: Deployment) -> set[str]:
    """Secret settings whose value here opens nothing: a user without password, a key nobody takes."""
    return {"POSTGRES_DSN", "MONGODB_URI"} | {
        "APPLICATIONINSIGHTS_CONNECTION_STRING"
        for insights in deployment.of(INSIGHTS)
        if insights.get("properties.DisableLocalAuth") is True
    }


def roles_are_the_least(deployment: Deployment) -> Problems:
    """Each role is one that is needed, on the one resource it is needed for."""
    given = set()
    for role in deployment.of("Microsoft.Authorization/roleAssignments"):
        identifier = str(role.get("properties.roleDefinitionId")).rpartition("/")[2]
        if role.scope is None:
            yield f"role {identifier} is given on the whole resource group"
        elif identifier not in ROLES.get(role.scope, set()):
            yield f"role {identifier} is more than {role.scope} needs"
        else:
            given.add((role.scope, identifier))
        if role.get("properties.principalType") != "ServicePrincipal":
            yield f"role {identifier} is not given to an identity"
    for scope, identifiers in ROLES.items():
        for identifier in identifiers:
            if (scope, identifier) not in given:
                yield f"nobody has role {identifier} on {scope}"


def secrets_are_kept(deployment: Deployment) -> Problems:
    """A deleted vault or secret can be had back, access is by role, and every secret expires."""
    wanted = {
        VAULT: {
            "properties.enableRbacAuthorization": True,
            "properties.enableSoftDelete": True,
            "properties.enablePurgeProtection": True,
        }
    }
    yield from _differences(deployment, wanted)
    for secret in deployment.of("Microsoft.KeyVault/vaults/secrets"):
        if not secret.get("properties.attributes.exp"):
            yield f"secret {secret.name} never expires"
        if not secret.get("properties.contentType"):
            yield f"secret {secret.name} has no content type"


def names_are_allowed(deployment: Deployment) -> Problems:
    """Azure takes 3 to 24 lower-case letters and digits as the name of a storage account."""
    for account in deployment.of("Microsoft.Storage/storageAccounts"):
        if not re.fullmatch("[a-z0-9]{3,24}", account.name):
            yield f"{account.name} is no name for a storage account"


def connections_fit(deployment: Deployment) -> Problems:
    """Instances times pool, at the most there can be, stay below what PostgreSQL takes."""
    servers, sites = deployment.of(POSTGRES), deployment.of(SITE)
    if len(servers) != 1 or len(sites) != 1:
        yield "there is not one server and one site"
        return
    size = servers[0].get("sku.name")
    if size not in USER_CONNECTIONS:
        yield f"how many connections {size} takes is not known here"
        return
    instances = sites[0].get("properties.functionAppConfig.scaleAndConcurrency.maximumInstanceCount")
    # The timer runs in an instance of its own.
    clients = (instances + 1) * int(deployment.settings["POSTGRES_POOL_MAX"])
    pooled = _postgres_parameters(deployment).get("pgbouncer.enabled") == "true"
    limit = PGBOUNCER_CLIENTS if pooled else USER_CONNECTIONS[size] - OTHER_CONNECTIONS
    if clients > limit:
        yield f"{clients} connections at the most, and {size} takes {limit}"


def pooler_is_used_right(deployment: Deployment) -> Problems:
    """PgBouncer opens no more than the server takes, and the app knows that it is there."""
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


def production_survives_a_zone(deployment: Deployment) -> Problems:
    """A closed deployment is a production one: standbys in another zone, and backups elsewhere."""
    if not deployment.private:
        return
    wanted: dict[str, dict[str, Any]] = {
        POSTGRES: {
            "properties.highAvailability.mode": "ZoneRedundant",
            "properties.backup.geoRedundantBackup": "Enabled",
            "properties.backup.backupRetentionDays": 35,
        },
        DOCUMENTDB: {"properties.highAvailability.targetMode": "ZoneRedundantPreferred"},
        STORAGE: {"sku.name": "Standard_ZRS"},
        "Microsoft.Web/serverfarms": {"properties.zoneRedundant": True},
    }
    yield from _differences(deployment, wanted)


def logs_hold_no_rows(deployment: Deployment) -> Problems:
    """PostgreSQL's error detail quotes rows ("Failing row contains …"), which are personal data."""
    if _postgres_parameters(deployment).get("log_error_verbosity") != "TERSE":
        yield "PostgreSQL logs row values"
    if deployment.settings.get("LOG_NAMES") != "false":
        yield "the app logs names"


def everything_is_watched(deployment: Deployment) -> Problems:
    """Each alert exists, is on and reaches somebody."""
    rules = [
        *deployment.of("Microsoft.Insights/scheduledQueryRules"),
        *deployment.of("Microsoft.Insights/metricAlerts"),
    ]
    for alert in sorted(ALERTS):
        if not any(rule.name.endswith(f"-{alert}") for rule in rules):
            yield f"there is no alert {alert}"
    for rule in rules:
        if not _action_groups(rule):
            yield f"alert {rule.name} reaches nobody"
        if rule.get("properties.enabled") is not True:
            yield f"alert {rule.name} is off"
    for subscription in deployment.of("Microsoft.EventGrid/systemTopics/eventSubscriptions"):
        if "Microsoft.KeyVault.SecretNearExpiry" in subscription.get("properties.filter.includedEventTypes"):
            break
    else:
        yield "nobody is told of expiring secrets"
    tests = {test.name.rpartition("-")[2] for test in deployment.of("Microsoft.Insights/webtests")}
    if not deployment.private and tests != {"health", "ready"}:
        yield "/health and /ready are not tested from outside"


def logs_are_kept(deployment: Deployment) -> Problems:
    """What the site, the vault and each store log goes to the workspace."""
    logged = {setting.scope for setting in deployment.of("Microsoft.Insights/diagnosticSettings")}
    for type_ in (SITE, VAULT, f"{STORAGE}/blobServices", POSTGRES, DOCUMENTDB):
        if type_ not in logged:
            yield f"the log of {type_} is not kept"


def _action_groups(rule: Resource) -> list[Any]:
    actions = rule.get("properties.actions")
    return list(actions["actionGroups"] if isinstance(actions, dict) else actions or [])


def _postgres_parameters(deployment: Deployment) -> dict[str, str]:
    return {
        parameter.name: parameter.get("properties.value")
        for parameter in deployment.of("Microsoft.DBforPostgreSQL/flexibleServers/configurations")
    }


def _differences(deployment: Deployment, wanted: dict[str, dict[str, Any]]) -> Problems:
    for type_, properties in wanted.items():
        found = deployment.of(type_)
        if not found:
            yield f"there is no {type_}"
        for resource in found:
            for path, value in properties.items():
                if resource.get(path) != value:
                    yield f"{type_} {resource.name}: {path} is {resource.get(path)!r}, not {value!r}"


RULES: tuple[Rule, ...] = (
    api_versions_are_listed,
    private_means_closed,
    closed_is_reachable_inside,
    tls_everywhere,
    only_entra_signs_in,
    serving_cannot_migrate,
    flex_consumption,
    settings_match_the_code,
    secrets_are_references,
    roles_are_the_least,
    secrets_are_kept,
    names_are_allowed,
    connections_fit,
    pooler_is_used_right,
    production_survives_a_zone,
    logs_hold_no_rows,
    everything_is_watched,
    logs_are_kept,
)


def problems(deployment: Deployment) -> list[str]:
    """Return what breaks a rule, each with the rule's name."""
    return [f"{rule.__name__}: {problem}" for rule in RULES for problem in rule(deployment)]
