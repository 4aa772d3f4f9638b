"""`make run` and its neighbours as a person uses them, in a copy of the project with its own `.local`."""

import itertools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
import pytest
from jose import jwt

from devstack.local import ROOT
from devstack.process import LOCALHOST, free_port
from tests.support.curl import CURL
from tests.support.stores import Stores

OURS = ("POSTGRES_DSN", "MIGRATIONS_POSTGRES_DSN", "MONGODB_URI", "JWT_SECRETS", "DIGEST_KEY", "RECEIPT_KEYS")
MAKES = ("MAKELEVEL", "MAKEFLAGS", "MFLAGS")
"""What `make test` hands on: a make below it would take part in it, and say so."""


def inherited() -> dict[str, str]:
    """The environment without what is ours."""
    return {name: value for name, value in os.environ.items() if name not in OURS + MAKES}


STOPS_WITHIN = 30


class Project:
    """A copy of the project, and commands in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = free_port()
        self.url = f"http://{LOCALHOST}:{self.port}"

    def command(self, *arguments: str, **environment: str) -> tuple[list[str], dict[str, Any]]:
        return [sys.executable, "-m", "devstack", *arguments], {
            "cwd": self.root,
            "env": inherited() | {"PORT": str(self.port)} | environment,
            "text": True,
        }

    def do(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command, options = self.command(*arguments, **environment)
        return subprocess.run(command, **options, capture_output=True, check=False, timeout=60)

    def run(self, command: str = "run", **environment: str) -> "Run":
        return Run(self, *self.command(command, **environment))

    def processes(self) -> list[psutil.Process]:
        """All that work on this copy, but for the commands themselves."""
        return [
            process
            for process in psutil.process_iter(["cwd", "cmdline"])
            if (process.info["cwd"] or "").startswith(str(self.root))
            and "devstack" not in (process.info["cmdline"] or [])
        ]


class Run:
    """A running `python -m devstack run`, leader of a process group as it is under a terminal."""

    def __init__(self, project: Project, command: list[str], options: dict[str, Any]) -> None:
        self.project = project
        self.process = subprocess.Popen(
            command, **options, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0
        )
        self.greeting = ""

    def until_up(self) -> Self:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.greeting += line
            if line.startswith("Ctrl-C"):
                break
        return self

    def end(self, number: signal.Signals) -> tuple[int, str]:
        """Signal the whole group, as a terminal does; return exit code and standard error."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)
        return self.outcome()

    def outcome(self) -> tuple[int, str]:
        try:
            _, stderr = self.process.communicate(timeout=STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return self.process.returncode, stderr

    def storm(self) -> tuple[int, str]:
        """Signal the whole group until the run has ended, for a second faster than a handler returns."""
        numbers = itertools.cycle((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        start = time.monotonic()
        while self.process.poll() is None and (passed := time.monotonic() - start) < STOPS_WITHIN:
            os.killpg(self.process.pid, next(numbers))
            time.sleep(0.05 if passed > 1 else 0)
        return self.outcome()

    def __enter__(self) -> Self:
        return self.until_up()

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGTERM)

    @property
    def app(self) -> psutil.Process:
        return next(p for p in psutil.Process(self.process.pid).children() if "devstack.serve" in p.cmdline())

    def create(self) -> subprocess.CompletedProcess[str]:
        """Paste the printed command."""
        line = next(line for line in self.greeting.splitlines() if line.startswith("curl "))
        _, *arguments = shlex.split(line)
        return subprocess.run([*CURL, *arguments], capture_output=True, text=True, check=True)


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    with tempfile.TemporaryDirectory(prefix="twins-") as name:
        root = Path(name).resolve() / "a copy"
        root.mkdir()
        for folder in ("bench", "devstack", "infra", "migrations", "proof", "shared", "twins"):
            shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
        for pattern in ("function_app.py", "host.json", "Makefile", "requirements*.txt"):
            for file in ROOT.glob(pattern):
                shutil.copy(file, root)
        yield Project(root)


@pytest.fixture
def empty_handed(project: Project) -> Iterator[None]:
    """Whatever a test does, nothing is left running."""
    yield
    left = project.processes()
    for process in left:
        process.kill()
    psutil.wait_procs(left)


pytestmark = pytest.mark.usefixtures("empty_handed")


def items(project: Project, subject: str = "alice", **environment: str) -> list[dict[str, Any]]:
    bearer = project.do("token", SUB=subject, **environment).stdout.strip()
    answer = httpx.get(f"{project.url}/api/v1/twins", headers={"Authorization": f"Bearer {bearer}"})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


def test_a_taken_port_is_said_before_anything_starts(project: Project) -> None:
    with socket.create_server((LOCALHOST, project.port)):
        done = project.do("run")
    assert done.returncode == 1
    assert f"port {project.port} is taken" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project.root / ".local" / "postgres").exists()


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http", "\u0667"])
def test_an_impossible_port_is_refused(project: Project, port: str) -> None:
    done = project.do("run", PORT=port)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("run: PORT must be a number")


def test_an_unusable_setting_is_named_without_a_traceback_or_its_value(project: Project) -> None:
    done = project.do("run", JWT_SECRETS="too-short")
    assert done.returncode == 1
    assert "JWT_SECRETS" in done.stderr
    assert "Traceback" not in done.stderr
    assert "too-short" not in done.stderr
    assert not (project.root / ".local" / "postgres").exists()


def test_the_printed_command_creates_a_twin_that_survives_until_the_next_run(project: Project) -> None:
    with project.run() as run:
        assert f"{project.url}/docs" in run.greeting
        assert run.create().stdout.startswith("HTTP/1.1 201")
        assert len(project.processes()) >= 3
        code, errors = run.end(signal.SIGINT)
    assert code == 0, errors
    assert project.processes() == []

    with project.run() as run:
        assert [item["twin_name"] for item in items(project)] == ["Alex"]
        code, errors = run.end(signal.SIGTERM)
    assert code == 0, errors
    assert project.processes() == []


def test_a_second_run_and_a_migration_find_the_first(project: Project) -> None:
    with project.run():
        second = project.do("run", PORT=str(free_port()))
        assert second.returncode == 1
        assert "already running" in second.stderr
        assert project.url in second.stderr

        migration = project.do("migrate")
        assert migration.returncode == 0, migration.stderr
        assert httpx.get(f"{project.url}/ready").status_code == 200


def test_a_migration_alone_starts_the_stores_and_stops_them(project: Project) -> None:
    done = project.do("migrate")
    assert done.returncode == 0, done.stderr
    assert project.processes() == []


def test_the_death_of_the_app_ends_the_run_with_a_clear_message(project: Project) -> None:
    with project.run() as run:
        run.app.kill()
        code, errors = run.end(signal.SIGCONT)  # changes nothing: it ends by itself
    assert code == 1
    assert "the app ended by itself (killed by SIGKILL)" in errors
    assert "Traceback" not in errors
    assert project.processes() == []


def test_a_killed_run_takes_the_app_along_and_the_next_one_replaces_its_stores(project: Project) -> None:
    with project.run() as run:
        run.create()
        app, count = run.app, len(items(project))
        run.end(signal.SIGKILL)
        app.wait(10)
        stale = [process for process in project.processes() if process.name() in {"postgres", "mongod"}]
        assert {process.name() for process in stale} == {"postgres", "mongod"}
    with project.run():
        assert not any(process.is_running() for process in stale)
        assert len(items(project)) == count
    assert project.processes() == []


@pytest.mark.parametrize("command", ["run", "run-functions"])
def test_many_signals_at_once_end_a_run_as_one_does(project: Project, command: str) -> None:
    with project.run(command) as run:
        _, errors = run.storm()
    assert "Traceback" not in errors
    assert project.processes() == []


@pytest.mark.parametrize("server", ["postgres", "mongod"])
def test_many_signals_at_once_end_a_run_that_is_starting(project: Project, server: str) -> None:
    log = project.root / ".local" / server / f"{server}.log"
    log.unlink(missing_ok=True)
    run = project.run()
    while run.process.poll() is None and not log.exists():
        time.sleep(0.01)
    _, errors = run.storm()
    assert errors == ""
    assert project.processes() == []


def test_the_end_of_make_ends_the_run(project: Project) -> None:
    command, options = project.command("run")
    options["env"]["MAKELEVEL"] = "1"
    # The shell waits for it as make does.
    with Run(project, ["sh", "-c", '"$@"; true', "make", *command], options) as run:
        child = psutil.Process(run.process.pid).children()[0]
        run.process.kill()
        child.wait(30)
    assert project.processes() == []


def test_it_serves_through_the_functions_worker_too(project: Project) -> None:
    with project.run("run-functions") as run:
        assert run.create().stdout.startswith("HTTP/1.1 201")
        code, errors = run.end(signal.SIGINT)
    assert code == 0, errors
    assert project.processes() == []


def test_given_servers_and_keys_are_used_and_no_server_is_started(project: Project, stores: Stores) -> None:
    given = stores.environment | {
        "MIGRATIONS_POSTGRES_DSN": stores.postgres.owner_dsn,
        "JWT_SECRETS": json.dumps(["the first of two keys signs, and is long enough", "x" * 32]),
    }
    with project.run(**given) as run:
        run.create()
        assert [item["twin_name"] for item in items(project, **given)] == ["Alex"]
        assert {process.pid for process in project.processes()} == {run.app.pid}
        assert "MIGRATIONS_POSTGRES_DSN" not in run.app.environ()


def test_token_prints_a_token_and_nothing_else(project: Project) -> None:
    done = project.do("token", SUB="a li'ce$(x)", SCOPE="twins:decide other")
    assert done.returncode == 0
    assert done.stderr == ""
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", done.stdout)
    claims = jwt.get_unverified_claims(done.stdout.strip())
    assert claims["sub"] == "a li'ce$(x)"
    assert claims["scope"] == "twins:decide other"
    assert claims["exp"] - claims["iat"] == 12 * 60 * 60


def test_token_is_signed_by_the_first_given_key_for_the_configured_audience(project: Project) -> None:
    first = "the first of two keys signs, and is long enough"
    done = project.do(
        "token",
        SUB="alice",
        JWT_SECRETS=json.dumps([first, "x" * 32]),
        JWT_AUDIENCE="twins",
        JWT_ISSUER="here",
    )
    assert jwt.decode(done.stdout.strip(), first, algorithms=["HS256"], audience="twins", issuer="here")


def test_token_wants_to_know_whose(project: Project) -> None:
    done = project.do("token", SUB=" ")
    assert (done.returncode, done.stdout) == (1, "")
    assert "make token SUB=alice" in done.stderr


def test_the_local_secrets_are_closed_to_others_and_stay_the_same(project: Project) -> None:
    project.do("token", SUB="alice")
    file = project.root / ".local" / "settings.json"
    before = file.read_text()
    project.do("token", SUB="alice")
    assert file.read_text() == before
    assert file.stat().st_mode & 0o777 == 0o600
    assert set(json.loads(json.loads(before)["RECEIPT_KEYS"])) == {"kty", "crv", "x", "y", "d"}


@pytest.mark.parametrize("python", ["/nowhere/python3.13", "false"])
def test_make_says_what_to_do_without_python_3_13(project: Project, python: str) -> None:
    done = subprocess.run(
        ["make", f"PYTHON={python}", "token", "SUB=alice"],
        cwd=project.root,
        env=inherited(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert done.stdout == ""
    assert "Python 3.13 is needed" in done.stderr
    assert "PYTHON=/path/to/python3.13" in done.stderr


def test_make_says_what_to_install_where_python_has_no_venv(project: Project, tmp_path: Path) -> None:
    (tmp_path / "ensurepip.py").write_text("raise ModuleNotFoundError")  # as Debian has it
    done = subprocess.run(
        ["make", f"PYTHON={sys.executable}", "token", "SUB=alice"],
        cwd=project.root,
        env=inherited() | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.splitlines()[0].endswith("On Debian or Ubuntu: apt-get install python3-venv")


def installed(project: Project, python: str) -> None:
    """Put a shell script in the place of the Python that make installs."""
    program = project.root / ".venv" / "bin" / "python"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f"#!/bin/sh\n{python}\n")
    program.chmod(0o755)
    (project.root / ".venv" / ".ready").touch()


@pytest.mark.parametrize("target", ["run", "run-functions"])
def test_a_run_keeps_the_bytecode_that_the_next_one_starts_from(project: Project, target: str) -> None:
    installed(project, 'printf "%s" "$PYTHONDONTWRITEBYTECODE"')
    done = subprocess.run(
        ["make", target],
        cwd=project.root,
        env=inherited() | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""


def test_make_hands_on_what_it_is_given_without_reading_it(project: Project) -> None:
    installed(project, f'exec {shlex.quote(sys.executable)} "$@"')
    subject = "$(shell touch pwned)`touch pwned`\"'; touch pwned; $HOME"
    done = subprocess.run(
        ["make", "token", f"SUB={subject}", f"SCOPE={subject}"],
        cwd=project.root,
        env=inherited(),
        capture_output=True,
        text=True,
        check=False,
    )
    claims = jwt.get_unverified_claims(done.stdout.strip())
    assert (claims["sub"], claims["scope"]) == (subject, subject)
    assert not (project.root / "pwned").exists()


def test_make_help_has_a_line_for_every_target(project: Project) -> None:
    targets = {
        target
        for makefile in (project.root / "Makefile", *project.root.glob("*/*.mk"))
        for line in makefile.read_text().splitlines()
        if line.startswith(".PHONY:")
        for target in line.split()[1:]
    }
    done = subprocess.run(["make"], cwd=project.root, env=inherited(), capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if line]
    assert {line.split()[1] for line in lines if line.startswith("  make ")} == targets
    assert [line for line in lines if not line.startswith(" ")] == [
        "Run",
        "Develop",
        "Infrastructure",
        "Measure and prove",
    ]


def test_an_identity_provider_runs_beside_the_app_where_that_is_asked_for(project: Project) -> None:
    missing = project.do("token", SUB="alice", OIDC="1")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "make run OIDC=1" in missing.stderr

    with project.run(OIDC="1") as run:
        assert "TOKEN=$(make token OIDC=1 SUB=alice)" in run.greeting
        bearer = project.do("token", SUB="alice", OIDC="1").stdout.strip()
        me = httpx.get(f"{project.url}/api/v1/me", headers={"Authorization": f"Bearer {bearer}"}).json()
        assert me["issuer"].startswith("http://127.0.0.1:")
        assert me["subject"] == "alice"
        items(project)  # HS256 works as ever
        metadata = httpx.get(f"{project.url}/.well-known/oauth-protected-resource").json()
        assert (metadata["resource"], metadata["authorization_servers"]) == (project.url, [me["issuer"]])
        nobody = project.do("token", SUB=" ", OIDC="1")
        assert (nobody.returncode, nobody.stdout) == (1, "")
        code, errors = run.end(signal.SIGINT)
    assert code == 0, errors
