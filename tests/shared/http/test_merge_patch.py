"""JSON Merge Patch, by the test cases of RFC 7396, Appendix A."""

from copy import deepcopy
from typing import Any

import pytest

from shared.http.merge_patch import merge


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_standards_own_cases(target: Any, patch: Any, result: Any) -> None:
    before = deepcopy((target, patch))

    assert merge(target, patch) == result
    assert (target, patch) == before


def test_members_that_the_patch_does_not_name_stay_at_every_depth() -> None:
    target = {"a": {"b": {"c": 1, "d": 2}, "e": 3}, "f": 4}

    assert merge(target, {"a": {"b": {"c": 5}}}) == {"a": {"b": {"c": 5, "d": 2}, "e": 3}, "f": 4}
    assert merge(target, {"a": {"b": {"c": None}}}) == {"a": {"b": {"d": 2}, "e": 3}, "f": 4}
