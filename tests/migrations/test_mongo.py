"""MongoDB's collections: made once, changed as the code says, within what Azure DocumentDB knows."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from datetime import UTC, datetime
from threading import Barrier
from typing import Any
from uuid import uuid4

import pytest
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import OperationFailure, WriteError

from migrations import mongo
from migrations.mongo import COLLECTIONS
from tests.support.stores import Stores

KNOWN = {
    "bsonType", "description", "items", "maxItems", "maxLength", "maximum", "minItems", "minLength", "minimum",
    "multipleOf", "pattern", "properties", "required", "type", "uniqueItems",
}  # fmt: skip
"""The keywords of $jsonSchema that Azure DocumentDB takes; it fails to make a validator with any other."""


@pytest.fixture
def database(stores: Stores) -> Iterator[Database[dict[str, Any]]]:
    with MongoClient[dict[str, Any]](stores.mongod.uri, uuidRepresentation="standard") as client:
        name = f"twins_{uuid4().hex[:12]}"
        yield client[name]
        client.drop_database(name)


@pytest.fixture
def wanted(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `ensure` brings the database to, for a test to change."""
    collections = deepcopy(COLLECTIONS)
    monkeypatch.setattr(mongo, "COLLECTIONS", collections)
    return collections


def document(**changes: Any) -> dict[str, Any]:
    return {
        "_id": uuid4(),
        "twin_id": uuid4(),
        "persona": {"summary": "x"},
        "extensions": "{}",
        "created_at": datetime.now(UTC),
    } | changes


def state_of(database: Database[dict[str, Any]]) -> Any:
    return {
        name: (database[name].options()["validator"], database[name].index_information())
        for name in sorted(database.list_collection_names())
    }


def beyond_documentdb(schema: Any) -> set[str]:
    """Return the keywords of a JSON schema that Azure DocumentDB does not know."""
    found = set(schema) - KNOWN
    below = [*schema.get("properties", {}).values()]
    if "items" in schema:
        below.append(schema["items"])
    return found.union(*(beyond_documentdb(child) for child in below))


def test_validators_keep_to_what_documentdb_knows() -> None:
    for wanted in COLLECTIONS.values():
        validator = wanted["validator"]
        assert list(validator) == ["$jsonSchema"]
        assert beyond_documentdb(validator["$jsonSchema"]) == set()


@pytest.mark.parametrize("keyword", ["enum", "additionalProperties", "anyOf", "not", "patternProperties", "title"])
def test_a_keyword_that_documentdb_does_not_know_is_found_wherever_it_is(keyword: str) -> None:
    schemas: list[dict[str, Any]] = [
        {keyword: []},
        {"properties": {"a": {keyword: []}}},
        {"items": {"properties": {"a": {"items": {keyword: []}}}}},
    ]
    for schema in schemas:
        assert beyond_documentdb(schema) == {keyword}
    assert beyond_documentdb({"properties": {keyword: {"type": "string"}}}) == set()


def test_a_second_run_changes_nothing(stores: Stores, database: Database[dict[str, Any]]) -> None:
    mongo.ensure(stores.mongod.uri, database.name)
    first = state_of(database)
    database.personas.insert_one(kept := document())
    mongo.ensure(stores.mongod.uri, database.name)

    assert state_of(database) == first
    assert set(first) == set(COLLECTIONS)
    assert database.personas.count_documents({"_id": kept["_id"]}) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"_id": "text"},
        {"twin_id": "019ab3f2-7d55-7c0e-9a3e-0d5b8f6c1a2b"},
        {"persona": []},
        {"persona": None},
        {"extensions": {}},
        {"extensions": "x" * 262_145},
        {"created_at": "2026-11-24T10:50:00Z"},
    ],
)
def test_a_document_that_does_not_fit_is_refused_by_the_database(
    stores: Stores, database: Database[dict[str, Any]], change: dict[str, Any]
) -> None:
    mongo.ensure(stores.mongod.uri, database.name)
    database.personas.insert_one(document())
    with pytest.raises(WriteError, match="failed validation"):
        database.personas.insert_one(document(**change))
    (member,) = change
    if member != "_id":
        with pytest.raises(WriteError, match="failed validation"):
            database.personas.insert_one({name: value for name, value in document().items() if name != member})


def test_a_changed_validator_takes_effect(
    stores: Stores, database: Database[dict[str, Any]], wanted: dict[str, Any]
) -> None:
    mongo.ensure(stores.mongod.uri, database.name)
    wanted["personas"]["validator"]["$jsonSchema"]["required"].append("checksum")
    mongo.ensure(stores.mongod.uri, database.name)

    with pytest.raises(WriteError):
        database.personas.insert_one(document())
    database.personas.insert_one(document(checksum="x"))


def test_indexes_are_added_and_what_nobody_wants_is_dropped(
    stores: Stores, database: Database[dict[str, Any]], wanted: dict[str, Any]
) -> None:
    mongo.ensure(stores.mongod.uri, database.name)
    database.personas.create_index("persona.summary", name="by_hand")
    del wanted["personas"]["indexes"]["created_at_1"]
    wanted["personas"]["indexes"]["twin_id_1_created_at_1"] = [("twin_id", 1), ("created_at", 1)]
    mongo.ensure(stores.mongod.uri, database.name)

    assert set(database.personas.index_information()) == {"_id_", "twin_id_1", "twin_id_1_created_at_1"}


def test_a_validator_that_the_server_does_not_understand_is_not_ignored(
    stores: Stores, database: Database[dict[str, Any]], wanted: dict[str, Any]
) -> None:
    wanted["personas"]["validator"]["$jsonSchema"]["no-such-keyword"] = 1
    with pytest.raises(OperationFailure):
        mongo.ensure(stores.mongod.uri, database.name)


def test_several_at_once_make_each_collection_once(stores: Stores, database: Database[dict[str, Any]]) -> None:
    together = Barrier(4)

    def ensure() -> None:
        together.wait()
        mongo.ensure(stores.mongod.uri, database.name)

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(ensure) for _ in range(4)]:
            done.result()

    mongo.ensure(stores.mongod.uri, database.name)
    assert sorted(database.list_collection_names()) == sorted(COLLECTIONS)


def test_what_else_keeps_a_collection_from_being_made_is_told(
    stores: Stores, database: Database[dict[str, Any]], wanted: dict[str, Any]
) -> None:
    wanted["personas"]["validator"] = {"$unknown": 1}
    with pytest.raises(OperationFailure):
        mongo.ensure(stores.mongod.uri, database.name)
