"""`python -m bench`: measure, then write results.json, results.md and results.svg. `--report`: only the last two.

The full profile writes into this folder. The short one writes into `.local/bench`: its figures say little.
"""

import json
import os
import shutil
import sys

from bench import measure, report, stack
from devstack import local


def main() -> None:
    rows = os.environ.get("ROWS")
    profiles = measure.plans(int(rows) if rows else None)
    plan = profiles.get(os.environ.get("PROFILE") or "full")
    if plan is None:
        sys.exit(f"PROFILE is one of {', '.join(profiles)}")
    folder = report.FOLDER if plan.name == "full" else local.FOLDER / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    if "--report" not in sys.argv:
        if shutil.which("wrk") is None:
            sys.exit("wrk is needed: apt-get install wrk")
        stack.pin_load()
        with stack.running() as stores:
            found = measure.run(plan, stores, lambda line: print(line, file=sys.stderr, flush=True))
        (folder / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    print(report.write(folder))


if __name__ == "__main__":
    main()
