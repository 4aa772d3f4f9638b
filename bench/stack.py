"""The stores and the applications of one run, each on the processor it is meant for."""

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil
from jose import jwt

from bench import data, load
from devstack.local import ROOT
from devstack.mongod import Mongod
from devstack.postgres import OWNER, SERVING, SUPERUSER, Postgres
from devstack.process import free_port
from infra.new_secrets import receipt_key

STOP_TIMEOUT = 10
UNBOUNDED = {"ACCOUNT_REQUESTS": "1000", "ACCOUNT_CONCURRENCY": "1000"}


@dataclass(frozen=True)
class Tree:
    """A copy of the project, and the interpreter of its environment."""

    folder: Path = ROOT
    python: str = sys.executable

    def run(self, environment: Mapping[str, str], *arguments: str) -> None:
        """Run its Python to the end."""
        subprocess.run([self.python, *arguments], cwd=self.folder, env={**os.environ, **environment}, check=True)


OURS = Tree()


@dataclass(frozen=True)
class Database:
    """One database in each store, and how the applications reach them."""

    name: str
    rows: int
    owner_dsn: str
    environment: dict[str, str]

    def token(self, owner: str, scope: str = "") -> str:
        """A token that outlives the run."""
        claims = {"sub": owner, "scope": scope, "exp": int(time.time()) + 86_400}
        return str(jwt.encode(claims, self.environment["JWT_SECRETS"], "HS256"))


@dataclass(frozen=True)
class Stack:
    """Both servers; without fsync, so that the applications are measured and not the disk."""

    postgres: Postgres
    mongod: Mongod

    def database(self, rows: int, tree: Tree = OURS, name: str = "") -> Database:
        """Make a database with so many twins, as a tree has its schema."""
        name = name or f"twins_{rows}"
        self._sql("postgres", f"CREATE DATABASE {name} OWNER {OWNER}")
        environment = {
            "POSTGRES_DSN": self.postgres.dsn_of(SERVING, name),
            "MONGODB_URI": self.mongod.uri,
            "MONGODB_DATABASE": name,
            "JWT_SECRETS": secrets.token_urlsafe(48),
            "DIGEST_KEY": secrets.token_urlsafe(48),
            "RECEIPT_KEYS": receipt_key(),
            # The load is one account's where it writes, and its bounds would be measured.
            **UNBOUNDED,
        }
        owner_dsn = self.postgres.dsn_of(OWNER, name)
        for arguments in (["upgrade"], ["grant", SERVING]):
            tree.run(environment | {"MIGRATIONS_POSTGRES_DSN": owner_dsn}, "-m", "migrations", *arguments)
        tree.run({}, "-c", f"from bench import data; data.fill({owner_dsn!r}, {rows})")
        return Database(name, rows, owner_dsn, environment)

    def _sql(self, database: str, statement: str) -> None:
        data.execute(self.postgres.dsn_of(SUPERUSER, database), statement)


@contextmanager
def running() -> Iterator[Stack]:
    """Both servers over a temporary folder, on the processor of the load."""
    with tempfile.TemporaryDirectory(prefix="twins-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # PostgreSQL runs as another user than root
        with Postgres(folder / "postgres", durable=False) as postgres, Mongod(folder / "mongod") as mongod:
            yield Stack(postgres, mongod)


class App:
    """One application under test in a process of its own."""

    def __init__(self, name: str, database: Database, tree: Tree = OURS) -> None:
        self.name = name
        self.database = database
        self.port = free_port()
        self._tree = tree

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile("w+")
        pin = ["taskset", "--cpu-list", str(server_cpu())] if server_cpu() is not None else []
        self._process = subprocess.Popen(
            [*pin, self._tree.python, "-m", "bench.serve", self.name, str(self.port)],
            cwd=self._tree.folder,
            env=os.environ | self.database.environment,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
        )
        self.process = psutil.Process(self._process.pid)
        try:
            load.wait_until_listening(self.process, self.port)
        except BaseException as error:
            self._log.seek(0)
            error.add_note(self._log.read()[-2000:])
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.communicate(timeout=STOP_TIMEOUT)  # it serves while its standard input is open
        self._process.kill()
        self._process.wait()
        self._log.close()

    def run(self, requests: list[bytes], seconds: int, connections: int) -> load.Outcome:
        """Load it for some seconds; raises `LoadError`."""
        return load.run(self.process, self.port, requests, seconds, connections)


def server_cpu() -> int | None:
    """The processor that applications are pinned to; None where there is only one."""
    return 0 if (os.cpu_count() or 1) > 1 else None


def pin_load() -> None:
    """Move this process, and what it starts, off the processor of the applications."""
    if server_cpu() is not None:
        os.sched_setaffinity(0, set(range(1, os.cpu_count() or 1)))
