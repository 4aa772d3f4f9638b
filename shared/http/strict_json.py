"""I-JSON (RFC 7493): JSON without duplicate names, NaN and lone surrogates; its depth is bounded."""

import codecs
import json
import math
import re
from typing import Any, NoReturn

MAX_DEPTH = 32
MAX_SEPARATORS = 256 * 1024
"""Commas and opening brackets, those in texts too: half a million values, as a body of 1 MiB can have, take 0.2 s. What
is 256 KiB long without spaces has fewer, whatever it says."""


class JSONError(Exception):
    """The text is not I-JSON within the bounds; the message says why, without text from the body."""


def loads(text: bytes) -> Any:
    """Parse UTF-8 JSON; raises `JSONError`, also for a number beyond a double, too many levels or values."""
    try:
        if text.startswith(codecs.BOM_UTF8):  # RFC 8259 §8.1: must not be added
            raise JSONError("The body begins with a byte order mark; leave it out.")
        if sum(text.count(separator) for separator in (b",", b"[", b"{")) > MAX_SEPARATORS:
            raise JSONError(f"The body has more than {MAX_SEPARATORS:,} commas and opening brackets.")
        decoded = text.decode("utf-8")
        value = _DECODER.decode(decoded)
        if isinstance(value, (dict, list)):
            _check_depth(value, MAX_DEPTH)
        if b"\\u" in text:  # nothing else makes a surrogate
            _check_surrogates(value, decoded)
    except UnicodeDecodeError as error:
        raise JSONError(f"The body is not UTF-8 (byte {error.start + 1}).") from None
    except json.JSONDecodeError as error:
        raise JSONError(f"The body is not JSON (line {error.lineno}, column {error.colno}).") from None
    except RecursionError:
        raise JSONError(_TOO_DEEP) from None
    except ValueError:  # an integer with more digits than Python converts
        raise JSONError("A number in the body is too long.") from None
    return value


_TOO_LARGE = "A number in the body is too large."
_BEYOND = 2**1024 - 2**970
"""The smallest integer that rounds to no double."""
_TOO_DEEP = f"The body is more than {MAX_DEPTH} levels deep."


def _check_depth(value: dict[str, Any] | list[Any], depth: int) -> None:
    if depth == 0:
        raise JSONError(_TOO_DEEP)
    for member in value.values() if isinstance(value, dict) else value:
        if isinstance(member, (dict, list)):
            _check_depth(member, depth - 1)


_ESCAPE = re.compile(r"\\(?:ud[89ab]..\\ud[c-f]..|u(?P<lone>d[89a-f]..)|.)", re.IGNORECASE)
"""An escape of a text that is JSON, or the two of a pair of surrogates."""


def _check_surrogates(value: object, text: str) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        lone = next(escape for escape in _ESCAPE.finditer(text) if escape["lone"])
        line, column = text.count("\n", 0, lone.start()) + 1, lone.start() - text.rfind("\n", 0, lone.start())
        code = f"U+{lone['lone'].upper()}"
        raise JSONError(f"The body has a lone surrogate, {code} (line {line}, column {column}).") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise JSONError("An object in the body has a name twice.")
    return found


def _integer(text: str) -> int:
    number = int(text)
    if abs(number) >= _BEYOND:
        raise JSONError(_TOO_LARGE)
    return number


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise JSONError(_TOO_LARGE)
    return number


def _constant(_: str) -> NoReturn:
    raise JSONError("A number in the body is infinite or none, which is not JSON.")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant)
