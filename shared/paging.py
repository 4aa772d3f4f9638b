"""Keyset paging: opaque cursors that carry the place, the order and the filters they belong to."""

import base64
import binascii
import hmac
import json
from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel

from shared.digests import Digests
from shared.errors import parameter_error
from shared.models import Digits

_SEAL_BYTES = 16

Limit = Annotated[int, Query(ge=1, le=100, description="The most items a page has."), Digits]
Cursor = Annotated[
    str | None,
    Query(max_length=2000, description="`next_cursor` of the page before, with the same filters."),
]


class Page[Item: BaseModel](BaseModel):
    """One page of a list; `next_cursor` is null on the last."""

    items: list[Item]
    next_cursor: str | None


def seal(digests: Digests, scope: str, place: list[Any]) -> str:
    """Return a cursor for `place` in the list that `scope` names (its owner, filters and order)."""
    body = json.dumps(place, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_seal(digests, scope, body) + body).decode().rstrip("=")


def unseal(digests: Digests, scope: str, cursor: str) -> list[Any]:
    """Return the place that a cursor names.

    Raises:
        ValidationFailed: it was altered, or belongs to another list or other filters.
    """
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_")
    except (binascii.Error, ValueError):
        raw = b""
    given, body = raw[:_SEAL_BYTES], raw[_SEAL_BYTES:]
    canonical = base64.urlsafe_b64encode(raw).decode().rstrip("=") == cursor
    if not canonical or not hmac.compare_digest(given, _seal(digests, scope, body)):
        raise parameter_error("cursor", "is not a cursor of this list with these filters")
    place: list[Any] = json.loads(body)
    return place


def _seal(digests: Digests, scope: str, body: bytes) -> bytes:
    return digests.digest("cursor", f"{scope}\n".encode() + body)[:_SEAL_BYTES]
