"""Every operation of the API, from its OpenAPI document, and one of everything that they can name.

So that a new route is tried by itself, and one that nobody knows how to ask fails.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx

from tests.conftest import Client, make_twin
from twins.app import create_app

NOBODYS = "00000000-0000-7000-8000-000000000000"
"""A well-formed id of nothing."""

OPEN = {"/health", "/ready", "/.well-known/jwks.json"}
"""Routes that are the same for everybody, without a token."""


@dataclass(frozen=True)
class Operation:
    """One method of one path, as the OpenAPI document has it."""

    method: str
    path: str
    parameters: tuple[dict[str, Any], ...]
    body: Any
    whole: Any

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def ids(self) -> set[str]:
        return {it["name"] for it in self.parameters if it["in"] == "path"}

    def request(
        self, client: Client, ids: dict[str, str], body: Any = None, query: Mapping[str, str | int] | None = None
    ) -> httpx.Request:
        """Return a request that would succeed if everything that `ids` names were the client's own.

        With another `body` it has that as it is, and with a `query` those parameters too.
        """
        path = self.path
        for name in self.ids:
            path = path.replace(f"{{{name}}}", ids[name])
        required: dict[str, int] = {
            it["name"]: {"integer": 1}[it["schema"]["type"]]  # as yet no other kind is required
            for it in self.parameters
            if it["in"] == "query" and it.get("required")
        }
        sent = _with_ids(self.body, ids) if body is None else body
        return client.build_request(self.method, path, params={**required, **(query or {})}, json=sent)

    def whole_for(self, ids: dict[str, str]) -> Any:
        """Return a body with every member that there is, about what `ids` names."""
        return _with_ids(self.whole, ids)

    def spoiled(self, ids: dict[str, str], poison: Any) -> list[Any]:
        """Return whole bodies, in each of which one string is another value."""
        return _spoiled(self.whole_for(ids), poison)


@cache
def _described() -> list[Operation]:
    document = create_app().app.openapi()
    found = []
    for path, item in document["paths"].items():
        for method, operation in item.items():
            body = whole = None
            if "requestBody" in operation:
                schema = operation["requestBody"]["content"]["application/json"]["schema"]
                body, whole = _example(document, schema), _whole(document, schema)
            found.append(Operation(method.upper(), path, tuple(operation.get("parameters", ())), body, whole))
    return found


def _example(document: dict[str, Any], schema: dict[str, Any]) -> Any:
    """Return an example of a schema: its own, or one made of its parts."""
    schema = _resolved(document, schema)
    if "examples" in schema:
        return copy.deepcopy(schema["examples"][0])
    if schema["type"] == "array":
        return [_example(document, schema["items"])]
    if schema["type"] == "object":
        return {name: _example(document, schema["properties"][name]) for name in schema["required"]}
    assert schema.get("format") == "uuid", f"the walk has no example of {schema}"
    return NOBODYS


def _whole(document: dict[str, Any], schema: dict[str, Any], name: str = "") -> Any:
    """Return a value of a schema with every member that it names; `name` is the value's own among members."""
    match schema := _resolved(document, schema):
        case {"type": "object"}:
            return {name: _whole(document, member, name) for name, member in schema.get("properties", {}).items()}
        case {"type": "array"}:
            return [_whole(document, schema["items"])]
        case {"type": "boolean"}:
            return True
        case {"type": "string", "format": "uuid"}:
            return NOBODYS
        case {"type": "string", "format": "date-time"}:
            return "2020-01-01T00:00:00Z" if name == "not_before" else "2040-01-01T00:00:00Z"
        case {"type": "string"}:
            return "en"  # a text, a language and a purpose
    raise AssertionError(f"the walk has no value of {schema}")


def _resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    schema = schema.get("anyOf", [schema])[0]
    if "$ref" not in schema:
        return schema
    found: dict[str, Any] = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def _spoiled(body: Any, poison: Any) -> list[Any]:
    if isinstance(body, dict):
        return [body | {name: worse} for name, value in body.items() for worse in _spoiled(value, poison)]
    if isinstance(body, list):
        return [[*body[:n], worse, *body[n + 1 :]] for n, value in enumerate(body) for worse in _spoiled(value, poison)]
    return [poison] if isinstance(body, str) else []


def _with_ids(body: Any, ids: dict[str, str]) -> Any:
    if isinstance(body, dict):
        return {name: ids.get(name, _with_ids(value, ids)) for name, value in body.items()}
    return [_with_ids(item, ids) for item in body] if isinstance(body, list) else body


def operations() -> list[Operation]:
    """Return every operation that is for owners, in the order of the document."""
    return [operation for operation in _described() if operation.path not in OPEN]


async def possessions(client: Client) -> dict[str, str]:
    """Make one of everything that a path can name, and return the ids by the names of the parameters."""
    twin = await make_twin(client, twin_name="Alice's secret", use_case="secret use", tone="secret tone")
    for n in (1, 2):
        assert (await client.put(f"{twin}/persona", json={"summary": f"Secret {n}."})).status_code == 200
    consents = (await client.get(f"{twin}/consents")).json()["items"]
    erased = await client.delete(await make_twin(client, twin_name="Alice's erased secret"))
    return {
        "twin_id": twin.rpartition("/")[2],
        "version": "1",
        "consent_id": consents[0]["id"],
        "erasure_id": erased.headers["location"].rpartition("/")[2],
    }


async def state(client: Client, ids: dict[str, str]) -> dict[str, Any]:
    """Read everything that an owner can read, but for what is different at each reading."""
    found = {}
    for operation in operations():
        if operation.method == "GET":
            answer = await client.send(operation.request(client, ids))
            assert answer.is_success, operation
            if not operation.path.endswith(("/decision", "/receipt", "/erasures/{erasure_id}")):
                found[str(operation)] = answer.text
    return found
