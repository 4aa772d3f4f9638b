"""`python -m bench`: measure, then write results.json, results.md and results.svg. `--report`: only the last two.

AGAIN names parts of the last run to measure anew. The full profile writes into this folder. The short one writes into
`.local/bench`: its figures say little.
"""

import json
import os
import shutil
import sys
from functools import partial
from typing import Any

from bench import measure, report, stack
from devstack import local


def main() -> None:
    rows = os.environ.get("ROWS")
    profiles = measure.plans(int(rows) if rows else None)
    plan = profiles.get(os.environ.get("PROFILE") or "full")
    if plan is None:
        sys.exit(f"PROFILE is one of {', '.join(profiles)}")
    again = os.environ.get("AGAIN", "").split()
    if not measure.PARTS.keys() >= set(again):
        sys.exit(f"AGAIN names some of {', '.join(measure.PARTS)}")
    folder = report.FOLDER if plan.name == "full" else local.FOLDER / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    if "--report" not in sys.argv:
        if shutil.which("wrk") is None:
            sys.exit("wrk is needed: apt-get install wrk")
        stack.pin_load()
        results = folder / "results.json"
        found: dict[str, Any] = json.loads(results.read_text()) if again else {}
        with stack.running() as stores:
            say = partial(print, file=sys.stderr, flush=True)
            found |= measure.again(again, found, plan, stores, say) if again else measure.run(plan, stores, say)
        results.write_text(json.dumps(found, indent=1) + "\n")
    print(report.write(folder))


if __name__ == "__main__":
    main()
