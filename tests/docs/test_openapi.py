"""The OpenAPI document is one that generators of clients, forms and people can read."""

import json
import re
from collections.abc import Iterator
from typing import Any, Literal

import jsonschema_rs
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from shared.http.openapi import complete
from twins import openapi

_CODE_POINT = r"\\x[0-9a-f]{2}|\\u[0-9a-f]{4}"
_MEMBER = rf"(?!&&|!!|\.\.|~~)(?:[A-Za-z0-9_.!~]|\\-|{_CODE_POINT})"
_CLASS = rf"\[\^?(?:{_MEMBER}(?:-{_MEMBER})?)+\]"
PORTABLE = re.compile(rf"(?:[A-Za-z0-9_^$()|*+?!~:;, .-]|\{{\d+(?:,\d*)?\}}|{_CODE_POINT}|{_CLASS})*")
"""A pattern that means the same to Python, to Rust and to ECMAScript, with its flag `v` too, which HTML forms set.

With that flag a class has no `-` that is not a range or escaped, no bracket, and no doubled punctuation.
"""


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(openapi.document())
    return found


def nodes(value: Any, path: str = "#") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every object of a document, and where it is."""
    if isinstance(value, dict):
        yield path, value
        for name, member in value.items():
            yield from nodes(member, f"{path}/{name}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from nodes(item, f"{path}/{number}")


def test_a_type_or_null_is_one_schema_of_two_types(document: dict[str, Any]) -> None:
    either = {path: node["type"] for path, node in nodes(document) if isinstance(node.get("type"), list)}
    unions = [node["anyOf"] for _, node in nodes(document) if {"type": "null"} in node.get("anyOf", ())]

    assert len(either) > 40
    assert {len(types) for types in either.values()} == {2}
    assert {types[1] for types in either.values()} == {"null"}
    assert [union for union in unions if "$ref" not in union[0]] == []


def test_a_string_or_an_object_is_a_schema_with_a_name(document: dict[str, Any]) -> None:
    """Generators of clients name a union after the schema: one within another would get a name of their own."""
    unions = {
        path
        for path, node in nodes(document)
        if any("$ref" in kind for kind in node.get("anyOf", ()))
        and len([kind for kind in node["anyOf"] if kind != {"type": "null"}]) > 1
    }

    of_objects = {"GateQuestion", "GateAnswer", "Giver"}
    named = {"Principal", "Person", "Party", "Owner"}
    assert unions == {f"#/components/schemas/{name}" for name in of_objects | named}
    for name in named:
        schema = document["components"]["schemas"][name]
        assert schema["anyOf"][0]["type"] == "string"
        assert all("$ref" in kind for kind in schema["anyOf"][1:])
        assert schema["description"]


class Part(BaseModel):
    name: str


class Kinds(BaseModel):
    text: str | None
    numbers: list[int] | None
    choice: Literal["a", "b"] | None
    one: Literal["a"] | None
    part: Part | None
    several: int | str | None


async def _kinds() -> Kinds:
    raise NotImplementedError


def test_a_schema_takes_null_and_its_own_values_and_no_others() -> None:
    app = FastAPI()
    app.get("/")(_kinds)
    document = app.openapi()
    complete(document)
    members = document["components"]["schemas"]["Kinds"]["properties"]
    values = {"text": "x", "numbers": [1], "choice": "a", "one": "a", "part": {"name": "x"}, "several": 1}

    assert [name for name, member in members.items() if "anyOf" not in member] == ["text", "numbers", "choice"]
    for name, value in values.items():
        validator = jsonschema_rs.validator_for(document | {"$ref": f"#/components/schemas/Kinds/properties/{name}"})
        assert validator.is_valid(value), name
        assert validator.is_valid(None), name
        assert not validator.is_valid(False), name
        assert not validator.is_valid({}), name


def test_every_pattern_is_one_that_html_forms_take(document: dict[str, Any]) -> None:
    patterns = {node["pattern"] for _, node in nodes(document) if isinstance(node.get("pattern"), str)}

    assert len(patterns) > 5
    assert [pattern for pattern in patterns if not PORTABLE.fullmatch(pattern)] == []


@pytest.mark.parametrize(
    "pattern", ["[a-z0-9._-]", "[-a]", "[a&&b]", "[..]", "[a|b]", "[(]", "[{]", "[[]", r"\-", "{", "}", "]", r"[\d-x]"]
)
def test_a_pattern_that_forms_refuse_or_read_otherwise_is_found(pattern: str) -> None:
    assert not PORTABLE.fullmatch(pattern)


EMPTY = re.compile(r"(It|Its|They|Them|This one|The other)\b|\S+( \S+)?$")
"""A description of a pronoun, or of fewer than three words."""


def test_every_schema_and_parameter_has_a_description_that_says_something(document: dict[str, Any]) -> None:
    described = {
        path: node["description"]
        for path, node in nodes(document["components"]["schemas"])
        if isinstance(node.get("description"), str) and "/examples/" not in path
    }
    parameters = [node for _, node in nodes(document["paths"]) if "in" in node and "schema" in node]
    texts = [
        *described.values(),
        *(it["description"] for it in parameters),
        *(it["description"] for it in document["tags"]),
    ]

    assert {f"#/{name}" for name in document["components"]["schemas"]} <= described.keys()
    assert [text for text in texts if EMPTY.match(text)] == []
