import importlib.util
import os
import shutil
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import psutil
import pytest
from pymongo import MongoClient
from pymongo.errors import ServerSelectionTimeoutError

from devstack.mongod import Mongod, program
from devstack.process import StackError, free_port
from tests.stores import store_folder


@pytest.fixture(scope="module")
def mongod() -> Iterator[Mongod]:
    """A server for this module to hurt."""
    with store_folder() as folder, Mongod(folder / "a mongod") as server:
        yield server


def count(server: Mongod, *, insert: int = 0) -> int:
    with MongoClient[dict[str, Any]](server.uri, timeoutMS=5000) as client:
        documents = client.twins.kept
        for _ in range(insert):
            documents.insert_one({})
        return documents.count_documents({})


def test_it_has_transactions(mongod: Mongod) -> None:
    with MongoClient[dict[str, Any]](mongod.uri) as client, client.start_session() as session:
        with session.start_transaction():
            client.twins.transactions.insert_one({}, session=session)
            session.abort_transaction()
        assert client.twins.transactions.count_documents({}) == 0


@pytest.mark.parametrize("end", [Mongod.stop, Mongod.kill])
def test_documents_and_port_survive_the_end_of_the_server(mongod: Mongod, end: object) -> None:
    before, port = count(mongod, insert=10), mongod.port
    assert callable(end)
    end(mongod)
    mongod.start()
    assert mongod.port == port
    assert count(mongod) == before


def test_it_becomes_primary_on_another_port_too(mongod: Mongod) -> None:
    before = count(mongod, insert=1)
    mongod.stop()
    mongod.port = free_port()
    mongod.start()
    assert count(mongod) == before


def test_a_server_left_by_a_killed_run_is_stopped_first(mongod: Mongod) -> None:
    stale = psutil.Process(mongod.pid)
    before = count(mongod, insert=1)
    with Mongod(mongod.folder, mongod.port) as later:
        assert later.pid != stale.pid
        assert count(later) == before
    mongod.stop()
    assert not stale.is_running()
    mongod.start()


def test_a_paused_server_answers_nothing_until_resumed(mongod: Mongod) -> None:
    mongod.pause()
    with (
        MongoClient[dict[str, Any]](mongod.uri, serverSelectionTimeoutMS=300, connectTimeoutMS=300) as client,
        pytest.raises(ServerSelectionTimeoutError),
    ):
        client.admin.command("ping")
    mongod.resume()
    assert count(mongod) >= 0


def test_a_mongod_on_path_is_used_where_the_wheels_does_not_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    good, broken = tmp_path / "path" / "mongod", tmp_path / "wheel" / "db" / "bin" / "mongod"
    for file, script in ((good, "exit 0"), (broken, "echo needs AVX >&2; exit 132")):
        file.parent.mkdir(parents=True)
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
    wheel = ModuleSpec("fiftyone", None, is_package=True)
    wheel.submodule_search_locations = [str(tmp_path / "wheel")]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: wheel)

    monkeypatch.setenv("PATH", f"{good.parent}{os.pathsep}{os.environ['PATH']}")
    assert program.__wrapped__() == str(good)

    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(StackError, match=r"needs AVX.*PATH.*MONGODB_URI"):
        program.__wrapped__()
