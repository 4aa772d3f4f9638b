r"""Text from clients: it has a visible character and no controls, and is then stripped and NFC-normalised.

The patterns name every code point, since `\s` differs between the regular expressions of Rust
(Pydantic), Python and ECMAScript (JSON Schema), and all three read them. No range goes beyond
U+FFFF: no spelling works in all three, and none in a reader of UTF-16 (.NET, and ECMAScript without
the flag u, as in Swagger UI).
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from annotated_types import GroupedMetadata
from pydantic import AfterValidator, StringConstraints

_CONTROLS = r"\x00-\x1f\x7f-\x9f"
_LONG_CONTROLS = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
"""The controls without tab, newline and carriage return."""
_MISLEADING = r"\u2028-\u202e\u2066-\u2069"
"""Line and paragraph separators and bidirectional overrides: they disguise a text as another."""
_INVISIBLE = (
    r"\x20\xa0\u1680\u2000-\u200a\u202f\u205f\u3000"
    r"\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u2060-\u2065\u206a-\u206f"
    r"\u2800\u3164\ufdd0-\ufdef\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
)
"""Spaces, zero-width and format characters, fillers, noncharacters."""
_INVISIBLE_BEYOND = r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff" + "".join(
    rf"\U{plane:04x}fffe\U{plane:04x}ffff" for plane in range(1, 17)
)
"""Invisible characters beyond U+FFFF: format characters of shorthand and music, tags, noncharacters."""


def _pattern(controls: str) -> str:
    allowed = f"[^{controls}{_MISLEADING}]*"
    return f"^{allowed}[^{_CONTROLS}{_MISLEADING}{_INVISIBLE}]{allowed}$"


LINE = _pattern(_CONTROLS)
PROSE = _pattern(_LONG_CONTROLS)
REFUSED = "has characters that are not allowed here, or none that can be seen"
"""The message for a text that does not match its pattern."""

_VISIBLE = re.compile(f"[^{_CONTROLS}{_MISLEADING}{_INVISIBLE}{_INVISIBLE_BEYOND}]")
# JSON can contain a lone surrogate, which UTF-8 cannot, and which Rust's expressions cannot name.
_LINE = re.compile(r"(?!.*[\ud800-\udfff])" + LINE[:-1] + r"\Z")


def is_line(text: str) -> bool:
    """Return whether `text` is one line with a visible character and without controls."""
    return _LINE.match(text) is not None and _VISIBLE.search(text) is not None


# The time to sort marks grows with the square of their number (UAX #15 §13 has this limit too).
_MARKS = 30
_TOO_MANY_MARKS = re.compile(rb"[^\0]{%d}" % (_MARKS + 1))
"""Matches the combining classes of a text's characters, one byte each."""
_PAIRS_OF_MARKS = re.compile("[\u0f73\u0f75\u0f81]")
"""Characters of class 0 that decompose into marks."""


def _is_crowded(text: str) -> bool:
    apart = _PAIRS_OF_MARKS.sub("\u0f71\u0f72", text)
    return _TOO_MANY_MARKS.search(bytes(map(unicodedata.combining, apart))) is not None


def normalise(text: str) -> str:
    """Return `text` in Unicode normalisation form C, stripped, with newlines as U+000A."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


@dataclass(frozen=True)
class Text(GroupedMetadata):
    """Limits a `str` to 1 to `max_length` characters, both as sent and as stored."""

    max_length: int
    pattern: str = LINE
    verbatim: bool = False
    """Whether it is stored as it was sent."""

    def __iter__(self) -> Iterator[object]:
        yield from StringConstraints(min_length=1, max_length=self.max_length, pattern=self.pattern)
        yield AfterValidator(self._kept)

    def _kept(self, text: str) -> str:
        if not _VISIBLE.search(text):
            raise ValueError(REFUSED)
        if self.verbatim:
            return text
        if not text.isascii() and _is_crowded(text):
            raise ValueError(f"has more than {_MARKS} combining marks in a row")
        text = normalise(text)
        if len(text) > self.max_length:  # NFC decomposes some characters
            raise ValueError(f"must be at most {self.max_length:,} characters once NFC-normalised")
        return text


Name = Annotated[str, Text(100)]
Phrase = Annotated[str, Text(200)]
Prose = Annotated[str, Text(10_000, PROSE)]
"""May contain tabs and newlines."""
