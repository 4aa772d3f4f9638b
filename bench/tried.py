"""The worth of a change to the application: `python -m bench.tried "what" kept|dropped BEFORE AFTER`.

Both are folders with the whole project, such as two worktrees. The outcome is added to tried.json.
"""

import json
import sys
from pathlib import Path

from bench import report, stack
from bench.compare import compare
from bench.stack import Tree

WORKLOADS = ("gate", "get", "create")


def main(change: str, verdict: str, before: str, after: str) -> None:
    stack.pin_load()
    outcomes = compare(Tree(Path(before)), Tree(Path(after)), WORKLOADS)
    outcome = {"change": change, "kept": verdict == "kept", "workloads": outcomes}
    earlier = json.loads(report.TRIED.read_text()) if report.TRIED.exists() else []
    tried = [one for one in earlier if one["change"] != change]
    report.TRIED.write_text(json.dumps([*tried, outcome], indent=1) + "\n")
    print(f"{change}: added to {report.TRIED.name}; make bench-report puts it on the page.")


if __name__ == "__main__":
    main(*sys.argv[1:])
