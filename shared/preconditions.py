"""Conditional requests (RFC 9110 §13): entity tags, `If-Match` and `If-None-Match`."""

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header

from shared.errors import PreconditionFailed, header_error

_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
# RFC 9110 §5.6.1.2: empty elements of a list are ignored.
_LIST = re.compile(rf"\s*(?:\*|(?:,\s*)*{_TAG}(?:\s*,(?:\s*{_TAG})?)*)\s*")
_TAGS = re.compile(_TAG)

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


def is_not_modified(if_none_match: str | None, current: str) -> bool:
    """Tell whether a GET is answered 304; by weak comparison."""
    if if_none_match is None:
        return False
    tags = _tags("If-None-Match", if_none_match)
    return tags is None or current in (tag.removeprefix("W/") for tag in tags)


@dataclass(frozen=True, slots=True)
class Preconditions:
    """What has to hold for a resource to be changed."""

    if_match: str | None = None
    if_none_match: str | None = None

    def check(self, current: str | None) -> None:
        """Raise `PreconditionFailed` unless the resource tagged `current` may be changed.

        `current` is None where the resource does not exist yet. `If-Match` compares strongly, so that
        a weak tag never matches; `If-None-Match` weakly.
        """
        if self.if_match is not None:
            tags = _tags("If-Match", self.if_match)
            if current is None:
                raise PreconditionFailed("There is nothing yet that If-Match could match.")
            if tags is not None and current not in tags:
                raise PreconditionFailed("The resource has changed: its entity tag is not in If-Match.")
        # Judged in any case, so that one that cannot be read is never ignored.
        if is_not_modified(self.if_none_match, current or "") and current is not None:
            raise PreconditionFailed("The resource is there, with an entity tag that If-None-Match excludes.")


async def _preconditions(
    if_match: Annotated[
        str | None,
        Header(description="Change the resource only if its entity tag is one of these.", max_length=1000),
    ] = None,
    if_none_match: Annotated[
        str | None,
        Header(
            description="Change the resource only if its entity tag is none of these; `*`: if it is not there yet.",
            max_length=1000,
        ),
    ] = None,
) -> Preconditions:
    return Preconditions(if_match, if_none_match)


Conditions = Annotated[Preconditions, Depends(_preconditions)]
