"""Real PostgreSQL and mongod for the tests, over temporary data and on ports of their own."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devstack.local import ROOT
from devstack.mongod import Mongod
from devstack.postgres import SERVING, Postgres

MEASURED = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("COVERAGE_")}
"""What has coverage measure a process. That doubles its time, so only those get it whose code runs in no other."""


@dataclass(frozen=True)
class Stores:
    """Both running servers, to use or to hurt."""

    postgres: Postgres
    mongod: Mongod

    @property
    def environment(self) -> dict[str, str]:
        """How the application finds them."""
        return {"POSTGRES_DSN": self.postgres.dsn, "MONGODB_URI": self.mongod.uri}

    def migrations(self, *arguments: str) -> None:
        """Run `python -m migrations` on them as the owner."""
        subprocess.run(
            [sys.executable, "-m", "migrations", *arguments],
            cwd=ROOT,
            env=os.environ | MEASURED | self.environment | {"MIGRATIONS_POSTGRES_DSN": self.postgres.owner_dsn},
            check=True,
        )


@contextmanager
def store_folder() -> Iterator[Path]:
    """A temporary folder that the system user of PostgreSQL can pass through too."""
    with tempfile.TemporaryDirectory(prefix="twins-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


@contextmanager
def running_stores() -> Iterator[Stores]:
    """Both servers, migrated, with the serving role ready to serve."""
    with (
        store_folder() as folder,
        Postgres(folder / "postgres", durable=False) as postgres,
        Mongod(folder / "mongod") as mongod,
    ):
        stores = Stores(postgres, mongod)
        stores.migrations("upgrade")
        stores.migrations("grant", SERVING)
        yield stores
