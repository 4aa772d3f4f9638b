"""The `Accept` header (RFC 9110 §12.5.1)."""

import re
from collections.abc import Sequence

_QUALITY = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")
"""RFC 9110 §12.4.2."""


def preferred(accept: str | None, offered: Sequence[str]) -> str | None:
    """Return the media type in `offered` that `accept` prefers, the first of equals, or None if it allows none."""
    if accept is None or not accept.strip():
        return offered[0]
    ranges = []
    for item in accept.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = next((part[2:] for part in parameters if part.startswith("q=")), "1")
        if _QUALITY.fullmatch(quality):  # an unreadable range allows nothing
            ranges.append((name, float(quality)))

    def quality_of(media_type: str) -> float:
        kind = media_type.partition("/")[0]
        for wanted in (media_type, f"{kind}/*", "*/*"):  # the most specific range decides
            found = [quality for name, quality in ranges if name == wanted]
            if found:
                return max(found)
        return 0.0

    best = max(offered, key=quality_of)
    return best if quality_of(best) > 0 else None
