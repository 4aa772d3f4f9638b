"""I-JSON (RFC 7493): what is read, and what is refused without being repeated."""

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.http.strict_json import MAX_DEPTH, MAX_SEPARATORS, JSONError, loads

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(values, st.booleans())
def test_any_json_comes_back_as_it_was(value: Any, ascii_only: bool) -> None:
    assert loads(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=30))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        value = loads(content)
    except JSONError as error:
        assert str(error).endswith(".")
    else:
        assert value == json.loads(content)


BEYOND = 2**1024 - 2**970
REFUSED = {
    "nothing": b"",
    "blank": b" ",
    "cut short": b'{"a":',
    "two values": b"{} {}",
    "a comment": b"{} // {}",
    "single quotes": b"{'a': 1}",
    "trailing comma": b"[1,]",
    "raw newline in a string": b'"a\nb"',
    "raw NUL in a string": b'"a\x00b"',
    "NaN": b'{"a": NaN}',
    "Infinity": b"[Infinity]",
    "negative Infinity": b"-Infinity",
    "1e400": b'{"a": 1e400}',
    "-1e400": b"-1e400",
    "4,000 nines": b'{"a": ' + b"9" * 4000 + b"}",
    "the first integer beyond a double": str(BEYOND).encode(),
    "the same, negative": b"[-%d]" % BEYOND,
    "leading zero": b"01",
    "a number without a digit": b"-",
    "5,000 digits": b"1" * 5000,
    "name given twice": b'{"a": 1, "b": 2, "a": 1}',
    "name given twice, once escaped": rb'{"a": 1, "\u0061": 1}',
    "name given twice further down": b'[{"x": {"a": 1, "a": 2}}]',
    "lone surrogate": rb'"\ud800"',
    "lone low surrogate in a name": rb'{"\udc00": 1}',
    "lone surrogate in a member": rb'{"a": {"b": "\ud800"}}',
    "surrogates in the wrong order": rb'["\udc00\ud800"]',
    "not UTF-8": b'"\xff"',
    "overlong UTF-8": b'"\xc0\xaf"',
    "surrogate in UTF-8": b'"\xed\xa0\x80"',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "one level too many": b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
    "one level of objects too many": b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1),
    "10,000 levels": b"[" * 10_000 + b"]" * 10_000,
    "10,000 levels, never closed": b"[" * 10_000,
    "100,000 levels of objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
}


@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED)
def test_what_is_not_i_json_is_refused(content: bytes) -> None:
    with pytest.raises(JSONError):
        loads(content)


def test_a_refusal_says_why() -> None:
    for content, reason in (
        (b'"\xff"', "The body is not UTF-8 (byte 2)."),
        (b"\xef\xbb\xbf{}", "The body begins with a byte order mark; leave it out."),
        (b'{\n"a": x}', "The body is not JSON (line 2, column 6)."),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "The body is more than 32 levels deep."),
        (b"[" * 100_000, "The body is more than 32 levels deep."),
        (b"1" * 5000, "A number in the body is too long."),
        (b"9" * 4000, "A number in the body is too large."),
        (b"1e400", "A number in the body is too large."),
        (b"-Infinity", "A number in the body is infinite or none, which is not JSON."),
        (rb'"\ud800"', "The body has a lone surrogate, U+D800 (line 1, column 2)."),
        (
            b'{"a": "\\ud83d\\udeb2 \\\\ud800",\n"b": "\\uDC00"}',
            "The body has a lone surrogate, U+DC00 (line 2, column 7).",
        ),
        (b'{"a": 1, "a": 2}', "An object in the body has a name twice."),
    ):
        with pytest.raises(JSONError) as refused:
            loads(content)
        assert str(refused.value) == reason


def test_the_deepest_that_is_allowed_is_read() -> None:
    assert loads(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    assert loads(b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH)


def test_what_was_sent_is_not_repeated() -> None:
    for content in (b'{"secret"', b'{"secret": NaN}', b'{"secret": 1, "secret": 2}', b'["secret\\ud800"]'):
        with pytest.raises(JSONError) as refused:
            loads(content)
        assert "secret" not in str(refused.value)


def test_numbers_keep_their_kind_and_their_digits() -> None:
    assert loads(b"123456789012345678901234567890") == 123456789012345678901234567890
    assert loads(str(BEYOND - 1).encode()) == BEYOND - 1
    assert float(BEYOND - 1) == sys.float_info.max
    with pytest.raises(OverflowError):
        float(BEYOND)
    assert isinstance(loads(b"1.0"), float)
    assert isinstance(loads(b"1e3"), float)
    assert loads(b"1E-400") == 0.0


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert loads(rb'"\ud83d\udeb2"') == "🚲"


def test_a_body_has_so_many_separators() -> None:
    most = b",".join([b"1"] * MAX_SEPARATORS)
    assert len(loads(b"[" + most + b"]")) == MAX_SEPARATORS
    for text in (b"[1," + most + b"]", b"[" + b",".join([b"{}"] * (MAX_SEPARATORS // 2 + 1)) + b"]", b"[" * 2**20):
        with pytest.raises(JSONError, match=r"The body has more than 262,144 commas and opening brackets\."):
            loads(text)
