"""Text that clients send: what is refused, what comes out, and that all who judge it agree."""

import re
import unicodedata

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from shared.text import LINE, PROSE, Name, Prose, is_line, normalise

NAME: TypeAdapter[str] = TypeAdapter(Name)
PROSE_ADAPTER: TypeAdapter[str] = TypeAdapter(Prose)

# Mostly what the patterns are about, so that few examples reach every class of them.
odd = st.sampled_from(
    "\0\t\n\r\x1b\x7f\x80\x9f\u2028\u2029\u202a\u202e\u2066\u2069 \xa0\u1680\u2003\u3000"
    "\xad\u034f\u200b\u200d\u200f\u2060\ufe0f\ufeff\u3164\u2800e\u0301A\u030aßİ🚲가\U000e0001"
)
text = st.text(st.one_of(odd, st.characters(exclude_categories=["Cs"])), max_size=12)


def accepted(adapter: TypeAdapter[str], value: str) -> bool:
    try:
        adapter.validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


@given(text)
def test_pydantic_python_and_json_schema_agree_on_a_line(value: str) -> None:
    by_schema = jsonschema_rs.is_valid(NAME.json_schema(), value)

    assert accepted(NAME, value) == by_schema
    assert (bool(value) and is_line(value) == by_schema) or not value


@given(text)
def test_pydantic_and_json_schema_agree_on_prose(value: str) -> None:
    assert accepted(PROSE_ADAPTER, value) == jsonschema_rs.is_valid(PROSE_ADAPTER.json_schema(), value)


@given(text)
def test_what_comes_out_is_clean_and_would_be_accepted_again_unchanged(value: str) -> None:
    if not accepted(NAME, value):
        return
    clean = NAME.validate_python(value)

    assert clean == clean.strip() != ""
    assert unicodedata.is_normalized("NFC", clean)
    assert not any(unicodedata.category(character) in {"Cc", "Zl", "Zp"} for character in clean)
    assert is_line(clean)
    assert normalise(clean) == clean


@given(text)
def test_prose_keeps_its_lines(value: str) -> None:
    if accepted(PROSE_ADAPTER, value):
        clean = PROSE_ADAPTER.validate_python(value)
        assert clean == normalise(value)
        assert "\r" not in clean
        assert clean.split("\n") == unicodedata.normalize("NFC", re.sub("\r\n?", "\n", value)).strip().split("\n")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (" Alex ", "Alex"),
        ("\u3000Alex\xa0", "Alex"),
        ("Zoe\u0308", "Zo\xeb"),
        ("\u212b", "\xc5"),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("نام\u200cها", "نام\u200cها"),
        ("a  b", "a  b"),
    ],
)
def test_a_name_is_stripped_and_composed(given: str, kept: str) -> None:
    assert NAME.validate_python(given) == kept


def test_every_end_of_line_becomes_one_newline() -> None:
    assert PROSE_ADAPTER.validate_python("a\r\nb\rc\nd\r\n\r\n\re\n") == "a\nb\nc\nd\n\n\ne"


@pytest.mark.parametrize("value", [1, True, None, b"Alex", ["Alex"], {}])
def test_what_is_not_text_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        NAME.validate_python(value, strict=True)


def test_length_is_counted_in_characters_not_in_bytes() -> None:
    assert accepted(NAME, "🚲" * 100)
    assert not accepted(NAME, "a" * 101)
    assert accepted(PROSE_ADAPTER, "é" * 10_000)
    assert not accepted(PROSE_ADAPTER, "a" * 10_001)


@pytest.mark.parametrize("pattern", [LINE, PROSE])
def test_the_pattern_takes_linear_time(pattern: str) -> None:
    # Python's engine backtracks: a long text without anything visible is its worst case.
    assert re.search(pattern, " " * 10_000) is None
