"""Verify an exported ledger with the standard library alone: `python verify_ledger.py FILE …`.

Each FILE is a page of the ledger, in order; or one is the payload of an erasure certificate.
"""

import hashlib
import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Any


def first_flaw(events: list[dict[str, Any]], head: str) -> str | None:
    """Return what is wrong with the first event of a twin that is not as it was written."""
    followers = [event["prev_hash"] for event in events[1:]] + [head]
    for place, (event, follower) in enumerate(zip(events, followers, strict=True), 1):
        if event["seq"] != place or (place == 1 and event["prev_hash"] != "0" * 64):
            return f"event {place} is missing or not the one that was written"
        text = json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        if hashlib.sha256(text.encode()).hexdigest() != follower:
            return f"event {place} is not as it was written, or what came after it is missing"
    return None


def main(*files: str) -> str | None:
    """Return what is wrong with the files, or None."""
    pages = [json.loads(Path(file).read_text(encoding="utf-8")) for file in files]
    items = [item for page in pages for item in page.get("items", [])]
    events = [item["event"] for item in items] or pages[0]["events"]
    heads = {item["event"]["twin_id"]: item["hash"] for item in items}  # of each twin, the last
    heads |= {ledger["twin_id"]: ledger["head"] for ledger in pages[0].get("ledgers", [])}
    for twin_id, group in groupby(events, key=lambda event: event["twin_id"]):
        if flaw := first_flaw(list(group), heads[twin_id]):
            return f"{twin_id}: {flaw}"
    return None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
