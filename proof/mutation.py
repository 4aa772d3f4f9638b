"""`python -m proof mutation`: change the logic in small ways, one at a time, and see whether a test fails.

The changes are mutmut's. They are made in copies under `.local/mutation`, in two parts: what is pure,
against its unit tests, and what is seen over HTTP, against tests on stores that are started once. What
survives is listed with the reason from mutants.toml where it is one: most often that the changed
program does the same. There is no gate: a score says where tests are missing, not that none is.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devstack import local
from devstack.local import ROOT
from tests.stores import running_stores

FOLDER = local.FOLDER / "mutation"
MUTMUT = local.FOLDER / "mutation-venv" / "bin" / "mutmut"
REASONS = Path(__file__).with_name("mutants.toml")

NEEDED = ("shared", "twins", "tests", "devstack", "infra", "proof", "function_app.py", "host.json", "pyproject.toml")
"""What the tests import and read."""
_NAME = re.compile(r"(?P<module>[\w.]+)\.x(?:_|ǁ(?P<owner>\w+)ǁ)(?P<function>\w+)__mutmut_\d+")
_RESULT = re.compile(r"^ +(\S+): (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Part:
    """Mutants, by patterns of their names, and the tests that have to fail for each."""

    mutants: tuple[str, ...]
    tests: tuple[str, ...]
    arguments: tuple[str, ...] = ()

    @property
    def files(self) -> list[str]:
        """The files that have them."""
        found = (re.split(r"\.x_|\.xǁ|\.\*", mutant)[0] for mutant in self.mutants)
        return sorted({f"{module.replace('.', '/')}.py" for module in found})


PURE = Part(
    mutants=(
        "shared.digests.*",
        "shared.merge_patch.*",
        "shared.paging.*",
        "shared.preconditions.*",
        "shared.strict_json.*",
        "shared.text.*",
        "twins.consent.ledger.*",
        "twins.consent.service.xǁTermsǁsealed*",
    ),
    tests=(
        "tests/shared/test_digests.py",
        "tests/shared/test_merge_patch.py",
        "tests/shared/test_paging.py",
        "tests/shared/test_preconditions.py",
        "tests/shared/test_strict_json.py",
        "tests/shared/test_text.py",
        "tests/consent/test_chain.py",
    ),
)
SERVED = Part(
    mutants=(
        "shared.idempotency.*",
        "twins.consent.models.*",
        "twins.consent.service.x_decide*",
        "twins.consent.service.x_grant*",
        "twins.consent.service.x__general*",
        "twins.consent.service.x_withdraw_general*",
        "twins.consent.service.x_chain_of*",
        "twins.consent.service.x_entry*",
    ),
    tests=(
        "tests/shared/test_idempotency.py",
        "tests/consent/test_gate.py",
        "tests/consent/test_consents.py",
        "tests/consent/test_moments.py",
        "tests/consent/test_ledger.py",
        "tests/erasure/test_erasure.py::test_the_answer_to_a_repeated_request_is_that_it_was_erased",
    ),
    # One front, since both have the same logic behind them; no ledger of 100,000 events for each mutant.
    arguments=("-p", "proof.lent_stores", "-k", "not functions and not hundred_thousand and not far_into"),
)


def _prepare(name: str, part: Part) -> Path:
    """Make a folder that mutmut takes for a project."""
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for needed in NEEDED:
        (folder / needed).symlink_to(ROOT / needed)
    options: dict[str, Sequence[str]] = {
        "source_paths": ("shared", "twins"),
        "only_mutate": part.files,
        "also_copy": [needed for needed in NEEDED if needed not in ("shared", "twins")],
        "pytest_add_cli_args": part.arguments,
        "pytest_add_cli_args_test_selection": part.tests,
    }
    lines = [f"{option} =\n  " + "\n  ".join(values) for option, values in options.items() if values]
    # Mutants are forked from a process that has imported the tests and run none: no thread, no open store.
    lines += ["process_isolation = forkserver", "timeout_multiplier = 5", "use_git_change_detection = false"]
    (folder / "setup.cfg").write_text("\n".join(["[mutmut]", *lines, ""]))
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


def _test(name: str, part: Part) -> Iterator[tuple[str, str, str]]:
    """Try every mutant of a part; yield its module, its outcome and, of a survivor, what it is."""
    print(f"mutation: {name} …", file=sys.stderr, flush=True)
    folder = _prepare(name, part)
    # One at a time: those that share the stores must not meet.
    _mutmut(folder, "run", "--max-children", "1", *part.mutants)
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
