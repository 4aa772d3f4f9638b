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

from devstack import mongod as mongod_module
from devstack.mongod import Mongod, program
from devstack.process import StackError, free_port
from tests.support.stores import store_folder


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


def put_program(file: Path, script: str) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


@pytest.fixture
def wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the wheel of mongod would have its program."""
    spec = ModuleSpec("fiftyone", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path / "fiftyone")]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    return tmp_path / "fiftyone" / "db" / "bin" / "mongod"


def test_a_mongod_on_path_is_used_where_the_wheels_does_not_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wheel: Path
) -> None:
    good = tmp_path / "path" / "mongod"
    put_program(good, "exit 0")
    put_program(wheel, "echo needs AVX >&2; exit 132")

    monkeypatch.setenv("PATH", f"{good.parent}{os.pathsep}{os.environ['PATH']}")
    assert program.__wrapped__() == [str(good)]

    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(StackError, match=r"needs AVX.*PATH.*MONGODB_URI"):
        program.__wrapped__()


def test_the_wheels_mongod_gets_a_libcurl_only_where_the_system_has_none(tmp_path: Path, wheel: Path) -> None:
    libraries = tmp_path / "pycurl.libs"
    libraries.mkdir()
    (libraries / "libcurl-330bcbb6.so.4.8.0").touch()
    put_program(wheel, '[ -f "$LD_LIBRARY_PATH/libcurl.so.4" ]')
    for _ in range(2):
        assert program.__wrapped__() == ["env", f"LD_LIBRARY_PATH={libraries}", str(wheel)]

    wheel.write_text("#!/bin/sh\nexit 0\n")
    assert program.__wrapped__() == [str(wheel)]


@pytest.mark.skipif(importlib.util.find_spec("fiftyone") is None, reason="there is no mongod wheel for this platform")
def test_the_wheels_mongod_serves_with_the_libcurl_of_pycurls(monkeypatch: pytest.MonkeyPatch) -> None:
    (command,) = [command for command in mongod_module._candidates() if command[0] == "env"]
    monkeypatch.setattr(mongod_module, "program", lambda: command)
    with store_folder() as folder, Mongod(folder / "mongod") as server:
        assert any("pycurl.libs/libcurl" in area.path for area in psutil.Process(server.pid).memory_maps())
        assert count(server, insert=1) == 1
