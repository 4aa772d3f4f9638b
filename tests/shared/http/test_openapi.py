"""The OpenAPI document: every answer, error and header is declared, once, where it is sent."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import pytest

from shared.http.application import Application
from shared.http.problems import MEDIA_TYPE
from tests.shared.http.notes import close, make_app


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return make_app().openapi()


def test_fastapis_own_validation_error_is_nowhere(document: dict[str, Any]) -> None:
    assert "ValidationError" not in json.dumps(document)


def test_the_pages_are_not_in_the_document(document: dict[str, Any]) -> None:
    assert set(document["paths"]) == {"/api/v1/notes", "/api/v1/notes/{note_id}", "/health"}


@pytest.mark.parametrize(
    ("method", "path", "statuses"),
    [
        ("get", "/health", "200"),
        ("get", "/api/v1/notes", "200 400 406 422 500 503"),
        ("post", "/api/v1/notes", "201 400 409 410 413 415 422 500 503"),
        ("get", "/api/v1/notes/{note_id}", "200 304 400 401 403 404 422 429 500 503"),
        ("patch", "/api/v1/notes/{note_id}", "200 400 401 403 404 409 412 413 415 422 429 500 503"),
        ("delete", "/api/v1/notes/{note_id}", "204 400 401 403 404 412 413 415 422 429 500 503"),
    ],
)
def test_an_operation_names_each_answer_it_can_give(
    document: dict[str, Any], method: str, path: str, statuses: str
) -> None:
    assert list(document["paths"][path][method]["responses"]) == statuses.split()


def test_problems_that_share_a_status_are_told_apart(document: dict[str, Any]) -> None:
    post, patch = (
        document["paths"][path][method]["responses"]["409"]
        for path, method in (("/api/v1/notes", "post"), ("/api/v1/notes/{note_id}", "patch"))
    )
    assert post == {"$ref": "#/components/responses/IdempotencyKeyInUseOrNoteLocked"}
    assert patch == {"$ref": "#/components/responses/NoteLocked"}
    response = document["components"]["responses"]["IdempotencyKeyInUseOrNoteLocked"]
    examples = response["content"][MEDIA_TYPE]["examples"]
    assert list(examples) == ["idempotency-key-in-use", "note-locked"]
    assert examples["note-locked"]["value"]["title"] == "Note <locked>"
    assert "[Note <locked>](/problems/note-locked): The note is locked" in response["description"]


def test_each_error_answer_is_written_once(document: dict[str, Any]) -> None:
    references = [
        response
        for item in document["paths"].values()
        for operation in item.values()
        for status, response in operation["responses"].items()
        if int(status) >= 400
    ]
    assert all(set(reference) == {"$ref"} for reference in references)
    used = {reference["$ref"].rpartition("/")[2] for reference in references}
    assert used == set(document["components"]["responses"])


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _references(item)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in _references(document):
        _, _, section, name = reference.split("/")
        assert name in document["components"][section], reference


def test_examples_and_real_answers_fit_the_problem_schema(document: dict[str, Any]) -> None:
    validator = jsonschema_rs.validator_for(
        document["components"]["schemas"]["Problem"] | {"additionalProperties": False}
    )
    for response in document["components"]["responses"].values():
        for example in response["content"][MEDIA_TYPE]["examples"].values():
            validator.validate(example["value"])


@pytest.mark.parametrize("name", ["Unauthorized", "ValidationFailed"])
async def test_a_real_problem_is_as_declared(document: dict[str, Any], name: str) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(make_app()), base_url="http://test") as client:
        if name == "Unauthorized":
            response = await client.get("/api/v1/notes/1")
        else:
            response = await client.post("/api/v1/notes", json={"text": 1})
    declared = document["components"]["responses"][name]
    assert response.headers["content-type"] in declared["content"]
    assert {header.lower() for header in declared["headers"]} <= set(response.headers)
    schema = document["components"]["schemas"]["Problem"] | {"additionalProperties": False}
    jsonschema_rs.validator_for(schema).validate(response.json())


def test_headers_are_declared_where_they_are_sent(document: dict[str, Any]) -> None:
    def names(method: str, path: str, status: str) -> set[str]:
        response = document["paths"][path][method]["responses"][status]
        if "$ref" in response:
            response = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
        return set(response["headers"])

    note = "/api/v1/notes/{note_id}"
    assert names("get", "/health", "200") == {"X-Request-Id"}
    assert names("post", "/api/v1/notes", "201") == {
        "ETag",
        "Idempotency-Replayed",
        "Location",
        "X-Request-Id",
    }
    assert names("get", note, "200") == names("get", note, "304") == {"ETag", "X-Request-Id"}
    assert names("patch", note, "200") == {"ETag", "X-Request-Id"}
    assert names("get", note, "401") == {"WWW-Authenticate", "X-Request-Id"}
    assert names("get", note, "404") == {"X-Request-Id"}
    assert names("get", note, "503") == {"Retry-After", "X-Request-Id"}


def test_parameters_are_written_as_http_has_them(document: dict[str, Any]) -> None:
    note_id, if_match = document["paths"]["/api/v1/notes/{note_id}"]["patch"]["parameters"]
    assert (note_id["name"], note_id["in"]) == ("note_id", "path")
    assert document["paths"]["/api/v1/notes"]["get"]["parameters"] == []
    assert if_match == {
        "name": "If-Match",
        "in": "header",
        "required": False,
        "schema": {"title": "If-Match", "type": "string"},
    }


def test_a_patch_is_a_merge_patch_or_plain_json(document: dict[str, Any]) -> None:
    content = document["paths"]["/api/v1/notes/{note_id}"]["patch"]["requestBody"]["content"]
    assert list(content) == ["application/json", "application/merge-patch+json"]
    assert content["application/json"] == content["application/merge-patch+json"]


def test_servers_are_relative_unless_the_app_names_some(document: dict[str, Any]) -> None:
    assert document["servers"] == [{"url": "/"}]
    app = Application(drain=close, close=close, servers=[{"url": "/here"}])
    assert app.openapi()["servers"] == [{"url": "/here"}]


def test_the_document_is_the_same_in_every_process() -> None:
    program = "import json; from tests.shared.http.notes import make_app; print(json.dumps(make_app().openapi()))"
    texts = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(texts) == 1
