"""Compiled templates are evaluated to what the Bicep sources are evaluated to."""

from typing import Any

import pytest

from infra.checks import arm

PARAMETERS = {"parameters": {"network": {"value": "private"}, "names": {"value": ["a", "b"]}}}


def _module(**template: Any) -> dict[str, Any]:
    return {
        "type": "Microsoft.Resources/deployments",
        "apiVersion": "2025-04-01",
        "name": "vault",
        "properties": {
            "mode": "Incremental",
            "parameters": {"name": {"value": "[format('{0}-kv', variables('prefix'))]"}},
            "template": {"parameters": {"name": {"type": "string"}}, **template},
        },
    }


VAULT = {
    "type": "Microsoft.KeyVault/vaults",
    "apiVersion": "2024-11-01",
    "name": "[parameters('name')]",
    "properties": {"publicNetworkAccess": "Disabled"},
}
LOGS = {
    "type": "Microsoft.Insights/diagnosticSettings",
    "apiVersion": "2021-05-01-preview",
    "scope": "[resourceId('Microsoft.KeyVault/vaults', parameters('name'))]",
    "name": "logs",
    "properties": {},
}
SITE = {
    "type": "Microsoft.Web/sites",
    "apiVersion": "2025-05-01",
    "name": "site",
    "properties": {
        "publicNetworkAccess": "[if(equals(parameters('network'), 'private'), 'Disabled', 'Enabled')]",
        "siteConfig": {
            "copy": [
                {
                    "name": "appSettings",
                    "count": "[length(items(variables('settings')))]",
                    "input": {
                        "name": "[items(variables('settings'))[copyIndex('appSettings')].key]",
                        "value": "[items(variables('settings'))[copyIndex('appSettings')].value]",
                    },
                }
            ]
        },
    },
}
VAULT_ID = "resourceId('Microsoft.Resources/deployments', 'vault')"
OUTPUTS = {"url": {"type": "string", "value": "[format('https://{0}/', parameters('name'))]"}}
TEMPLATE: dict[str, Any] = {
    "parameters": {
        "network": {"type": "string"},
        "names": {"type": "array"},
        "quoted": {"type": "string", "defaultValue": "it's [[not]] one"},
    },
    "variables": {
        "prefix": "twins",
        "settings": {
            "B": f"[reference({VAULT_ID}, '2025-04-01').outputs.url.value]",
            "A": "[concat('it''s ', string(2))]",
        },
    },
    "resources": [
        _module(resources=[VAULT, LOGS], outputs=OUTPUTS),
        SITE,
        {
            "type": "Microsoft.DBforPostgreSQL/flexibleServers/configurations",
            "apiVersion": "2025-08-01",
            "copy": {"name": "loop", "count": "[length(parameters('names'))]"},
            "name": "[format('{0}/{1}', 'server', parameters('names')[copyIndex()])]",
            "properties": {"value": "[copyIndex()]"},
        },
        {
            "type": "Microsoft.DBforPostgreSQL/flexibleServers/firewallRules",
            "apiVersion": "2025-08-01",
            "condition": "[not(equals(parameters('network'), 'private'))]",
            "name": "server/azure",
            "properties": {},
        },
    ],
}


@pytest.mark.parametrize("symbolic", [False, True])
def test_conditions_loops_modules_and_their_outputs(symbolic: bool) -> None:
    template = dict(TEMPLATE)
    if symbolic:
        names = ["vault", "site", "parameters", "rule"]
        template["resources"] = dict(zip(names, TEMPLATE["resources"], strict=True))
    made = arm.deployment("prod", template, PARAMETERS)
    assert [(found.type.rpartition("/")[2], found.name) for found in made.resources] == [
        ("vaults", "twins-kv"),
        ("diagnosticSettings", "logs"),
        ("sites", "site"),
        ("configurations", "a"),
        ("configurations", "b"),
    ]
    assert made.private
    assert made.settings == {"A": "it's 2", "B": "https://twins-kv/"}
    assert made.of("Microsoft.Web/sites")[0].get("properties.publicNetworkAccess") == "Disabled"
    assert made.of("Microsoft.Insights/diagnosticSettings")[0].scope == "Microsoft.KeyVault/vaults"


def test_what_only_azure_knows_stays_an_expression() -> None:
    site = {**SITE, "properties": {"id": "[reference('other').customerId]"}}
    made = arm.deployment("prod", {**TEMPLATE, "resources": [site]}, PARAMETERS)
    assert made.resources[0].get("properties.id") == "reference(other).customerId"


@pytest.mark.parametrize("expression", ["[if(true]", "[1 2]", "[name]", "[?]"])
def test_what_cannot_be_read_is_an_error(expression: str) -> None:
    site = {**SITE, "properties": {"id": expression}}
    with pytest.raises(arm.ArmError):
        arm.deployment("prod", {**TEMPLATE, "resources": [site]}, PARAMETERS)


def test_a_parameter_without_a_value_is_an_error() -> None:
    with pytest.raises(arm.ArmError, match="network"):
        arm.deployment("prod", TEMPLATE, {"parameters": {}})
