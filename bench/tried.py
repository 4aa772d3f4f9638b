"""What a change to the application was worth: `python -m bench.tried "what" kept|dropped BEFORE AFTER`.

Both are folders with the whole project, such as two worktrees. The outcome is added to tried.json.
"""

import json
import sys
from pathlib import Path
from typing import Any

from bench import measure, report, stack
from bench.stack import App
from bench.workloads import Workloads

WORKLOADS = ("gate", "get", "create")
ROUNDS, SECONDS = 9, 1


def compare(before: Path, after: Path) -> dict[str, Any]:
    """Run the same requests against both, in turn."""
    with stack.running() as stores:
        database = stores.database(10_000)
        with App("ours", database, before) as old, App("ours", database, after) as new:
            work = Workloads(old)
            for app in (old, new):
                app.run(work.of(app, "get"), SECONDS, measure.CONNECTIONS)
            return {
                name: measure.rounds(
                    ROUNDS, SECONDS, {"before": (old, work.of(old, name)), "after": (new, work.of(new, name))}
                )
                for name in WORKLOADS
            }


def main(change: str, verdict: str, before: str, after: str) -> None:
    stack.pin_load()
    outcome = {"change": change, "kept": verdict == "kept", "workloads": compare(Path(before), Path(after))}
    earlier = json.loads(report.TRIED.read_text()) if report.TRIED.exists() else []
    tried = [one for one in earlier if one["change"] != change]
    report.TRIED.write_text(json.dumps([*tried, outcome], indent=1) + "\n")
    print(f"{change}: added to {report.TRIED.name}; make bench-report puts it on the page.")


if __name__ == "__main__":
    main(*sys.argv[1:])
