"""`python -m bench.compare`: is this tree as fast as an earlier revision?

Environment: `BASE`, the revision; `FLOOR`, the ratio that no workload may be below; `ROUNDS`. Exit
code 1 where one is. Both sides run their own code in their own environment on a database of their
own, in turn, and are judged by the processor time that the serving process spends on a request.
"""

import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from statistics import median

from bench import measure, report, stack
from bench.stack import OURS, App, Tree
from bench.workloads import Workloads
from devstack import local

WORKLOADS = ("gate", "get", "create", "batch of 100")
FLOOR = 0.97
ROUNDS, SECONDS = 9, 2
ROWS = 10_000
FOLDER = local.FOLDER / "bench"

type Outcomes = dict[str, dict[str, list[dict[str, float]]]]
"""What each round has measured, by workload and side."""


def checkout(revision: str) -> Tree:
    """Copy a revision, and install its requirements as it does; what is there already is used again."""
    name = _git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}").decode().strip()
    folder = FOLDER / name
    if not folder.exists():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        with tarfile.open(fileobj=io.BytesIO(_git("archive", "--format=tar", name))) as files:
            files.extractall(part, filter="data")
        part.rename(folder)  # complete
    subprocess.run(["make", "--no-print-directory", ".venv/.ready"], cwd=folder, check=True)
    return Tree(folder, str(folder / ".venv" / "bin" / "python"))


def _git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=OURS.folder, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(f"git {arguments[0]} failed")
    return done.stdout


def compare(before: Tree, after: Tree, names: Sequence[str] = WORKLOADS, rounds: int = ROUNDS) -> Outcomes:
    """Load both sides with the same requests, in turn."""
    with stack.running() as stores:
        databases = [stores.database(ROWS, tree, name) for tree, name in ((before, "before"), (after, "after"))]
        with App("ours", databases[0], before) as old, App("ours", databases[1], after) as new:
            sides = {"before": (old, Workloads(old)), "after": (new, Workloads(new))}
            for app, work in sides.values():
                app.run(work.of(app, "get"), SECONDS, measure.CONNECTIONS)
            return {
                name: measure.rounds(
                    rounds, SECONDS, {side: (app, work.of(app, name)) for side, (app, work) in sides.items()}
                )
                for name in names
            }


def ratios(sides: dict[str, list[dict[str, float]]]) -> list[float]:
    """Return each round's processor time before, in that after: below 1 is slower than before."""
    return [old["cpu_us"] / new["cpu_us"] for old, new in zip(sides["before"], sides["after"], strict=True)]


def verdict(outcomes: Outcomes, floor: float) -> tuple[str, bool]:
    """Return a table, and whether every workload's median is at the floor or above it."""
    found = {name: ratios(sides) for name, sides in outcomes.items()}
    rows = (
        (
            name,
            *(f"{report.figure(outcomes[name][side], 'cpu_us'):.0f}" for side in ("before", "after")),
            f"{median(each):.3f}",
            f"{min(each):.3f} to {max(each):.3f}",
            "" if median(each) >= floor else f"below {floor}",
        )
        for name, each in found.items()
    )
    head = ("workload", "before, µs", "after, µs", "before / after", "rounds", "")
    return "\n".join(report.table(head, rows)), all(median(each) >= floor for each in found.values())


def main() -> int:
    base = os.environ.get("BASE")
    if not base:
        sys.exit("BASE= is the revision to compare with, such as main or HEAD~1")
    floor, rounds = float(os.environ.get("FLOOR") or FLOOR), int(os.environ.get("ROUNDS") or ROUNDS)
    before = checkout(base)
    stack.pin_load()
    table, holds = verdict(compare(before, OURS, rounds=rounds), floor)
    print(table)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
