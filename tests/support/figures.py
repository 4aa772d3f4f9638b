"""What tests measure, for docs/PROOF.md: one JSON line each in `$FIGURES/<name>.jsonl`, nothing without FIGURES."""

import json
import os
from pathlib import Path
from typing import Any


def record(name: str, figures: dict[str, Any]) -> None:
    """Add `figures` to those called `name`."""
    if folder := os.environ.get("FIGURES"):
        with (Path(folder) / f"{name}.jsonl").open("a") as lines:
            lines.write(json.dumps(figures) + "\n")
