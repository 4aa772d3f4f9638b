"""`python -m bench`: measure, then write results.json, results.md and results.svg. `--report`: only the last two.

AGAIN names the parts to measure anew, separated by semicolons: those of a run that has not ended, or of the last one.
The full profile writes into this folder. The short one writes into `.local/bench`: its figures say little.
"""

import json
import os
import shutil
import sys
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from bench import measure, report, stack
from bench.compare import FOLDER


def main() -> None:
    rows = os.environ.get("ROWS")
    profiles = measure.plans(int(rows) if rows else None)
    plan = profiles.get(os.environ.get("PROFILE") or "full")
    if plan is None:
        sys.exit(f"PROFILE is one of {', '.join(profiles)}")
    parts = measure.parts_of(plan)
    again = [name.strip() for name in os.environ.get("AGAIN", "").split(";") if name.strip()]
    if not set(again) <= set(parts):
        sys.exit(f"AGAIN names some of {'; '.join(parts)}")
    folder = report.FOLDER if plan.name == "full" else FOLDER
    FOLDER.mkdir(parents=True, exist_ok=True)
    if "--report" not in sys.argv:
        if shutil.which("wrk") is None:
            sys.exit("wrk is needed: apt-get install wrk")
        _measure(plan, parts, again, folder / "results.json")
    print(report.write(folder))


def _measure(plan: measure.Plan, parts: list[str], again: list[str], results: Path) -> None:
    """Measure all parts, or some again, and keep each as soon as it is there: a full run takes an hour."""
    stack.pin_load()
    started = time.monotonic()
    unfinished = FOLDER / f"unfinished-{plan.name}.json"
    before = unfinished if unfinished.exists() else results
    found: dict[str, Any] = json.loads(before.read_text()) if again else measure.about(plan)
    spent = found["seconds"]
    with stack.running() as stores:
        for part in measure.run(again or parts, plan, stores, partial(print, file=sys.stderr, flush=True)):
            found |= part | {"seconds": spent + round(time.monotonic() - started)}
            if again:
                found["again"] = found.get("again", {}) | dict.fromkeys(part, datetime.now(UTC).date().isoformat())
            unfinished.write_text(json.dumps(found))
    if missing := set(parts) - found.keys():
        sys.exit(f"Still to be measured, by AGAIN: {'; '.join(sorted(missing))}")
    results.write_text(json.dumps(found, indent=1) + "\n")
    unfinished.unlink()


if __name__ == "__main__":
    main()
