"""The metadata of RFC 9728, and how a client that knows nothing but our address finds it, through both fronts."""

import json
from collections.abc import AsyncIterator

import httpx
import jsonschema_rs
import pytest

from tests.support.app import FRONTS, Client, front, is_problem, token
from tests.support.issuer_server import IssuerServer, Signing
from twins.scopes import SCOPES

KEY = Signing("key")
METADATA = "/.well-known/oauth-protected-resource"
ORIGIN = "https://twins.example.com"


@pytest.fixture(scope="module")
async def issuer() -> AsyncIterator[IssuerServer]:
    async with IssuerServer() as server:
        server.keys = [KEY.jwk()]
        yield server


@pytest.fixture(scope="module", params=FRONTS)
async def client(
    request: pytest.FixtureRequest, environment: dict[str, str], issuer: IssuerServer
) -> AsyncIterator[Client]:
    template = issuer.entry(issuer="https://login.example/{tenantid}/v2.0", tenants=["one", "two"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTH_ISSUERS", json.dumps([issuer.entry(), template]))
        patch.setenv("PUBLIC_URL", f"{ORIGIN}/")
        async with (
            front(request.param) as transport,
            httpx.AsyncClient(transport=transport, base_url="http://somewhere.test") as opened,
        ):
            yield opened


async def test_without_the_address_of_the_service_there_is_no_metadata(anyone: Client) -> None:
    for host in ("twins.test", "evil.example"):
        answer = await anyone.get(METADATA, headers={"Host": host, "X-Forwarded-Host": host})
        assert is_problem(answer, 404, "not-found")
        assert "resource_metadata" not in (await anyone.get("/api/v1/me")).headers["www-authenticate"]


async def test_the_metadata_names_providers_and_scopes_whatever_host_was_asked(
    client: Client, issuer: IssuerServer
) -> None:
    found = await client.get(METADATA, headers={"Host": "evil.example", "X-Forwarded-Host": "evil.example"})
    document = (await client.get("/openapi.json")).json()
    operation = document["paths"][METADATA]["get"]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]

    assert operation["security"] == []
    jsonschema_rs.validate({**schema, "components": document["components"]}, found.json())
    assert found.json() == {
        "resource": ORIGIN,
        "authorization_servers": [issuer.url, "https://login.example/one/v2.0", "https://login.example/two/v2.0"],
        "scopes_supported": list(SCOPES),
        "bearer_methods_supported": ["header"],
        "jwks_uri": f"{ORIGIN}/.well-known/jwks.json",
        "resource_name": "Twins",
        "resource_documentation": f"{ORIGIN}/docs",
    }


async def test_with_hs256_alone_no_provider_is_named(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUBLIC_URL", "http://127.0.0.1:7071")
    monkeypatch.delenv("AUTH_ISSUERS", raising=False)
    async with front("asgi") as transport, httpx.AsyncClient(transport=transport, base_url="http://twins.test") as it:
        found = (await it.get(METADATA)).json()

    assert found["resource"] == "http://127.0.0.1:7071"
    assert "authorization_servers" not in found


@pytest.mark.parametrize(
    ("header", "challenge"),
    [
        (None, "Bearer"),
        ("Basic YTpi", "Bearer"),
        ("Bearer", 'Bearer error="invalid_request", error_description="The Authorization header has no token",'),
        ("Bearer x", 'Bearer error="invalid_token", error_description="The token is not valid",'),
    ],
)
async def test_each_401_leads_to_the_metadata(client: Client, header: str | None, challenge: str) -> None:
    answer = await client.get("/api/v1/me", headers={} if header is None else {"Authorization": header})

    assert is_problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == f'{challenge} resource_metadata="{ORIGIN}{METADATA}"'


async def test_a_client_finds_its_way_from_the_first_401(client: Client, issuer: IssuerServer) -> None:
    refused = await client.get("/api/v1/me")
    address = refused.headers["www-authenticate"].partition('resource_metadata="')[2].rstrip('"')
    provider, *_ = (await client.get(address.removeprefix(ORIGIN))).json()["authorization_servers"]
    assert provider == issuer.url

    credentials = KEY.sign(issuer.claims("finder"))
    answer = await client.get("/api/v1/me", headers={"Authorization": f"Bearer {credentials}"})
    assert answer.json()["issuer"] == provider
    assert (await client.get("/api/v1/me", headers={"Authorization": f"Bearer {token('plain')}"})).status_code == 200
