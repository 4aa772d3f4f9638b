"""JSON as I-JSON has it (RFC 7493): no duplicate names, no NaN, no lone surrogates, bounded depth."""

import json
import math
from typing import Any, NoReturn

MAX_DEPTH = 32


class JSONError(ValueError):
    """The text is not I-JSON within our bounds; the message says why without repeating it."""


def loads(text: bytes) -> Any:
    """Parse UTF-8 JSON.

    Raises:
        JSONError: syntax, encoding, a duplicate name, a number beyond a double or too long,
            a lone surrogate, or more than `MAX_DEPTH` levels.
    """
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError:
        raise JSONError("The body is not UTF-8.") from None
    try:
        value = _DECODER.decode(decoded)
    except json.JSONDecodeError as error:
        raise JSONError(f"The body is not JSON (line {error.lineno}, column {error.colno}).") from None
    except RecursionError:
        raise JSONError(_TOO_DEEP) from None
    except JSONError:
        raise
    except ValueError:  # an integer of more digits than Python converts
        raise JSONError("A number in the body is too long.") from None
    _check(value, MAX_DEPTH)
    return value


_TOO_LARGE = "A number in the body is too large."
_BEYOND = 2**1024 - 2**970
"""The first integer that no double is near enough to."""
_TOO_DEEP = f"The body is more than {MAX_DEPTH} levels deep."


def _check(value: object, depth: int) -> None:
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise JSONError("The body has a lone surrogate.") from None
    elif isinstance(value, (dict, list)):
        if depth == 0:
            raise JSONError(_TOO_DEEP)
        if isinstance(value, dict):
            for name, member in value.items():
                _check(name, depth)
                _check(member, depth - 1)
        else:
            for member in value:
                _check(member, depth - 1)
    elif isinstance(value, int) and abs(value) >= _BEYOND:
        raise JSONError(_TOO_LARGE)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise JSONError("An object in the body has a name twice.")
    return found


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise JSONError(_TOO_LARGE)
    return number


def _constant(name: str) -> NoReturn:
    raise JSONError(f"{name} is not JSON.")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_constant=_constant)
