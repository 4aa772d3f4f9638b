"""Entity tags and the headers that compare them (RFC 9110 §13)."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.http.conditional import Preconditions, etag, is_not_modified
from shared.http.problems import PreconditionFailed, ValidationFailed

TAG = etag("twin", 3)


def allows(if_match: str | None, current: str | None = TAG) -> bool:
    try:
        Preconditions(if_match).check(current)
    except PreconditionFailed:
        return False
    return True


@pytest.mark.parametrize(
    "header", [None, "*", " * ", TAG, f'"x", {TAG}', f'W/"x" ,{TAG}', f'"a,b",{TAG},"c"', f'"x",, {TAG},', f", {TAG}"]
)
def test_if_match_allows_the_current_tag_anywhere_in_the_list(header: str | None) -> None:
    assert allows(header)


@pytest.mark.parametrize("header", ['"x"', f"W/{TAG}", f'"{TAG[1:-1]}x"', '""', '"*"', '"x", "y"'])
def test_if_match_refuses_other_and_weak_tags(header: str) -> None:
    assert not allows(header)


def test_a_refused_change_is_told_why() -> None:
    with pytest.raises(PreconditionFailed) as refused:
        Preconditions('"x"').check(TAG)
    assert str(refused.value) == "The resource has changed: its entity tag is not in If-Match."
    with pytest.raises(PreconditionFailed) as refused:
        Preconditions("*").check(None)
    assert str(refused.value) == "There is nothing yet that If-Match could match."


def test_nothing_matches_what_does_not_exist() -> None:
    assert allows(None, None)
    assert not allows("*", None)
    assert not allows(TAG, None)


@pytest.mark.parametrize("header", ["*", TAG, f"W/{TAG}"])
def test_if_none_match_refuses_to_change_what_it_names(header: str) -> None:
    with pytest.raises(PreconditionFailed) as refused:
        Preconditions(if_none_match=header).check(TAG)
    assert str(refused.value) == "The resource is there, with an entity tag that If-None-Match excludes."


@pytest.mark.parametrize(("header", "current"), [(None, TAG), ('"x"', TAG), ("*", None), (TAG, None)])
def test_if_none_match_allows_the_rest(header: str | None, current: str | None) -> None:
    Preconditions(if_none_match=header).check(current)


def test_a_header_that_cannot_be_read_is_refused_where_nothing_exists_yet_too() -> None:
    for preconditions in (Preconditions(if_match="x"), Preconditions(if_none_match="x")):
        with pytest.raises(ValidationFailed):
            preconditions.check(None)


@pytest.mark.parametrize("header", ["*", TAG, f"W/{TAG}", f'"x", W/{TAG}', f' {TAG} , "x"'])
def test_if_none_match_compares_weakly(header: str) -> None:
    assert is_not_modified(header, TAG)


@pytest.mark.parametrize("header", [None, '"x"', 'W/"x"', '"x", "y"', '""'])
def test_another_tag_is_modified(header: str | None) -> None:
    assert not is_not_modified(header, TAG)


MALFORMED = [
    "",
    " ",
    ",",
    "x",
    "twin.3",
    "'x'",
    '"x',
    'x"',
    '"x" "y"',
    ", ,",
    'w/"x"',
    'W/ "x"',
    '*, "x"',
    "**",
]


@pytest.mark.parametrize("header", MALFORMED)
def test_what_is_no_list_of_tags_is_refused_not_ignored(header: str) -> None:
    detail = "must be * or a list of quoted entity tags"
    with pytest.raises(ValidationFailed) as refused:
        Preconditions(header).check(TAG)
    assert refused.value.members["errors"] == [{"header": "If-Match", "detail": detail}]
    with pytest.raises(ValidationFailed) as refused:
        is_not_modified(header, TAG)
    assert refused.value.members["errors"] == [{"header": "If-None-Match", "detail": detail}]


@given(st.text(st.characters(max_codepoint=255), max_size=40))
def test_any_header_has_an_answer_at_once(header: str) -> None:
    for preconditions in (Preconditions(if_match=header), Preconditions(if_none_match=header)):
        with contextlib.suppress(PreconditionFailed, ValidationFailed):
            preconditions.check(TAG)


def test_a_long_list_that_is_malformed_at_its_end_takes_linear_time() -> None:
    with pytest.raises(ValidationFailed):
        Preconditions('"x" , ' * 10_000 + "x").check(TAG)


def test_a_tag_is_the_same_in_every_release() -> None:
    # Clients and caches keep tags: another spelling would make all they have stale at once.
    assert etag("twin", 3) == '"twin.3"'


def test_tags_of_different_parts_differ() -> None:
    assert len({etag(1, "live"), etag(1, "off"), etag(11, "off"), etag("persona", 1)}) == 4
