"""Verify pages of a ledger, or an erasure certificate's payload, with Python alone: `verify_ledger.py FILE …`."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any


def flaw(items: list[dict[str, Any]], seq: int, head: str) -> str | None:
    """Return what is wrong with one twin's events, which have to end with the number and hash of its head."""
    before = "0" * 64
    for place, item in enumerate(items, 1):
        text = json.dumps(item["event"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        digest = hashlib.sha256(text.encode()).hexdigest()
        if item["event"]["seq"] != place:
            return f"event {place} is missing"
        if item.get("hash", digest) != digest:
            return f"event {place} is not as it was written"
        if item["event"]["prev_hash"] != before:
            return f"event {place} does not follow event {place - 1}"
        before = digest
    return None if (len(items), before) == (seq, head) else f"it does not end with event {seq}, {head}"


def main(pages: list[dict[str, Any]]) -> str | None:
    """Return what is wrong, or print the head of each ledger, to be compared with those that were kept."""
    items = [item for page in pages for item in page.get("items") or [{"event": e} for e in page.get("events") or []]]
    end = [{"twin_id": i["event"]["twin_id"], "seq": len(items), "head": i.get("hash")} for i in items[-1:]]
    events = "events" if pages[0].get("events", items) is not None else "events (which are not in it)"
    for ledger in pages[0].get("ledgers", end):
        own = [item for item in items if item["event"]["twin_id"] == ledger["twin_id"]]
        if events == "events" and (found := flaw(own, ledger["seq"], ledger["head"])):
            return f"{ledger['twin_id']}: {found}"
        sys.stdout.write(f"{ledger['twin_id']}: {ledger['seq']} {events}, head {ledger['head']}\n")
    return None


if __name__ == "__main__":
    sys.exit(main([json.loads(Path(file).read_text(encoding="utf-8")) for file in sys.argv[1:]]))
