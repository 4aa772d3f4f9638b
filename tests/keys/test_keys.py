"""The public keys, as they are published and as the document describes them."""

import jsonschema_rs
import pytest

from tests.support.app import Client, is_problem
from twins.app import create_app


async def test_the_keys_are_as_the_document_says_with_nothing_private(anyone: Client) -> None:
    document = create_app().openapi()
    operation = document["paths"]["/.well-known/jwks.json"]["get"]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    answer = await anyone.get("/.well-known/jwks.json")

    assert {"200", "304", "422", "503"} == operation["responses"].keys()
    jsonschema_rs.validate({**schema, "components": document["components"]}, answer.json())
    (key,) = answer.json()["keys"]
    assert key.keys() == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert key.keys() == document["components"]["schemas"]["Jwk"]["properties"].keys()


@pytest.mark.parametrize("path", ["/.well-known/jwks.json", "/openapi.json"])
async def test_what_is_public_may_be_kept_and_asked_for_again(anyone: Client, path: str) -> None:
    refused = await anyone.get(path, headers={"If-None-Match": "x"})
    assert is_problem(refused, 422, "validation-failed")
    first = await anyone.get(path)
    tag = first.headers["etag"]
    again, changed = [await anyone.get(path, headers={"If-None-Match": it}) for it in (tag, '"x"')]

    assert (again.status_code, again.content) == (304, b"")
    assert (changed.status_code, changed.content) == (200, first.content)
    for answer in (first, again, changed):
        assert answer.headers["cache-control"] == "public, max-age=300"
        assert answer.headers["etag"] == tag


def test_the_document_says_of_each_operation_whether_it_needs_a_token(environment: dict[str, str]) -> None:
    paths = create_app().openapi()["paths"]
    public = {path for path, item in paths.items() for it in item.values() if it["security"] == []}

    assert public == {"/health", "/ready", "/.well-known/jwks.json", "/.well-known/oauth-protected-resource"}
