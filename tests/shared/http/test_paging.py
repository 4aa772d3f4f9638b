"""Cursors: they bring back their place, and nobody can make or change one."""

import base64

from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from shared.digests import Digests
from shared.http.paging import Pages, seal, unseal
from shared.http.problems import ValidationFailed

DIGESTS = Digests("a-digest-key-only-for-the-tests-of-32-bytes")
CURSOR = seal(DIGESTS, "twins\nalice", ["019ab3f2-7d55-7c0e-9a3e-0d5b8f6c1a2b"])


def refused(digests: Digests, scope: str, cursor: str) -> bool:
    try:
        unseal(digests, scope, cursor)
    except ValidationFailed as error:
        detail = "is not a cursor of this list with these filters"
        assert error.members["errors"] == [{"parameter": "cursor", "detail": detail}]
        return True
    return False


@given(st.text(), st.lists(st.text() | st.integers()))
def test_a_cursor_brings_back_its_place(scope: str, place: list[str | int]) -> None:
    cursor = seal(DIGESTS, scope, place)

    assert unseal(DIGESTS, scope, cursor) == place
    assert cursor.isascii()
    assert not set(cursor) & set("=+/ ")


def test_a_cursor_is_the_same_in_every_release() -> None:
    # Clients keep cursors over a deployment.
    assert seal(DIGESTS, "twins\nalice", [{"é": 1}, 2]) == "eq8E8KmetMq2ls5kmnbU4Ft7Ilx1MDBlOSI6MX0sMl0"


@given(st.data())
def test_a_cursor_that_was_changed_anywhere_is_refused(data: st.DataObject) -> None:
    alphabet = st.sampled_from("ABCXYZabcxyz0189-_=+/ \n.é\0")
    at = data.draw(st.integers(0, len(CURSOR)))
    until = data.draw(st.integers(at, min(at + 4, len(CURSOR))))
    changed = CURSOR[:at] + data.draw(st.text(alphabet, max_size=4)) + CURSOR[until:]

    assert changed == CURSOR or refused(DIGESTS, "twins\nalice", changed)


@given(st.text(max_size=200) | st.binary(max_size=100).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_no_cursor_can_be_made_up(cursor: str) -> None:
    assert refused(DIGESTS, "twins\nalice", cursor)


@given(st.text())
def test_a_cursor_of_another_list_is_refused(scope: str) -> None:
    assert scope == "twins\nalice" or refused(DIGESTS, scope, CURSOR)


def test_a_cursor_under_another_key_is_refused() -> None:
    assert refused(Digests("another-digest-key-for-the-tests-of-32-bytes"), "twins\nalice", CURSOR)


def test_no_account_has_the_cursors_of_another_with_a_line_feed_in_its_name() -> None:
    def scope(account: str, *parts: str) -> str:
        return Pages(DIGESTS, account, "/", QueryParams(), 20, None).within("list", *parts).scope

    assert len({scope("a\nb"), scope("a", "b"), scope("a"), scope("a\nb", "c"), scope("a", "b\nc")}) == 5
