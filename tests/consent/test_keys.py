"""The public keys, as they are published and as the document describes them."""

import jsonschema_rs

from tests.conftest import Client
from twins.app import create_app


async def test_the_keys_are_as_the_document_says_with_nothing_private(anyone: Client) -> None:
    document = create_app().app.openapi()
    operation = document["paths"]["/.well-known/jwks.json"]["get"]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    answer = await anyone.get("/.well-known/jwks.json")

    assert {"200", "503"} == operation["responses"].keys()
    jsonschema_rs.validate({**schema, "components": document["components"]}, answer.json())
    (key,) = answer.json()["keys"]
    assert key.keys() == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert key.keys() == document["components"]["schemas"]["Jwk"]["properties"].keys()
