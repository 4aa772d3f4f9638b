"""Static checks for security: bandit on the code, squawk on the migrations, pip-audit on the pins.

What they find is fixed, or ignored with a reason: in `[tool.bandit]` of pyproject.toml, in
migrations/squawk.toml, or where it stands.
"""

import json
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from devstack.local import ROOT

TOOLS = ROOT / ".venv-proof" / "bin"
CODE = ("function_app.py", "shared", "twins", "migrations", "devstack", "infra", "docs")
MIGRATIONS = ROOT / "migrations"


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
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for module in iter_modules([str(MIGRATIONS / "versions")]):
            statements = import_module(f"migrations.versions.{module.name}")._UP  # noqa: SLF001 - its SQL
            file = Path(folder) / f"{module.name}.sql"
            file.write_text("".join(f"{statement.strip()};\n" for statement in statements))
            files.append(str(file))
        _run("squawk", "--config", str(MIGRATIONS / "squawk.toml"), *files)


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
