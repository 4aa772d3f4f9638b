"""The check command itself: what it runs can fail, and then it fails."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pymongo import MongoClient

from infra.checks.__main__ import FIRST_DEPLOYMENT, PLACE, compiled, stale, write
from infra.checks.deployment import FOLDER

BICEP = shutil.which(os.environ.get("BICEP") or "bicep")


def _program(folder: Path, name: str, body: str) -> Path:
    """A stand-in for a program that is not on every machine."""
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport sys\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    """A copy to break."""
    folder = tmp_path / "infra"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    return folder


def _change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text, f"{file.name} has changed: {old!r} is no longer there"
    file.write_text(text.replace(old, new))


def test_the_stored_snapshots_are_of_the_templates_as_they_are() -> None:
    assert stale(FOLDER) == []


@pytest.mark.parametrize("file", ["modules/site.bicep", "prod.bicepparam", "prod.snapshot.json"])
def test_without_a_compiler_a_changed_file_is_found(templates: Path, file: str) -> None:
    with (templates / file).open("a") as changed:
        changed.write("\n")
    assert stale(templates) == [f"{file} has changed: `make infra-snapshot`, with a Bicep compiler"]


def test_without_a_compiler_a_new_and_a_missing_file_are_found(templates: Path) -> None:
    (templates / "modules/site.bicep").rename(templates / "modules/app.bicep")
    assert [problem.split()[0] for problem in stale(templates)] == ["modules/app.bicep", "modules/site.bicep"]


@pytest.mark.parametrize(
    ("verb", "wrong", "problem"),
    [
        ("build", "pass", None),
        ("build", "sys.stderr.write('main.bicep(1,1) : Info use-recent-api-versions: …')", None),
        ("build", "sys.stderr.write('main.bicep(1,1) : Warning no-unused-params: …')", "no-unused-params"),
        ("build", "sys.exit('main.bicep(1,1) : Error BCP018: …')", "BCP018"),
        ("validate", "sys.exit(print('~ instanceMemoryMB: 2048 => 4096') or 1)", "2048 => 4096"),
        ("format", "open('main.bicep', 'a').write(' ')", "main.bicep is not as `bicep format` writes it"),
        ("overwrite", "sys.exit('prod.bicepparam(4,19) : Error BCP338: …')", "BCP338"),
        (
            "overwrite",
            "import pathlib; f = pathlib.Path('main.snapshot.json'); f.write_text(f.read_text().replace('TLS1_2', ''))",
            "later deployment, main.snapshot.json: values_are_as_wanted",
        ),
    ],
)
def test_whatever_the_compiler_finds_fails(
    tmp_path: Path, templates: Path, verb: str, wrong: str, problem: str | None
) -> None:
    """Each on templates that are right otherwise, by a stand-in that finds one thing wrong."""
    body = f"""
verb = sys.argv[1] if sys.argv[1] != "snapshot" else "validate" if "validate" in sys.argv else "overwrite"
if verb == "build":
    print('{{"resources": {{}}}}')
if verb == {verb!r}:
    {wrong}
"""
    found = compiled(str(_program(tmp_path, "bicep", body)), templates)
    assert (found == []) if problem is None else any(problem in line for line in found)


def test_snapshots_are_evaluated_with_stand_ins_and_none_of_the_variables_of_this_machine(
    tmp_path: Path, templates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWINS_ALERT_EMAIL", "someone@example.com")
    body = """
import json, os, pathlib
given = {name: value for name, value in os.environ.items() if name.startswith("TWINS_")}
pathlib.Path(sys.argv[2]).with_suffix(".snapshot.json").write_text(json.dumps({"z": sys.argv[3:], "a": given}))
"""
    write(str(_program(tmp_path, "bicep", body)), templates)
    written = (templates / "prod.snapshot.json").read_text()
    assert json.loads(written) == {"a": FIRST_DEPLOYMENT, "z": PLACE}
    assert written.index('"a"') < written.index('"z"')
    assert stale(templates) == []


def test_a_snapshot_that_cannot_be_made_is_not_written(tmp_path: Path, templates: Path) -> None:
    with pytest.raises(SystemExit, match="BCP018"):
        write(str(_program(tmp_path, "bicep", "sys.exit('main.bicep(1,1) : Error BCP018: …')")), templates)
    assert stale(templates) == []


@pytest.mark.skipif(BICEP is None, reason="no Bicep compiler on PATH or at BICEP")
def test_the_real_compiler_finds_each_fault(templates: Path) -> None:
    assert BICEP
    _change(templates / "modules/site.bicep", "instanceMemoryMB: 2048", "instanceMemoryMB: 4096")
    _change(templates / "modules/site.bicep", "httpsOnly: true", "httpsOnly:   true")
    _change(templates / "modules/site.bicep", "remoteDebuggingEnabled: false", "remoteDebugging: false")
    _change(templates / "modules/vault.bicep", "@description('Region.')\n", "")
    _change(templates / "main.bicep", "@secure()\n@description('Key of the digests", "@description('Key of the digests")
    _change(templates / "prod.bicepparam", "readEnvironmentVariable('TWINS_PUBLIC_URL', '')", "'http://twins.example'")
    found = "\n".join(compiled(BICEP, templates))
    for problem in (
        "2048",
        "modules/site.bicep is not as `bicep format` writes it",
        "Warning BCP037",
        "vault: location has no @description",
        "main: digestKey is not @secure",
        "later deployment, prod.snapshot.json: everything_is_watched",
    ):
        assert problem in found


@pytest.mark.parametrize("given", [{"BICEP": "/nonexistent/bicep"}, {}], ids=["named", "asked for"])
def test_a_compiler_that_is_needed_and_not_there_is_an_error(given: dict[str, str]) -> None:
    command = [sys.executable, "-m", "infra.checks", *([] if given else ["--write"])]
    environment = {"PATH": "/nonexistent"} | given
    done = subprocess.run(command, cwd=FOLDER.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Put the Bicep compiler on PATH" in done.stderr


def test_one_problem_makes_the_command_fail(tmp_path: Path) -> None:
    bicep = _program(tmp_path, "bicep", "sys.exit('it crashed')")
    environment = os.environ | {"BICEP": str(bicep)}
    command = [sys.executable, "-m", "infra.checks"]
    done = subprocess.run(command, cwd=FOLDER.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "FAILED  compiled" in done.stdout
    assert "it crashed" in done.stdout
    assert "ok      rules" in done.stdout


def test_the_migration_hands_one_token_to_both_stores_and_leaves_none_behind(tmp_path: Path) -> None:
    _program(tmp_path, "az", "print('the token')")
    seen = tmp_path / "seen.jsonl"
    _program(
        tmp_path,
        "python",
        "import json, os\n"
        "names = ('PGPASSWORD', 'PGSSLROOTCERT', 'MIGRATIONS_POSTGRES_DSN', 'MONGODB_URI')\n"
        "token_file = os.environ['AZURE_FEDERATED_TOKEN_FILE']\n"
        "said = [sys.argv[1:], token_file, open(token_file).read(), oct(os.stat(token_file).st_mode & 0o777)]\n"
        f"open({str(seen)!r}, 'a').write(json.dumps(said + [os.environ[name] for name in names]) + '\\n')",
    )
    given = {
        "POSTGRES_HOST": "postgres.example",
        "DOCUMENTDB_HOST": "documents.example",
        "MIGRATE_IDENTITY": "twins-migrate",
        "APP_IDENTITY": "twins-app",
    }
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"} | given
    subprocess.run(["bash", "infra/migrate.sh"], cwd=FOLDER.parent, env=environment, check=True)
    upgrade, grant = (json.loads(line) for line in seen.read_text().splitlines())
    assert upgrade[0] == ["-m", "migrations", "upgrade"]
    assert grant[0] == ["-m", "migrations", "grant", "--entra", "twins-app"]
    token_file, token, mode, password, authorities, dsn, uri = upgrade[1:]
    assert (token, password, mode) == ("the token", "the token", "0o600")
    assert authorities.startswith("/")
    assert dsn == "postgresql://twins-migrate@postgres.example:5432/twins?sslmode=verify-full"
    assert MongoClient(uri.replace("+srv", ""), connect=False).options.retry_writes is False
    assert uri.startswith("mongodb+srv://documents.example/?tls=true&")
    assert not Path(token_file).exists()


@pytest.mark.parametrize("missing", ["POSTGRES_HOST", "DOCUMENTDB_HOST", "MIGRATE_IDENTITY", "APP_IDENTITY"])
def test_the_migration_says_what_it_needs(missing: str) -> None:
    names = {"POSTGRES_HOST", "DOCUMENTDB_HOST", "MIGRATE_IDENTITY", "APP_IDENTITY"} - {missing}
    environment = {"PATH": os.environ["PATH"]} | dict.fromkeys(names, "x")
    command = ["bash", "infra/migrate.sh"]
    done = subprocess.run(command, cwd=FOLDER.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert missing in done.stderr


def test_every_rule_of_the_linter_that_is_on_is_an_error() -> None:
    config = json.loads((FOLDER / "bicepconfig.json").read_text())["analyzers"]["core"]
    levels = {name: rule["level"] for name, rule in config["rules"].items()}
    assert config["enabled"]
    operations = (FOLDER.parent / "docs/OPERATIONS.md").read_text()
    for name in (name for name, level in levels.items() if level != "error"):
        assert f"`{name}`" in operations, "each rule that is no error has its reason"
    # As an error it would end the build on a day when nobody changed anything.
    assert {name for name, level in levels.items() if level not in {"error", "off"}} == {"use-recent-api-versions"}
