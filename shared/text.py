r"""Text that clients send: a visible character, no controls, then stripped and NFC-normalised.

The patterns name every code point, since `\s` differs between the regular expressions of Rust
(Pydantic), Python and ECMAScript (JSON Schema), and all three read them.
"""

import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

_CONTROLS = r"\x00-\x1f\x7f-\x9f"
_LONG_CONTROLS = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
"""The same without tab, newline and carriage return."""
_MISLEADING = r"\u2028-\u202e\u2066-\u2069"
"""Line and paragraph separators and bidirectional overrides: they make a text read as another."""
_INVISIBLE = (
    r"\x20\xa0\u1680\u2000-\u200a\u202f\u205f\u3000"
    r"\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u2060-\u2065\u206a-\u206f"
    r"\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0"
)
"""Spaces, zero-width and format characters, fillers."""


def _pattern(controls: str) -> str:
    allowed = f"[^{controls}{_MISLEADING}]*"
    return f"^{allowed}[^{_CONTROLS}{_MISLEADING}{_INVISIBLE}]{allowed}$"


LINE = _pattern(_CONTROLS)
PROSE = _pattern(_LONG_CONTROLS)

# JSON can spell a lone surrogate, which no UTF-8 has and the expressions of Rust cannot name.
_LINE = re.compile(r"(?!.*[\ud800-\udfff])" + LINE[:-1] + r"\Z")


def is_line(text: str) -> bool:
    """Tell whether `text` is one line with something to see and nothing that controls."""
    return _LINE.match(text) is not None


def normalise(text: str) -> str:
    """Return `text` stripped, in Unicode normalisation form C, with newlines as U+000A."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


Normalised = AfterValidator(normalise)

Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=LINE), Normalised]
"""1 to 100 characters on one line."""

Phrase = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=LINE), Normalised]
"""1 to 200 characters on one line."""

Prose = Annotated[str, StringConstraints(min_length=1, max_length=10_000, pattern=PROSE), Normalised]
"""1 to 10,000 characters, tabs and newlines among them."""
