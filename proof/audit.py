"""Static checks for security: bandit on the code, squawk on the migrations, pip-audit on the pins.

What they find is fixed, or ignored with a reason: in `[tool.bandit]` of pyproject.toml, in
migrations/squawk.toml, or where it stands.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from devstack.local import ROOT
from devstack.postgres import Postgres
from migrations import postgres

TOOLS = ROOT / ".venv-proof" / "bin"
CODE = ("function_app.py", "shared", "twins", "migrations", "devstack", "infra", "docs")
MIGRATIONS = ROOT / "migrations"
_DONE = re.compile(r"(?:INSERT INTO alembic_version .*VALUES \(|UPDATE alembic_version SET version_num=)'(\w+)'")
"""What Alembic executes at the end of each revision."""
_MATTERS_BESIDE_INSTANCES = (
    "adding-foreign-key-constraint",
    "adding-not-nullable-field",
    "adding-serial-primary-key-field",
    "ban-drop-column",
    "ban-drop-constraint",
    "ban-drop-function",
    "ban-drop-not-null",
    "ban-drop-view",
    "constraint-missing-not-valid",
    "disallowed-unique-constraint",
    "require-concurrent-index-creation",
    "require-concurrent-index-deletion",
    "require-lock-timeout",
    "require-statement-timeout",
)
"""Rules about whom a statement blocks or breaks: nobody, where a revision refuses to run beside instances."""


def _run(tool: str, *arguments: str) -> str:
    """Return what a tool writes on standard output; exits where it found something."""
    done = subprocess.run([TOOLS / tool, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{tool}:\n{done.stdout}{done.stderr}")
    return done.stdout


def bandit() -> None:
    """Check our Python code."""
    _run("bandit", "--configfile", "pyproject.toml", "--recursive", "--quiet", *CODE)


def squawk() -> None:
    """Check the SQL of the migrations."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o711)  # the server is another user's
        for revision, statements in _statements(folder).items():
            file = folder / f"{revision}.sql"
            file.write_text("".join(f"{statement.strip()};\n" for statement in statements))
            runs_alone = any("pg_stat_activity" in statement for statement in statements)
            excluded = [f"--exclude={','.join(_MATTERS_BESIDE_INSTANCES)}"] if runs_alone else []
            _run("squawk", "--config", str(MIGRATIONS / "squawk.toml"), *excluded, str(file))


def _statements(folder: Path) -> dict[str, list[str]]:
    """Return what each revision executes, seen on a server: some read there what they change."""
    found, waiting = defaultdict[str, list[str]](list), list[str]()

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if done := _DONE.match(statement):
            found[done[1]] += waiting
            waiting.clear()
        elif "CREATE TABLE alembic_version" not in statement:
            waiting.append(statement)

    with Postgres(folder / "postgres", durable=False) as server:
        event.listen(Engine, "before_cursor_execute", note)
        postgres.migrate(server.owner_dsn, "upgrade", "head")
        event.remove(Engine, "before_cursor_execute", note)
    return found


def pip_audit() -> bool:
    """Check the pins; returns False where the data on known vulnerabilities is out of reach."""
    # By itself it ends with 0 where it could ask about no package.
    output = _run("pip-audit", "--requirement", "requirements.txt", "--no-deps", "--disable-pip", "--format", "json")
    packages: list[dict[str, Any]] = json.loads(output)["dependencies"]
    return bool(packages) and not any("skip_reason" in package for package in packages)


def run() -> dict[str, dict[str, int] | None]:
    """Return that each tool finds nothing, None of one that could not look; exits where one finds something."""
    bandit()
    squawk()
    measured = pip_audit()
    if not measured:
        print("pip-audit has no data here: it asks pypi.org about each package", file=sys.stderr)
    nothing = {"findings": 0}
    return {"bandit": nothing, "squawk": nothing, "pip-audit": nothing if measured else None}
