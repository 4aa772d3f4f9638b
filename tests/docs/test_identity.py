"""The worked entries of docs/IDENTITY.md, each with a token as that provider makes it."""

import json
import re
import time
from typing import Any, get_args

import pytest

from shared.auth import Authenticator, CurrentUser
from shared.digests import Digests
from shared.http.problems import Unauthorized
from shared.issuers import Algorithm, Issuer
from shared.tokens import StaticKeys
from tests.docs.markdown import read, rows, section, words
from tests.support.app import SECRET
from tests.support.issuer_server import IssuerServer, Signing
from twins.scopes import SCOPES
from twins.settings import Settings

KEY = Signing("a-key")
TENANT = "72f988bf-86f1-41af-91ab-2d7cd011db47"
OTHER_TENANT = "9188040d-6c67-4c5b-b112-36a304b66dad"
V1, V2 = f"https://sts.windows.net/{TENANT}/", f"https://login.microsoftonline.com/{TENANT}/v2.0"
API = "11112222-3333-4444-5555-666677778888"

PERSON = {
    "oid": "0f1e",
    "sub": "pairwise",
    "tid": TENANT,
    "azp": "an-app",
    "scp": "twins:decide twins:read",
    "ver": "2.0",
}
APP = {"oid": "a99", "sub": "a99", "tid": TENANT, "azp": "a-service", "roles": ["twins:decide"], "idtyp": "app"}

GOOD: dict[str, tuple[str, dict[str, Any], str, str | None, set[str]]] = {
    "Entra 2.0, a person": (
        "Microsoft Entra ID, tokens of version 2.0",
        PERSON | {"iss": V2, "aud": API},
        "0f1e",
        "an-app",
        {"twins:decide", "twins:read"},
    ),
    "Entra 2.0, an app": (
        "Microsoft Entra ID, tokens of version 2.0",
        APP | {"iss": V2, "aud": API},
        "a99",
        "a-service",
        {"twins:decide"},
    ),
    "Entra 1.0, a person": (
        "Microsoft Entra ID, tokens of version 1.0",
        {"iss": V1, "aud": "api://twins", "oid": "0f1e", "sub": "x", "appid": "an-app", "scp": "twins:erase"},
        "0f1e",
        "an-app",
        {"twins:erase"},
    ),
    "Entra 1.0, an app": (
        "Microsoft Entra ID, tokens of version 1.0",
        {"iss": V1, "aud": API, "oid": "a99", "sub": "a99", "appid": "a-service", "roles": ["twins:decide"]},
        "a99",
        "a-service",
        {"twins:decide"},
    ),
    "Auth0": (
        "Auth0",
        {
            "iss": "https://example.eu.auth0.com/",
            "aud": ["https://twins.example.com", "https://example.eu.auth0.com/userinfo"],
            "sub": "auth0|5f7c",
            "azp": "a-page",
            "scope": "openid profile",
            "permissions": ["twins:decide"],
            "org_id": "org_9",
        },
        "auth0|5f7c",
        "a-page",
        {"openid", "profile", "twins:decide"},
    ),
    "Auth0, a service": (
        "Auth0",
        {
            "iss": "https://example.eu.auth0.com/",
            "aud": "https://twins.example.com",
            "sub": "my-client@clients",
            "azp": "my-client",
            "gty": "client-credentials",
        },
        "my-client@clients",
        "my-client",
        set(),
    ),
    "Keycloak": (
        "Keycloak",
        {
            "iss": "https://keycloak.example.com/realms/twins",
            "aud": ["twins", "account"],
            "sub": "8c1d",
            "typ": "Bearer",
            "azp": "a-page",
            "scope": "twins:read email",
            "realm_access": {"roles": ["offline_access"]},
        },
        "8c1d",
        "a-page",
        {"twins:read", "email"},
    ),
    "Okta": (
        "Okta",
        {
            "iss": "https://example.okta.com/oauth2/default",
            "aud": "api://twins",
            "sub": "alice@example.com",
            "uid": "00u1",
            "cid": "0oa1",
            "scp": ["twins:decide"],
            "ver": 1,
        },
        "00u1",
        "0oa1",
        {"twins:decide"},
    ),
    "Google": (
        "Google",
        {"iss": "https://accounts.google.com", "aud": "https://twins.example.com", "sub": "1184", "azp": "1184"},
        "1184",
        "1184",
        set(),
    ),
    "Cognito": (
        "Amazon Cognito",
        {
            "iss": "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_Example01",
            "aud": "https://twins.example.com",
            "sub": "aaaa",
            "client_id": "7q",
            "token_use": "access",
            "scope": "twins/decide openid",
        },
        "aaaa",
        "7q",
        {"twins:decide", "openid"},
    ),
}


def entries(heading: str) -> list[list[dict[str, Any]]]:
    """Return the arrays under a heading of the page."""
    text = read("docs/IDENTITY.md").partition(f"### {heading}\n")[2].partition("\n#")[0]
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]


async def user_of(settings: Settings, row: dict[str, Any], claims: dict[str, Any], key: Signing = KEY) -> CurrentUser:
    """Let an app with this row judge a token, with the provider's key on a server of ours."""
    async with IssuerServer() as server:
        server.keys = [KEY.jwk()]
        moved = {name: value for name, value in row.items() if name != "discovery"} | {"jwks_uri": f"{server.url}/keys"}
        configured = settings.model_copy(update={"auth_issuers": (Issuer.model_validate(moved),)})
        asked = Authenticator(configured, StaticKeys([SECRET]), Digests("d" * 32))
        return await asked.authenticate(f"Bearer {key.sign({'exp': int(time.time()) + 3600} | claims)}")


@pytest.mark.parametrize("name", GOOD)
async def test_a_worked_entry_takes_the_tokens_of_its_provider(settings: Settings, name: str) -> None:
    heading, claims, subject, client, scopes = GOOD[name]
    (row,) = entries(heading)[0]
    found = await user_of(settings, row, claims)

    assert (found.issuer, found.subject, found.client) == (claims["iss"], subject, client)
    assert set(found.scopes) == scopes
    for wrong in ({"aud": "https://other.example"}, {"iss": claims["iss"] + "/"}, {"iss": claims["iss"][:-1]}):
        with pytest.raises(Unauthorized):
            await user_of(settings, row, claims | wrong)
    with pytest.raises(Unauthorized):
        await user_of(settings, row, claims, Signing("a-key"))


async def test_the_entry_for_tenants_takes_those_that_it_lists_and_each_owns_its_own(settings: Settings) -> None:
    (row,) = entries("Microsoft Entra ID, tokens of version 2.0")[1]
    for tenant in (TENANT, OTHER_TENANT):
        issuer = V2.replace(TENANT, tenant)
        found = await user_of(settings, row, PERSON | {"iss": issuer, "aud": API, "tid": tenant})
        assert found.owner == f"{issuer}\ntid\n{tenant}"
    with pytest.raises(Unauthorized):
        await user_of(settings, row, PERSON | {"iss": V2.replace(TENANT, "another"), "aud": API})


async def test_an_organisation_of_auth0_owns(settings: Settings) -> None:
    (row,) = entries("Auth0")[0]
    found = await user_of(settings, row, GOOD["Auth0"][1])
    assert found.owner.endswith("\norg_id\norg_9")
    assert (await user_of(settings, row, GOOD["Auth0, a service"][1])).owns is None


def test_every_worked_entry_is_one_that_the_app_starts_with() -> None:
    blocks = [json.loads(it) for it in re.findall(r"```json\n(.*?)```", read("docs/IDENTITY.md"), re.DOTALL)]
    assert len(blocks) == 8
    for block in blocks:
        for row in block:
            Issuer.model_validate(row)


def test_the_tables_have_every_member_and_every_scope() -> None:
    members = {word for names, *_ in rows(section("docs/IDENTITY.md", "An issuer")) for word in words(names)}
    assert members == set(Issuer.model_fields)
    scopes = {words(name)[0]: meaning for name, meaning in rows(section("docs/IDENTITY.md", "Scopes"))}
    assert scopes == SCOPES
    assert all(f"`{name}`" in section("docs/IDENTITY.md", "An issuer") for name in get_args(Algorithm.__value__))
