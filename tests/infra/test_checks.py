"""The check command itself: what it runs can fail, and then it fails."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pymongo import MongoClient

from infra.checks import __main__ as checks
from infra.checks.__main__ import FOLDER
from tests.infra.test_arm import PARAMETERS, TEMPLATE

REPORT = {
    "summary": {"passed": 40, "failed": 0, "parsing_errors": 0},
    "results": {"failed_checks": []},
}


def _program(folder: Path, name: str, body: str) -> Path:
    """A stand-in for a tool that is installed by another target, or not at all on this machine."""
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport sys\n{body}\n")
    path.chmod(0o755)
    return path


def _saying(report: object) -> str:
    return f"print({json.dumps(report)!r})"


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (_saying(REPORT), None),
        (_saying(REPORT | {"summary": {"passed": 40, "parsing_errors": 1}}), "could not be parsed"),
        (_saying(REPORT | {"summary": {"passed": 0, "parsing_errors": 0}}), "nothing was checked"),
        (_saying([]), "no report"),
        ("sys.exit('it crashed')", "it crashed"),
        (
            _saying(
                REPORT
                | {
                    "results": {
                        "failed_checks": [{"check_id": "CKV_1", "check_name": "n", "resource": "r", "file_path": "f"}]
                    }
                }
            ),
            "CKV_1",
        ),
    ],
)
def test_checkov_fails_on_findings_and_on_what_it_could_not_read(
    tmp_path: Path, said: str, problem: str | None
) -> None:
    found = checks.run_checkov(_program(tmp_path, "checkov", said), FOLDER)
    assert (found == []) if problem is None else (problem in found[0])


def test_pycep_parses_the_templates_and_says_which_it_cannot(tmp_path: Path) -> None:
    assert checks.parsed(FOLDER) == []
    (tmp_path / "broken.bicep").write_text("param x {\n")
    (found,) = checks.parsed(tmp_path)
    assert found.startswith("broken.bicep: ")


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    folder = tmp_path / "infra"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    return folder


def _compiler(folder: Path, lint: str = "") -> list[str]:
    answers = {
        "build": json.dumps(TEMPLATE),
        "build-params": json.dumps({"parametersJson": json.dumps(PARAMETERS)}),
    }
    body = f"print({answers!r}.get(sys.argv[1], ''))\nsys.stderr.write({lint!r} * (sys.argv[1] == 'lint'))"
    return [str(_program(folder, "bicep", body))]


def test_what_the_compiler_makes_is_held_to_the_same_rules(tmp_path: Path, templates: Path) -> None:
    """The stand-in compiles to a template with far too little in it."""
    found = checks.compiled(_compiler(tmp_path), templates)
    assert any("prod.bicepparam: only_entra_signs_in" in problem for problem in found)


def test_a_warning_of_the_linter_fails(tmp_path: Path, templates: Path) -> None:
    warning = "main.bicep(1,1) : Warning no-unused-params: x is declared but never used."
    assert warning in checks.compiled(_compiler(tmp_path, warning), templates)


def test_a_template_that_does_not_compile_fails(tmp_path: Path, templates: Path) -> None:
    broken = _program(tmp_path, "bicep", "sys.exit('main.bicep(1,1) : Error BCP018: Expected …')")
    assert any("BCP018" in problem for problem in checks.compiled([str(broken)], templates))


def test_a_compiler_on_path_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert checks.find_compiler() is None
    _program(tmp_path, "az", "sys.exit(1)")
    assert checks.find_compiler() is None
    az = _program(tmp_path, "az", "")
    assert checks.find_compiler() == [str(az), "bicep"]
    bicep = _program(tmp_path, "bicep", "")
    assert checks.find_compiler() == [str(bicep)]


def test_one_problem_makes_the_command_fail(tmp_path: Path) -> None:
    bad = _program(tmp_path, "checkov", "sys.exit('it crashed')")
    environment = os.environ | {"PATH": "/nonexistent"}
    command = [sys.executable, "-m", "infra.checks", "--checkov", str(bad)]
    done = subprocess.run(command, cwd=FOLDER.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "FAILED  checkov" in done.stdout
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
    off = {name for name, level in levels.items() if level == "off"}
    assert config["enabled"]
    assert set(levels.values()) == {"error", "off"}
    operations = (FOLDER.parent / "docs/OPERATIONS.md").read_text()
    assert all(f"`{name}`" in operations for name in off), "each rule that is off has its reason"
