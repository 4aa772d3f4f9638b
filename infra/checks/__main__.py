"""`python -m infra.checks [--write]`: check the templates as far as possible without Azure.

Rules run on the stored snapshots. Digests show whether the snapshots belong to the current templates. A Bicep
compiler, if there is one on PATH or at BICEP, compiles, lints and formats the templates and evaluates new snapshots.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from infra.checks import rules
from infra.checks.deployment import FOLDER, read

DIGESTS = "snapshots.sha256"
FIRST_DEPLOYMENT = {
    "TWINS_JWT_SECRET": "given",  # nosec B105  # a stand-in
    "TWINS_DIGEST_KEY": "given",
    "TWINS_RECEIPT_KEY": "given",
    "TWINS_GITHUB_REPOSITORY": "owner/name",
    "TWINS_OPERATOR_NAME": "operator@example.com",
    "TWINS_OPERATOR_OBJECT_ID": "00000000-0000-0000-0000-000000000001",
    "TWINS_OPERATOR_ADDRESS": "192.0.2.1",
    "TWINS_PUBLIC_URL": "https://twins.example",
    "TWINS_ROLLING_UPDATES": "true",
}
"""Stand-ins for the variables of the parameter files. A later deployment may set none of them."""

PLACE = ["--subscription-id", "00000000-0000-0000-0000-000000000000", "--resource-group", "twins"]
PLACE += ["--location", "westeurope", "--deployment-name", "twins"]  # without a place, names stay expressions


def main() -> int:
    """Print one line for each check and each problem; return 1 if there is a problem."""
    parser = argparse.ArgumentParser(prog="python -m infra.checks", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the snapshots and their digests first")
    write_first, named = parser.parse_args().write, os.environ.get("BICEP")
    bicep = shutil.which(named or "bicep")
    if bicep is None and (write_first or named):
        sys.exit(f"{named or 'bicep'}: no such program. Put the Bicep compiler on PATH, or its path into BICEP.")
    if bicep and write_first:
        write(bicep, FOLDER)
    checks = {"the snapshots are of these templates": stale(FOLDER), "rules": broken(FOLDER)}
    if bicep:
        checks["compiled, linted, formatted, evaluated anew"] = compiled(bicep, FOLDER)
    for name, problems in checks.items():
        print(f"{'FAILED' if problems else 'ok':8}{name}", *problems, sep="\n        ")
    if not bicep:
        print("        no Bicep compiler: nothing was compiled")
    return int(any(checks.values()))


def write(bicep: str, folder: Path) -> None:
    """Write a snapshot of each parameter file, its keys sorted, and the digests of all."""
    for parameters in folder.glob("*.bicepparam"):
        done = _snapshot(bicep, parameters, FIRST_DEPLOYMENT)
        if done.returncode:
            sys.exit(done.stderr)
        path = parameters.with_suffix(".snapshot.json")
        path.write_text(json.dumps(json.loads(path.read_text()), indent=2, sort_keys=True) + "\n")
    (folder / DIGESTS).write_text(digests(folder))


def digests(folder: Path) -> str:
    """Return the SHA-256 of each template and each snapshot, as `sha256sum` writes them."""
    files = sorted({*_templates(folder), *folder.glob("*.snapshot.json")})
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n" for path in files)


def stale(folder: Path) -> list[str]:
    """Return the files that have changed since the snapshots were written."""
    changed = set(digests(folder).splitlines()) ^ set((folder / DIGESTS).read_text().splitlines())
    names = sorted({line.partition("  ")[2] for line in changed})
    return [f"{name} has changed: `make infra-snapshot`, with a Bicep compiler" for name in names]


def broken(folder: Path) -> list[str]:
    """Return the broken rules of each snapshot."""
    snapshots = sorted(folder.glob("*.snapshot.json"))
    return [f"{path.name}: {problem}" for path in snapshots for problem in rules.problems(read(path))]


def compiled(bicep: str, folder: Path) -> list[str]:
    """Return the compiler's findings, the differences of the snapshots, and the broken rules of a later deployment."""
    built = _run(bicep, folder, {}, "build", "main.bicep", "--stdout")
    found = _said(built)
    if built.returncode == 0:
        found += misdeclared(json.loads(built.stdout), "main")
        for parameters in sorted(folder.glob("*.bicepparam")):
            found += _said(_snapshot(bicep, parameters, FIRST_DEPLOYMENT, "--mode", "validate"))
        with TemporaryDirectory() as copy:
            found += _anew(bicep, folder, Path(shutil.copytree(folder, copy, dirs_exist_ok=True)))
    return list(dict.fromkeys(found))


def misdeclared(template: dict[str, Any], name: str) -> Iterator[str]:
    """Yield each part of a compiled template and its modules without @description, and each secret without @secure."""
    for entry, declared in {**template.get("parameters", {}), **template.get("outputs", {})}.items():
        if "description" not in declared.get("metadata", {}):
            yield f"{name}: {entry} has no @description"
        # Of names, the linter knows `secret` and `password` only.
        if re.search("(?i)(secret|password|key)$", entry) and declared["type"] != "securestring":
            yield f"{name}: {entry} is not @secure, so its value stays in the deployment's history"
    resources = template["resources"]
    for resource in resources.values() if isinstance(resources, dict) else resources:
        if module := resource.get("properties", {}).get("template"):
            yield from misdeclared(module, resource["name"])


def _anew(bicep: str, folder: Path, copy: Path) -> Iterator[str]:
    _run(bicep, copy, {}, "format", "--pattern", "**/*.bicep*").check_returncode()
    for path in _templates(folder):
        if path.read_bytes() != (copy / path.relative_to(folder)).read_bytes():
            yield f"{path.relative_to(folder)} is not as `bicep format` writes it"
    for parameters in copy.glob("*.bicepparam"):
        yield from _said(_snapshot(bicep, parameters, {}))
    yield from (f"later deployment, {problem}" for problem in broken(copy))


def _templates(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.bicep*"))


def _snapshot(bicep: str, parameters: Path, given: dict[str, str], *mode: str) -> subprocess.CompletedProcess[str]:
    return _run(bicep, parameters.parent, given, "snapshot", parameters.name, *PLACE, *mode)


def _run(bicep: str, folder: Path, given: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TWINS_")}
    command = [bicep, *arguments]
    return subprocess.run(command, cwd=folder, env=kept | given, capture_output=True, text=True, check=False)  # noqa: S603


def _said(done: subprocess.CompletedProcess[str]) -> list[str]:
    if done.returncode:
        return [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    return [line for line in done.stderr.splitlines() if " : Info " not in line]


if __name__ == "__main__":
    sys.exit(main())
