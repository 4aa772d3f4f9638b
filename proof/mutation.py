"""`python -m proof mutation`: change the logic in small ways, one at a time, and see whether a test fails.

The changes are mutmut's, which pyproject.toml configures. They are made in copies under
`.local/mutation`, in two parts: what is pure, against its unit tests, and what is seen over HTTP,
against tests on stores that are started once. What survives is listed with the reason from
mutants.toml where it is one: most often that the changed program does the same. There is no gate: a
score says where tests are missing, not that none is.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from devstack import local
from devstack.local import ROOT
from tests.support.stores import running_stores

FOLDER = local.FOLDER / "mutation"
MUTMUT = local.FOLDER / "mutation-venv" / "bin" / "mutmut"
REASONS = Path(__file__).with_name("mutants.toml")

_NAME = re.compile(r"(?P<module>[\w.]+)\.x(?:_|ǁ(?P<owner>\w+)ǁ)(?P<function>\w+)__mutmut_\d+")
_RESULT = re.compile(r"^ +(\S+): (.+)$", re.MULTILINE)


PURE = (
    "shared.digests.*",
    "shared.http.conditional.x_etag*",
    "shared.http.conditional.x__tags*",
    "shared.http.conditional.x_is_not_modified*",
    "shared.http.conditional.xǁPreconditionsǁ*",
    "shared.http.conditional.x__preconditions*",
    "shared.http.merge_patch.*",
    "shared.http.paging.x_seal*",
    "shared.http.paging.x_unseal*",
    "shared.http.paging.x__seal*",
    "shared.http.strict_json.*",
    "shared.http.text.*",
    "twins.ledger.chain.*",
)
"""Mutants that tests without a store have to find, by patterns of their names."""
SERVED = (
    "shared.http.idempotency.*",
    "twins.consent.acts.*",
    "twins.consent.models.*",
    "twins.consent.terms.*",
    "twins.decision.service.*",
    "twins.ledger.models.*",
    "twins.refusal.service.*",
)


def _prepare(name: str) -> Path:
    """Make a folder that mutmut takes for a project."""
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    options = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mutmut"]
    for needed in (*options["source_paths"], *options["also_copy"], "tests", "pyproject.toml"):
        (folder / needed).symlink_to(ROOT / needed)
    return folder


def _mutmut(folder: Path, *arguments: str) -> str:
    done = subprocess.run([MUTMUT, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"mutmut {arguments[0]} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


def _change(folder: Path, mutant: str) -> str:
    """Return what a mutant changes, as `before → after`."""
    lines = _mutmut(folder, "show", mutant).splitlines()
    changed = [line for line in lines if line.startswith(("-", "+")) and not line.startswith(("---", "+++"))]
    sides = (" ".join(line[1:].strip() for line in changed if line[0] == sign) for sign in "-+")
    return " → ".join(sides)


def _test(name: str, mutants: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Try every mutant of a part; yield its module, its outcome and, of a survivor, what it is."""
    print(f"mutation: {name} …", file=sys.stderr, flush=True)
    folder = _prepare(name)
    # One at a time: those that share the stores must not meet.
    _mutmut(folder, "run", "--max-children", "1", *mutants)
    for mutant, outcome in _RESULT.findall(_mutmut(folder, "results", "--all", "true")):
        if outcome == "not checked":
            continue
        match = _NAME.fullmatch(mutant)
        if match is None:
            sys.exit(f"mutmut names a mutant in a new way: {mutant}")
        if outcome in ("killed", "timeout"):
            yield match["module"], outcome, ""
        else:
            function = ".".join(part for part in (match["module"], match["owner"], match["function"]) if part)
            yield match["module"], "survived", f"{function}: {_change(folder, mutant)}"


def run() -> dict[str, Any]:
    """Return how many mutants of each module were killed, and which were not."""
    found = list(_test("pure", PURE))
    with running_stores() as stores:
        os.environ["LENT_STORES"] = json.dumps(
            [str(stores.postgres.folder.parent), stores.postgres.port, stores.mongod.port]
        )
        found += _test("served", SERVED)
    counts = Counter((module, outcome) for module, outcome, _ in found)
    reasons: dict[str, str] = tomllib.loads(REASONS.read_text(encoding="utf-8"))
    survivors = sorted(text for *_, text in found if text)
    for stale in sorted(reasons.keys() - set(survivors)):
        print(f"mutation: no longer survives, drop its reason: {stale}", file=sys.stderr)
    return {
        "tool": _mutmut(FOLDER / "pure", "--version").strip(),
        "modules": {
            module: {
                "mutants": sum(count for (one, _), count in counts.items() if one == module),
                **{outcome: counts[module, outcome] for outcome in ("killed", "survived", "timeout")},
            }
            for module in sorted({module for module, *_ in found})
        },
        "survivors": [{"mutant": text, "reason": reasons.get(text)} for text in survivors],
    }
