"""The collections of MongoDB, with validators and indexes; applying them again changes nothing."""

from typing import Any

from pymongo import ASCENDING, MongoClient
from pymongo.errors import OperationFailure

_NAMESPACE_EXISTS = 48

COLLECTIONS: dict[str, dict[str, Any]] = {
    "personas": {
        # Azure DocumentDB's validators know a subset of JSON Schema: enum, additionalProperties,
        # anyOf and their like fail there when the validator is created.
        "validator": {
            "$jsonSchema": {
                "bsonType": "object",
                "required": ["_id", "twin_id", "persona", "extensions", "created_at"],
                "properties": {
                    "_id": {"bsonType": "binData"},
                    "twin_id": {"bsonType": "binData"},
                    "persona": {"bsonType": "object"},
                    "extensions": {"bsonType": "string", "maxLength": 262_144},
                    "created_at": {"bsonType": "date"},
                },
            }
        },
        "indexes": {"twin_id_1": [("twin_id", ASCENDING)], "created_at_1": [("created_at", ASCENDING)]},
    },
    # What takes something away, and what opens a refusal, by the hash of its event (docs/LEDGER.md).
    "journal": {
        "validator": {
            "$jsonSchema": {
                "bsonType": "object",
                "required": ["_id", "subject", "seq", "at", "entry"],
                "properties": {
                    "_id": {"bsonType": "binData"},
                    "subject": {"bsonType": "binData"},
                    "seq": {"bsonType": ["int", "long"]},
                    "at": {"bsonType": "string"},
                    "entry": {"bsonType": "object"},
                },
            }
        },
        # With the id: pages follow both, and by the time alone each page would sort all that is behind it.
        "indexes": {"at_1__id_1": [("at", ASCENDING), ("_id", ASCENDING)]},
    },
}


def ensure(uri: str, database_name: str) -> None:
    """Create each collection, or change its validator and indexes to those of `COLLECTIONS`."""
    with MongoClient[dict[str, Any]](uri, timeoutMS=30_000, w="majority") as client:
        database = client[database_name]
        for name, wanted in COLLECTIONS.items():
            try:
                # No check first: of two migrations at once both would see no collection, and one would fail.
                database.create_collection(name, check_exists=False, validator=wanted["validator"])
            except OperationFailure as error:
                if error.code != _NAMESPACE_EXISTS:
                    raise
                database.command("collMod", name, validator=wanted["validator"])
            collection = database[name]
            for index, keys in wanted["indexes"].items():
                collection.create_index(keys, name=index)
            for index in collection.index_information():
                if index != "_id_" and index not in wanted["indexes"]:
                    collection.drop_index(index)
