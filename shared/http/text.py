r"""Text from clients: it has a visible character and no controls, and is stripped and NFC-normalised, or kept as sent.

The patterns name every code point, since `\s` differs between the regular expressions of Rust
(Pydantic), Python and ECMAScript (JSON Schema), and all three read them. No range goes beyond
U+FFFF: no spelling works in all three, and none in a reader of UTF-16 (.NET, and ECMAScript without
the flag u, as in Swagger UI).
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

_CONTROLS = r"\x00-\x1f\x7f-\x9f"
_LONG_CONTROLS = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
"""The controls without tab, newline and carriage return."""
_MISLEADING = r"\u2028-\u202e"
"""Line and paragraph separators, bidirectional embeddings and overrides: they disguise a text as another."""
_ISOLATES = r"\u2066-\u2069"
"""Bidirectional isolates and their end: closed, as libraries put them around names, they disguise nothing."""
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


def _pattern(refused: str) -> str:
    allowed = f"[^{refused}]*"
    return f"^{allowed}[^{_CONTROLS}{_MISLEADING}{_ISOLATES}{_INVISIBLE}]{allowed}$"


LINE = _pattern(_CONTROLS + _MISLEADING + _ISOLATES)
PROSE = _pattern(_LONG_CONTROLS + _MISLEADING)
"""The schema's word on long texts. It cannot say that every isolate closes."""
REFUSED = "has characters that are not allowed here, or none that can be seen"
"""The message for a text that does not match its pattern."""

_VISIBLE = re.compile(f"[^{_CONTROLS}{_MISLEADING}{_ISOLATES}{_INVISIBLE}{_INVISIBLE_BEYOND}]")
# JSON can contain a lone surrogate, which UTF-8 cannot, and which Rust's expressions cannot name.
_LINE = re.compile(r"(?!.*[\ud800-\udfff])" + LINE[:-1] + r"\Z")


def is_line(text: str) -> bool:
    """Return whether `text` is one line with a visible character and without controls."""
    return _LINE.match(text) is not None and _VISIBLE.search(text) is not None


_NOT_IN_PROSE = re.compile(f"[{_LONG_CONTROLS}{_MISLEADING}]")
_ISOLATE = re.compile(f"[{_ISOLATES}]")
_END_OF_ISOLATE = "\u2069"
_END_OF_LINE = re.compile("\r\n?|\n")


def _place(text: str, index: int) -> str:
    """Return where a character of `text` as it was sent is, both numbers from 1."""
    ends = [found.end() for found in _END_OF_LINE.finditer(text, 0, index)]
    return f"line {len(ends) + 1}, column {index - max(ends, default=0) + 1}"


def _named(text: str, index: int) -> str:
    """Return which character of `text` it is, and where."""
    name = unicodedata.name(text[index], "a control character")
    return f"U+{ord(text[index]):04X} ({name}) at {_place(text, index)}"


def _check_prose(text: object) -> object:
    """Refuse the first character that prose may not have, by its name and place."""
    if not isinstance(text, str) or (text.isascii() and text.isprintable()):
        return text
    if refused := _NOT_IN_PROSE.search(text):
        raise ValueError(f"has {_named(text, refused.start())}, which is not allowed")
    opened = []
    for found in _ISOLATE.finditer(text):
        if found[0] != _END_OF_ISOLATE:
            opened.append(found.start())
        elif opened:
            opened.pop()
        else:
            raise ValueError(f"has {_named(text, found.start())}, which closes no isolate")
    if opened:
        raise ValueError(f"has {_named(text, opened[0])}, an isolate that does not close")
    return text


# The time to sort marks grows with the square of their number (UAX #15 §13 has this limit too).
_MARKS = 30
_TOO_MANY_MARKS = re.compile(rb"[^\0]{%d}" % (_MARKS + 1))
"""Matches the combining classes of a text's characters, one byte each."""
_PAIRS_OF_MARKS = re.compile("[\u0f73\u0f75\u0f81]")
"""Characters of class 0 that decompose into marks."""


def _check_marks(text: str) -> None:
    apart = _PAIRS_OF_MARKS.sub("\u0f71\u0f72", text)
    crowd = _TOO_MANY_MARKS.search(bytes(map(unicodedata.combining, apart)))
    if crowd is None:
        return
    ahead, index = crowd.start(), 0
    while ahead > 0:
        ahead -= 2 if _PAIRS_OF_MARKS.match(text, index) else 1
        index += 1
    raise ValueError(f"has more than {_MARKS} combining marks in a row, from {_place(text, index)}")


def normalise(text: str) -> str:
    """Return `text` in Unicode normalisation form C, stripped, with newlines as U+000A."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


@dataclass(frozen=True)
class Text:
    """Limits a `str` to 1 to `max_length` characters, both as sent and as stored."""

    max_length: int
    pattern: str = LINE
    verbatim: bool = False
    """Whether it is stored as it was sent."""

    # Pydantic's own constraints and validators would be looked up for each of the 260 texts of a cold start.
    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        schema: core_schema.CoreSchema = core_schema.str_schema(
            min_length=1, max_length=self.max_length, pattern=self.pattern
        )
        if self.pattern == PROSE:
            schema = core_schema.no_info_before_validator_function(_check_prose, schema)
        return core_schema.no_info_after_validator_function(self._kept, schema)

    def _kept(self, text: str) -> str:
        if not text.isascii():  # the pattern has seen all that is invisible in ASCII
            if not _VISIBLE.search(text):
                raise ValueError(REFUSED)
            if self.pattern == PROSE or not self.verbatim:
                _check_marks(text)
        if self.verbatim:
            return text
        text = normalise(text)
        if len(text) > self.max_length:  # NFC decomposes some characters
            raise ValueError(f"must be at most {self.max_length:,} characters once NFC-normalised")
        return text


Name = Annotated[str, Text(100)]
Phrase = Annotated[str, Text(200)]
Prose = Annotated[str, Text(10_000, PROSE)]
"""May contain tabs and newlines."""
