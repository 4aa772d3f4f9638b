"""`python -m infra.checks [--checkov PATH]`: every check of the templates that needs no Azure.

Parses each file by pycep, evaluates the templates with both parameter files, runs the rules, and, where
given, checkov. With a Bicep compiler on PATH it also compiles, lints, and runs the rules on the result.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from infra.checks import arm, rules, sources
from infra.checks.bicep import BicepSyntaxError
from infra.checks.evaluate import deployment
from infra.checks.resources import Deployment

FOLDER = Path(__file__).resolve().parent.parent

ENVIRONMENT = {
    "TWINS_JWT_SECRET": "given",
    "TWINS_DIGEST_KEY": "given",
    "TWINS_RECEIPT_KEY": "given",
    "TWINS_GITHUB_REPOSITORY": "owner/name",
    "TWINS_OPERATOR_NAME": "operator@example.com",
    "TWINS_OPERATOR_OBJECT_ID": "00000000-0000-0000-0000-000000000001",
    "TWINS_OPERATOR_ADDRESS": "192.0.2.1",
    "TWINS_PUBLIC_URL": "https://twins.example",
}
"""Of a first deployment; with none of it the templates are those of a later one."""


def say(line: str) -> None:
    """Write one line to standard output."""
    sys.stdout.write(f"{line}\n")


def main() -> int:
    """Print one line a check and each problem; return 1 where there is one."""
    arguments = argparse.ArgumentParser(prog="python -m infra.checks", description=__doc__)
    arguments.add_argument("--checkov", type=Path, help="the checkov program, in an environment of its own")
    checkov: Path | None = arguments.parse_args().checkov
    checks: dict[str, Callable[[], list[str]]] = {
        "pycep parses every file": lambda: parsed(FOLDER),
        "sources": lambda: sources.problems(FOLDER),
        "rules, as Bicep": lambda: evaluated(FOLDER),
    }
    if checkov is not None:
        checks["checkov"] = lambda: run_checkov(checkov, FOLDER)
    if compiler := find_compiler():
        checks["compiled, linted; rules, as ARM JSON"] = lambda: compiled(compiler, FOLDER)
    failed = False
    for name, check in checks.items():
        found = check()
        say(f"{'FAILED' if found else 'ok':8}{name}")
        for problem in found:
            say(f"        {problem}")
        failed = failed or bool(found)
    if not compiler:
        say("        no Bicep compiler on PATH: nothing was compiled")
    return int(failed)


def parsed(folder: Path) -> list[str]:
    """Return the files that pycep cannot parse: checkov, which uses it, would silently pass them."""
    from pycep import BicepParser  # noqa: PLC0415 - it builds its grammar, for 12 s, when first used

    parser, problems = BicepParser(), list[str]()
    for path in sorted(folder.rglob("*.bicep")):
        try:
            parser.parse(text=path.read_text())
        except Exception as error:  # noqa: BLE001 - whatever it raises
            problems.append(f"{path.relative_to(folder)}: {error}".splitlines()[0])
    return problems


def evaluated(folder: Path) -> list[str]:
    """Return what breaks a rule, for each parameter file, first and later deployment."""
    return [
        f"{path.name}, {when}: {problem}"
        for path in sorted(folder.glob("*.bicepparam"))
        for when, environment in (("later", {}), ("first", ENVIRONMENT))
        for problem in _evaluated(path, environment)
    ]


def _evaluated(path: Path, environment: dict[str, str]) -> list[str]:
    try:
        return rules.problems(deployment(path, environment))
    except BicepSyntaxError as error:
        return [str(error)]


def run_checkov(program: Path, folder: Path) -> list[str]:
    """Return what checkov finds. It exits 0 when it cannot parse a file, so its report is read."""
    command = [str(program), "--directory", str(folder), "--framework", "bicep", "--output", "json"]
    done = subprocess.run([*command, "--skip-download"], capture_output=True, text=True, check=False)  # noqa: S603
    try:
        report: dict[str, Any] = json.loads(done.stdout)
        summary, results = report["summary"], report["results"]
    except (ValueError, KeyError, TypeError):
        return [f"no report: {(done.stderr or done.stdout).strip()[-500:]}"]
    problems = [
        f"{found['check_id']} {found['check_name']}: {found['resource']} in {found['file_path']}"
        for found in results["failed_checks"]
    ]
    if summary["parsing_errors"]:
        problems.append(f"{summary['parsing_errors']} files could not be parsed")
    if not summary["passed"]:
        problems.append("nothing was checked")
    return problems


def find_compiler() -> list[str] | None:
    """Return the command of a Bicep compiler on PATH, None where there is none."""
    if bicep := shutil.which("bicep"):
        return [bicep]
    if az := shutil.which("az"):
        done = subprocess.run([az, "bicep", "version"], capture_output=True, check=False)  # noqa: S603
        return [az, "bicep"] if done.returncode == 0 else None
    return None


def compiled(compiler: list[str], folder: Path) -> list[str]:
    """Return what the compiler and its linter say, and what breaks a rule in what they make."""
    return list(_compiled(compiler, folder))


def _compiled(compiler: list[str], folder: Path) -> Iterator[str]:
    azure_cli = compiler[-1] == "bicep" and len(compiler) > 1

    def run(verb: str, path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        file = ["--file", str(path)] if azure_cli else [str(path)]
        output = [] if verb == "lint" else ["--stdout"]
        command = [*compiler, verb, *file, *output]
        return subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, check=False, env={**os.environ, **environment}
        )

    linted = run("lint", folder / "main.bicep")
    yield from (line for line in linted.stderr.splitlines() if "Error" in line or "Warning" in line)
    built = run("build", folder / "main.bicep")
    if built.returncode:
        yield built.stderr.strip()
        return
    for path in sorted(folder.glob("*.bicepparam")):
        done = run("build-params", path, **ENVIRONMENT)
        if done.returncode:
            yield done.stderr.strip()
            continue
        made: Deployment = arm.deployment(
            path.stem, json.loads(built.stdout), json.loads(json.loads(done.stdout)["parametersJson"])
        )
        yield from (f"{path.name}: {problem}" for problem in rules.problems(made))


if __name__ == "__main__":
    sys.exit(main())
