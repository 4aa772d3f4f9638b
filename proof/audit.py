"""Static checks for security: bandit on the code, squawk on the migrations, pip-audit on the pins.

A finding is mended, or stands in reasons.toml with why it is none; a reason without its finding is an
error too, so that the list never grows stale.
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from devstack.local import ROOT

TOOLS = ROOT / ".venv-proof" / "bin"
REASONS = Path(__file__).with_name("reasons.toml")
CODE = ("function_app.py", "shared", "twins", "migrations", "devstack", "infra", "docs")


def _run(tool: str, *arguments: str) -> str:
    """Return what a tool writes on standard output; each of ours ends with 0 or, where it found something, 1."""
    done = subprocess.run([TOOLS / tool, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        sys.exit(f"{tool} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def bandit() -> Iterator[str]:
    """Yield the findings in our Python code, as `rule file`."""
    for found in json.loads(_run("bandit", "--recursive", "--quiet", "--format", "json", *CODE))["results"]:
        yield f"{found['test_id']} {found['filename'].removeprefix('./')}"


def squawk() -> Iterator[str]:
    """Yield the findings in the SQL of the migrations, as `rule file`."""
    versions = ROOT / "migrations" / "versions"
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for module in iter_modules([str(versions)]):
            statements = import_module(f"migrations.versions.{module.name}")._UP  # noqa: SLF001 - its SQL
            file = Path(folder) / f"{module.name}.sql"
            file.write_text("".join(f"{statement.strip()};\n" for statement in statements))
            files.append(str(file))
        for found in json.loads(_run("squawk", "--reporter", "json", "--pg-version", "18", *files) or "[]"):
            yield f"{found['rule_name']} {Path(found['file']).stem}"


def pip_audit() -> Iterator[str] | None:
    """Return the known vulnerabilities of the pins as `id package`, None where their data is out of reach."""
    output = _run("pip-audit", "--requirement", "requirements.txt", "--no-deps", "--disable-pip", "--format", "json")
    packages: list[dict[str, Any]] = json.loads(output or '{"dependencies": []}')["dependencies"]
    if not packages or any("skip_reason" in package for package in packages):
        print("pip-audit has no data here: it asks pypi.org about each package", file=sys.stderr)
        return None
    return (f"{found['id']} {package['name']}" for package in packages for found in package.get("vulns", ()))


def run() -> dict[str, dict[str, int] | None]:
    """Return the number of findings of each tool, all reasoned; exits where one is not."""
    reasons: dict[str, dict[str, str]] = tomllib.loads(REASONS.read_text())
    figures: dict[str, dict[str, int] | None] = {}
    wrong = []
    for tool, findings in (("bandit", bandit()), ("squawk", squawk()), ("pip-audit", pip_audit())):
        if findings is None:
            figures[tool] = None
            continue
        known, found = reasons.get(tool, {}), list(findings)
        wrong += [f"{tool}: {one}" for one in sorted(set(found)) if not one.startswith(tuple(known))]
        wrong += [
            f"{tool}: gone, drop its reason: {it}" for it in known if not any(one.startswith(it) for one in found)
        ]
        figures[tool] = {"findings": len(found)}
    if wrong:
        sys.exit("\n".join(wrong))
    return figures
