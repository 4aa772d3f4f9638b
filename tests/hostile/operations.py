"""Every operation of the API, from its OpenAPI document, and one of everything that they can name.

So that a new route is tried by itself, and one that nobody knows how to ask fails.
"""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx

from tests.support.app import MISSING, Client, id_of, make_twin
from twins.app import create_app

OPEN = {"/health", "/ready", "/.well-known/jwks.json", "/.well-known/oauth-protected-resource"}
"""Routes that are the same for everybody, without a token."""


@dataclass(frozen=True)
class Operation:
    """One method of one path, as the OpenAPI document has it."""

    method: str
    path: str
    parameters: tuple[dict[str, Any], ...]
    body: Any
    whole: Any
    scopes: tuple[str, ...] = ()
    """What a token needs for it."""

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
    document = create_app().openapi()
    found = []
    for path, item in document["paths"].items():
        for method, operation in item.items():
            body = whole = None
            if "requestBody" in operation:
                schema = operation["requestBody"]["content"]["application/json"]["schema"]
                body, whole = _example(document, schema), _whole(document, schema)
            parameters = tuple(operation.get("parameters", ()))
            scopes = tuple((operation["security"] or [{"bearer": []}])[0]["bearer"])
            found.append(Operation(method.upper(), path, parameters, body, whole, scopes))
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
    return MISSING


def _whole(document: dict[str, Any], schema: dict[str, Any], name: str = "") -> Any:
    """Return a value of a schema with every member that it names; `name` is the value's own among members."""
    match schema := _resolved(document, schema):
        case {"type": "object"}:
            members = schema.get("properties", {}).items()
            return {name: _whole(document, it, name) for name, it in members if not it.get("readOnly")}
        case {"type": "array"}:
            # One of each kind that the items may be.
            return [_whole(document, kind) for kind in _kinds(document, schema["items"])]
        case {"type": "boolean"}:
            return True
        case {"type": "string", "format": "uuid"}:
            return MISSING
        case {"type": "string", "format": "date-time"}:
            return "2020-01-01T00:00:00Z" if name == "not_before" else "2040-01-01T00:00:00Z"
        case {"type": "string"}:
            # A text, a language and a purpose; or a digest, or a media type.
            texts = schema.get("enum", ("en", "0" * 64, "text/plain"))
            return next(text for text in texts if re.search(schema.get("pattern", ""), text))
    raise AssertionError(f"the walk has no value of {schema}")


def _resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return the first kind of what a schema stands for."""
    while (kinds := _kinds(document, schema)) != [schema]:
        schema = kinds[0]
    if isinstance(schema.get("type"), list):  # this or null
        schema = schema | {"type": schema["type"][0]}
    return schema


def _kinds(document: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a schema may be instead, if it is a reference or a union."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    kinds: list[dict[str, Any]] = schema.get("anyOf", [schema])
    return kinds


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
    """Return every operation that any owner may ask for, in the order of the document."""
    return [operation for operation in _described() if operation.path not in OPEN and not operation.scopes]


def id_in(answer: httpx.Response) -> str:
    """Return the id of the resource that `Location` leads to."""
    return str(id_of(answer.headers["location"]))


async def possessions(client: Client, *, refused: bool = True) -> dict[str, str]:
    """Make one of everything that a path can name, and return the ids by the names of the parameters.

    Where nobody has `refused`, the owner's word still grants.
    """
    sub = (await client.get("/api/v1/me")).json()["sub"]
    secrets = {"twin_name": "Alice's secret", "use_case": "secret use", "tone": "secret tone"}
    twin = await make_twin(client, **secrets, principals=[sub] if refused else [])
    for n in (1, 2):
        assert (await client.put(f"{twin}/persona", json={"summary": f"Secret {n}."})).status_code == 200
    return {
        "twin_id": str(id_of(twin)),
        "version": "1",
        "consent_id": (await client.get(f"{twin}/consents")).json()["items"][0]["id"],
        "refusal_id": id_in(await client.post(f"{twin}/refusals", json={"purposes": ["refused"]}))
        if refused
        else MISSING,
        "erasure_id": id_in(await client.delete(await make_twin(client, twin_name="Alice's erased secret"))),
    }


async def state(client: Client, ids: dict[str, str]) -> dict[str, Any]:
    """Read everything that an owner can read, but for what is different at each reading."""
    found = {}
    for operation in operations():
        if any(ids[name] == MISSING for name in operation.ids):
            continue  # nobody has refused
        if operation.method == "GET":
            answer = await client.send(operation.request(client, ids))
            assert answer.is_success, operation
            if not operation.path.endswith(("/decision", "/receipt", "/erasures/{erasure_id}")):
                found[str(operation)] = answer.text
    return found
