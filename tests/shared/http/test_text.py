"""Text that clients send: what is refused, what comes out, and that all who judge it agree."""

import re
import unicodedata
from typing import Annotated

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from shared.http.text import LINE, PROSE, Name, Phrase, Prose, Text, is_line, normalise
from shared.http.validation import from_validation

NAME: TypeAdapter[str] = TypeAdapter(Name)
PHRASE: TypeAdapter[str] = TypeAdapter(Phrase)
PROSE_ADAPTER: TypeAdapter[str] = TypeAdapter(Prose)
EXACT: TypeAdapter[str] = TypeAdapter(Annotated[str, Text(10_000, PROSE, verbatim=True)])

# Mostly what the patterns are about, so that few examples reach every class of them.
odd = st.sampled_from(
    "\0\t\n\r\x1b\x7f\x80\x9f\u2028\u2029\u202a\u202e\u2066\u2068\u2069\u2069 \xa0\u1680\u2003\u3000"
    "\xad\u034f\u200b\u200d\u200f\u2060\ufe0f\ufeff\ufff9\ufdd0\uffff\u3164\u2800e\u0301A\u030aßİ🚲가"
)
# What NFC takes apart: a nukta, a dagesh, a pair of marks, a note of three parts.
longer = st.sampled_from("\u0344\u0958\u0f73\u2adc\ufb2c\U0001d160")
# What nobody sees beyond U+FFFF: the schema cannot say so, since half of all expressions read UTF-16.
UNSEEN = (
    "\U0001bca0\U0001bca3\U0001d173\U0001d17a\U0001fffe\U0002ffff\U000e0000\U000e007f\U000e01ef\U000e0fff\U0010ffff"
)
text = st.text(
    st.one_of(odd, longer, st.sampled_from(UNSEEN), st.characters(exclude_categories=["Cs"], max_codepoint=0x1BC9F)),
    max_size=12,
)


def accepted(adapter: TypeAdapter[str], value: str) -> bool:
    try:
        adapter.validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


def closes_its_isolates(value: str) -> bool:
    """Tell it in another way than the code: what is left without the innermost pairs, again and again."""
    left = re.sub("[^\u2066-\u2069]", "", value)
    while left != (left := re.sub("[\u2066-\u2068]\u2069", "", left)):
        pass
    return left == ""


def unseen_as(replacement: str, value: str) -> str:
    return re.sub(f"[{UNSEEN}]", replacement, value)


@pytest.mark.parametrize("adapter", [NAME, PROSE_ADAPTER], ids=["line", "prose"])
@given(value=text)
def test_pydantic_and_json_schema_agree(adapter: TypeAdapter[str], value: str) -> None:
    schema = jsonschema_rs.validator_for(adapter.json_schema())

    # The schema cannot say that isolates close.
    is_valid = schema.is_valid(unseen_as("\u200b", value)) and closes_its_isolates(value)
    assert accepted(adapter, value) == is_valid
    assert schema.is_valid(value) == schema.is_valid(unseen_as("x", value))


@given(text)
def test_a_line_is_what_a_name_may_be(value: str) -> None:
    assert is_line(value) == accepted(NAME, value)


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


REFUSED_IN_PROSE = {
    "a\0b": "has U+0000 (a control character) at line 1, column 2, which is not allowed",
    "\x85": "has U+0085 (a control character) at line 1, column 1, which is not allowed",
    "a\r\nb\nc\r\U0001f6b2\u202eb": "has U+202E (RIGHT-TO-LEFT OVERRIDE) at line 4, column 2, which is not allowed",
    "a\n\n\u202ab\u202c": "has U+202A (LEFT-TO-RIGHT EMBEDDING) at line 3, column 1, which is not allowed",
    "a\u2028b": "has U+2028 (LINE SEPARATOR) at line 1, column 2, which is not allowed",
    "a\u2029b": "has U+2029 (PARAGRAPH SEPARATOR) at line 1, column 2, which is not allowed",
    "a\n\u2067b\u2068c\u2069": (
        "has U+2067 (RIGHT-TO-LEFT ISOLATE) at line 2, column 1, an isolate that does not close"
    ),
    "\u2068b\u2069\u2069": "has U+2069 (POP DIRECTIONAL ISOLATE) at line 1, column 4, which closes no isolate",
    "\u2069\u2068b": "has U+2069 (POP DIRECTIONAL ISOLATE) at line 1, column 1, which closes no isolate",
    "a\nb\u0f73" + "\u0301" * 5 + "c" + "\u0f73\u0301" * 16: (
        "has more than 30 combining marks in a row, from line 2, column 9"
    ),
    "\u2068\u2069\u200b": "has characters that are not allowed here, or none that can be seen",
}


@pytest.mark.parametrize(("value", "detail"), REFUSED_IN_PROSE.items(), ids=map(ascii, REFUSED_IN_PROSE))
def test_a_long_text_is_refused_by_the_character_and_its_place(value: str, detail: str) -> None:
    with pytest.raises(ValidationError) as refused:
        PROSE_ADAPTER.validate_python(value)
    (error,) = from_validation(refused.value).members["errors"]
    assert error["detail"] == detail


def test_an_isolate_that_closes_is_fine_in_prose_and_not_in_a_line() -> None:
    for value in ("\u2068Alex\u2069 agrees", "\u2067a\u2066b\u2069\n\u2069"):
        assert PROSE_ADAPTER.validate_python(value) == value
        assert not accepted(NAME, value)


@pytest.mark.parametrize(
    "value", ["a\r\nb\rc\n", " a\t", "Zoe\u0308", "\u212b", "\ufb2c", "\u2068\u202fZoe\u2069 "], ids=ascii
)
def test_an_exact_text_is_what_was_sent(value: str) -> None:
    assert EXACT.validate_python(value) == value


@given(text)
def test_an_exact_text_is_refused_where_prose_is(value: str) -> None:
    assert accepted(EXACT, value) == accepted(PROSE_ADAPTER, value)


@pytest.mark.parametrize("value", [1, True, None, b"Alex", ["Alex"], {}])
def test_what_is_not_text_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        NAME.validate_python(value, strict=True)


def test_length_is_counted_in_characters_not_in_bytes() -> None:
    assert accepted(NAME, "🚲" * 100)
    assert not accepted(NAME, "a" * 101)
    assert accepted(PROSE_ADAPTER, "é" * 10_000)
    assert not accepted(PROSE_ADAPTER, "a" * 10_001)


@given(st.lists(longer, min_size=25, max_size=50))
def test_a_text_is_as_short_as_it_may_be_when_it_is_kept_too(parts: list[str]) -> None:
    value = "".join(f"a{part}" for part in parts)
    assert accepted(NAME, value) == (len(normalise(value)) <= 100)


@pytest.mark.parametrize(("adapter", "most"), [(NAME, 100), (PHRASE, 200), (PROSE_ADAPTER, 10_000)])
def test_a_text_that_composing_makes_too_long_is_told_so(adapter: TypeAdapter[str], most: int) -> None:
    assert accepted(adapter, "\u0958" * (most // 2))
    with pytest.raises(ValidationError) as refused:
        adapter.validate_python("\u0958" * (most // 2) + "a")
    assert refused.value.errors()[0]["msg"] == f"Value error, must be at most {most:,} characters once NFC-normalised"


def test_there_is_something_to_see_in_every_text() -> None:
    for unseen in (*UNSEEN, "\ufff0", "\ufff9", "\ufffb", "\ufdd0", "\ufdef", "\ufffe", "\uffff", "\u200b", " "):
        for adapter in (NAME, PROSE_ADAPTER):
            assert not accepted(adapter, unseen * 3), ascii(unseen)
            assert accepted(adapter, f"{unseen}a{unseen}"), ascii(unseen)
        assert not is_line(unseen)


@pytest.mark.parametrize(
    "marks", ["\u0301", "\u0301\u0316", "\u0f73\u0f71", "\u0f75", "\u0f81", "\u0f71\u0f72", "\u0344"], ids=ascii
)
def test_no_number_of_marks_takes_long_to_put_in_order(marks: str) -> None:
    # Unbounded, 10,000 of them take a tenth of a second, in which the process answers nobody.
    with pytest.raises(ValidationError, match="has more than 30 combining marks in a row"):
        PROSE_ADAPTER.validate_python("a" + marks * (10_000 // len(marks) - 1))
    assert accepted(PROSE_ADAPTER, ("a" + marks * (15 // len(marks))) * 100)


def test_marks_that_have_no_class_themselves_are_all_known() -> None:
    characters = [chr(n) for n in range(0x110000) if unicodedata.combining(chr(n)) == 0]
    apart = [it for it in characters if unicodedata.combining(unicodedata.normalize("NFD", it)[0])]
    assert apart == ["\u0f73", "\u0f75", "\u0f81"]


def test_a_flag_keeps_its_tags() -> None:
    wales = "🏴\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f"
    assert NAME.validate_python(wales) == wales


def test_the_pattern_is_readable_to_what_reads_utf_16() -> None:
    # Two halves of a range beyond U+FFFF are no range to .NET, or to ECMAScript without the flag u.
    assert (LINE + PROSE).isascii()


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=3))
def test_composing_neither_hides_nor_uncovers_anything(value: str) -> None:
    assert is_line(value) == is_line(unicodedata.normalize("NFC", value))


@pytest.mark.parametrize("pattern", [LINE, PROSE])
def test_the_pattern_takes_linear_time(pattern: str) -> None:
    # Python's engine backtracks: a long text without anything visible is its worst case.
    assert re.search(pattern, " " * 10_000) is None
