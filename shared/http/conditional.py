"""Conditional requests (RFC 9110 §13): entity tags, `If-Match` and `If-None-Match`."""

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Any, NamedTuple

from fastapi import Depends, Header, Response

from shared.http.problems import PreconditionFailed, header_error

_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
# RFC 9110 §5.6.1.2: empty elements of a list are ignored.
_LIST = re.compile(rf"\s*(?:\*|(?:,\s*)*{_TAG}(?:\s*,(?:\s*{_TAG})?)*)\s*")
_TAGS = re.compile(_TAG)


def _header(description: str) -> Any:
    return Header(description=description, max_length=1000)


IfMatch = Annotated[str | None, _header("Answer 412 unless the resource's entity tag is one of these.")]
IfNoneMatch = Annotated[str | None, _header("Answer 304 if the resource's entity tag is one of these.")]
_ChangeIfMatch = Annotated[str | None, _header("Change the resource only if its entity tag is one of these.")]
_ChangeIfNoneMatch = Annotated[
    str | None,
    _header("Change the resource only if its entity tag is none of these; `*`: only if it does not exist."),
]


def etag(*parts: object) -> str:
    """Return a strong entity tag of these parts; opaque to clients."""
    return '"' + ".".join(str(part) for part in parts) + '"'


def _tags(name: str, value: str) -> list[str] | None:
    """Return the tags of a header, or None for `*`; raises `ValidationFailed` for any other text."""
    if not _LIST.fullmatch(value):
        raise header_error(name, "must be * or a list of quoted entity tags")
    return None if value.strip() == "*" else _TAGS.findall(value)


def is_not_modified(if_none_match: str | None, current: str, if_match: str | None = None) -> bool:
    """Return whether the answer to a GET is 304, by weak comparison; raises `PreconditionFailed` for `if_match`."""
    if if_match is not None:
        Preconditions(if_match).check(current)
    if if_none_match is None:
        return False
    tags = _tags("If-None-Match", if_none_match)
    return tags is None or current in (tag.removeprefix("W/") for tag in tags)


def not_modified(etag: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return 304 for the representation tagged `etag`, with the headers that a cache updates."""
    return Response(status_code=304, headers={**(headers or {}), "ETag": etag, "Cache-Control": "private, no-cache"})


def cacheable(content: bytes, media_type: str, seconds: int, if_none_match: str | None) -> Response:
    """Return public content that everybody may keep for a while, or 304 where the client has it."""
    tag = etag(sha256(content).hexdigest()[:32])
    unchanged = is_not_modified(if_none_match, tag)
    headers = {"ETag": tag, "Cache-Control": f"public, max-age={seconds}"}
    return Response(status_code=304, headers=headers) if unchanged else Response(content, 200, headers, media_type)


class Preconditions(NamedTuple):
    """The conditions of a change to a resource."""

    if_match: str | None = None
    if_none_match: str | None = None

    def check(self, current: str | None) -> None:
        """Raise `PreconditionFailed` unless the conditions allow a change of the resource tagged `current`.

        `current` is None where the resource does not exist yet. `If-Match` compares strongly, so that
        a weak tag never matches; `If-None-Match` compares weakly.
        """
        if self.if_match is not None:
            tags = _tags("If-Match", self.if_match)
            if current is None:
                raise PreconditionFailed("There is nothing yet that If-Match could match.")
            if tags is not None and current not in tags:
                raise PreconditionFailed("The resource has changed: its entity tag is not in If-Match.")
        # Evaluated in any case, so that an unreadable header is never ignored.
        if is_not_modified(self.if_none_match, current or "") and current is not None:
            raise PreconditionFailed("The resource is there, with an entity tag that If-None-Match excludes.")


async def _preconditions(if_match: _ChangeIfMatch = None, if_none_match: _ChangeIfNoneMatch = None) -> Preconditions:
    return Preconditions(if_match, if_none_match)


Conditions = Annotated[Preconditions, Depends(_preconditions)]
