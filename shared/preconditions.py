"""Conditional requests (RFC 9110 §13): entity tags, `If-Match` and `If-None-Match`."""

import re
from typing import Annotated

from fastapi import Header

from shared.errors import PreconditionFailed, header_error

_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_LIST = re.compile(rf"\s*(?:\*|{_TAG}(?:\s*,\s*{_TAG})*)\s*")
_TAGS = re.compile(_TAG)

IfMatch = Annotated[
    str | None,
    Header(description="Change the resource only if its entity tag is one of these.", max_length=1000),
]
IfNoneMatch = Annotated[
    str | None,
    Header(description="Answer 304 if the resource's entity tag is one of these.", max_length=1000),
]


def etag(*parts: object) -> str:
    """Return a strong entity tag made of the parts; opaque to clients."""
    return '"' + ".".join(str(part) for part in parts) + '"'


def _tags(name: str, value: str) -> list[str] | None:
    """Return the tags of a header, or None for `*`; raises `ValidationFailed` where it is not a list."""
    if not _LIST.fullmatch(value):
        raise header_error(name, "must be * or a list of quoted entity tags")
    return None if value.strip() == "*" else _TAGS.findall(value)


def check_if_match(if_match: str | None, current: str | None) -> None:
    """Raise `PreconditionFailed` unless `If-Match` allows a change of the resource tagged `current`.

    By strong comparison: a weak tag never matches. `current` is None where the resource does not
    exist yet, which even `*` does not match.
    """
    if if_match is None:
        return
    tags = _tags("If-Match", if_match)
    if current is None or (tags is not None and current not in tags):
        raise PreconditionFailed("The resource has changed: its entity tag is not in If-Match.")


def is_not_modified(if_none_match: str | None, current: str) -> bool:
    """Tell whether a GET is answered 304; by weak comparison."""
    if if_none_match is None:
        return False
    tags = _tags("If-None-Match", if_none_match)
    return tags is None or current in (tag.removeprefix("W/") for tag in tags)
