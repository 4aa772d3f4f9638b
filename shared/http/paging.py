"""Keyset paging: opaque, sealed cursors, each bound to one list, its account and its filters."""

import base64
import binascii
import hmac
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, Query, Request, Response
from pydantic import BaseModel
from starlette.datastructures import QueryParams

from shared.auth import User
from shared.context import Ctx
from shared.digests import Digests
from shared.http.fields import Digits
from shared.http.problems import parameter_error
from shared.http.routing import answer

_SEAL_BYTES = 16


class Page(BaseModel):
    """One page of a list; a subclass for each kind of item names the schema."""

    items: Sequence[BaseModel]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Pages:
    """The page that a request asks for; call `within` first, to name the list."""

    digests: Digests
    account: str
    path: str
    query: QueryParams
    limit: int
    cursor: str | None
    scope: str = ""

    def within(self, name: str, *parts: object) -> "Pages":
        """Bind cursors to the account's list `name` and to `parts`, such as filters."""
        return replace(self, scope=json.dumps([name, self.account, *map(str, parts)]))

    @property
    def fetch(self) -> int:
        """The number of rows to read: one more than the page has, to see whether another page follows."""
        return self.limit + 1

    def start[Place](self, read: Callable[[Any], Place]) -> Place | None:
        """Return the place of the last item before this page, or None on the first page; raises as `unseal`."""
        return None if self.cursor is None else read(unseal(self.digests, self.scope, self.cursor)[0])

    def page[Listed: Page](
        self,
        kind: type[Listed],
        found: Sequence[BaseModel],
        place: Callable[[Any], str | int],
        until: str | int | None = None,
    ) -> Listed:
        """Return the page of the rows that were found; `place` returns where the next page starts after an item.

        `until` is the place where the search ended before the end of the list: the page then may have fewer items.
        """
        items = list(found[: self.limit])
        after = place(items[-1]) if len(found) > self.limit else until
        return kind(items=items, next_cursor=None if after is None else seal(self.digests, self.scope, [after]))

    def answer(self, page: Page) -> Response:
        """Return a page as JSON, with the next page's address in `Link` (RFC 8288)."""
        if page.next_cursor is None:
            return answer(page)
        others = [(name, value) for name, value in self.query.multi_items() if name != "cursor"]
        following = urlencode([*others, ("cursor", page.next_cursor)])
        return answer(page, headers={"Link": f'<{self.path}?{following}>; rel="next"'})


async def _pages(
    request: Request,
    ctx: Ctx,
    user: User,
    limit: Annotated[int, Query(ge=1, le=100, description="The largest number of items on a page."), Digits] = 20,
    cursor: Annotated[
        str | None,
        Query(max_length=2000, description="The `next_cursor` of the page before; the filters must be the same."),
    ] = None,
) -> Pages:
    return Pages(ctx.digests, user.seat, request.scope["path"], request.query_params, limit, cursor)


Paging = Annotated[Pages, Depends(_pages)]


def seal(digests: Digests, scope: str, place: list[Any]) -> str:
    """Return a cursor for `place` in the list that `scope` names, with its account and filters."""
    body = json.dumps(place, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_seal(digests, scope, body) + body).decode().rstrip("=")


def unseal(digests: Digests, scope: str, cursor: str) -> list[Any]:
    """Return a cursor's place; raises `ValidationFailed` for one that is altered or of another list or filter."""
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
