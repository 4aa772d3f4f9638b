"""The difference between two personas: right for any two, and bounded for the worst two."""

import json
from collections.abc import Iterator
from typing import Any

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.lane import Lane
from tests.support.app import Client, make_twin
from twins.persona import patch, service
from twins.persona.patch import json_patch

NAMES = st.text(st.sampled_from("a~/0é"), max_size=3)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.floats(0, 2) | NAMES,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)
PERSONAS = st.dictionaries(NAMES, VALUES, max_size=4)


def size(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


@given(PERSONAS, PERSONAS)
def test_a_patch_turns_the_old_value_into_the_new_and_is_no_larger_than_its_members(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    text = json_patch(old, new)

    # As JSON text: to Python 1, 1.0 and true are equal.
    assert json.dumps(jsonpatch.apply_patch(old, text), sort_keys=True) == json.dumps(new, sort_keys=True)
    assert len(text) <= size(new) + sum(40 + 2 * size(name) for name in old | new)


@given(PERSONAS)
def test_equal_values_have_no_difference(value: dict[str, Any]) -> None:
    assert json_patch(value, json.loads(json.dumps(value, sort_keys=True))) == "[]"


def of(old: Any, new: Any) -> Any:
    return json.loads(json_patch({"m": old}, {"m": new}))


def test_a_change_within_a_long_array_is_one_operation() -> None:
    items = [{"text": f"Fact {n}."} for n in range(1000)]

    assert of(items, [*items[:500], {"text": "New."}, *items[500:]]) == [
        {"op": "add", "path": "/m/500", "value": {"text": "New."}}
    ]
    assert of(items, [*items[:500], *items[501:]]) == [{"op": "remove", "path": "/m/500"}]
    assert of(items, [*items[:500], {"text": "New."}, *items[501:]]) == [
        {"op": "replace", "path": "/m/500/text", "value": "New."}
    ]


def test_many_changes_are_one_replacement() -> None:
    old, new = [[*range(n, n + 1000)] for n in (0, 5000)]

    assert of(old, new) == [{"op": "replace", "path": "/m", "value": new}]
    assert of(old, []) == [{"op": "replace", "path": "/m", "value": []}]


def test_a_long_name_is_not_repeated_for_each_change_below_it() -> None:
    name = "n" * 100_000
    old, new = [{name: {"a": [*range(300)], "b": text}} for text in ("x" * 5_000, "y")]
    new[name]["a"] = [n + (n % 2) for n in range(300)]

    assert len(json_patch({"m": old}, {"m": new})) < 1.1 * size(new)


WORST = [
    pytest.param(lambda n: ([*range(n)], [*range(n - 1, -1, -1)]), id="reversed"),
    pytest.param(lambda n: ([0, 1] * n, [1, 0] * n), id="few values, many times"),
    pytest.param(lambda n: ([0] * n, [1] * n), id="each changed"),
    pytest.param(lambda n: ([{"a": k} for k in range(n)], [{"a": k, "b": 0} for k in range(n, 0, -1)]), id="objects"),
    pytest.param(lambda n: ({f"k{k}": k for k in range(n)}, {f"k{k}": 0 for k in range(n)}), id="members"),
    pytest.param(lambda n: ([[[k]] for k in range(n)], [[[k + 1]] for k in range(n)]), id="nested"),
]


@pytest.mark.parametrize("pair", WORST)
def test_the_work_grows_with_the_size_and_no_faster(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work is counted as the characters of JSON that are written and compared."""
    work = 0
    text_of = patch._text

    def counted(value: object) -> str:
        nonlocal work
        text = text_of(value)
        work += len(text)
        return text

    monkeypatch.setattr(patch, "_text", counted)
    for kib in (24, 47, 256):  # cubic, these took 4 seconds, 32 seconds, and an hour
        old, new = sized(pair, kib * 1024)
        work = 0
        found = json_patch({"m": old}, {"m": new})
        assert work < 12 * (size(old) + size(new)), kib
        assert len(found) <= size(new) + 40, kib


def sized(pair: Any, limit: int) -> Any:
    """Return the largest of the pairs, doubled and halved, whose values fit in `limit` characters."""
    count = 1
    while max(map(size, pair(count * 2))) <= limit:
        count *= 2
    for step in _halves(count):
        if max(map(size, pair(count + step))) <= limit:
            count += step
    return pair(count)


def _halves(count: int) -> Iterator[int]:
    while count := count // 2:
        yield count


@pytest.mark.parametrize("pair", WORST)
async def test_the_largest_personas_are_compared(alice: Client, pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # The measurement of coverage takes longer than the comparison.
    monkeypatch.setattr(service, "_DIFFS", Lane("diff", threads=1, within=30.0))
    persona = f"{await make_twin(alice)}/persona"
    old, new = sized(pair, 250 * 1024)
    for value in (old, new):
        assert (await alice.put(persona, json={"extensions": {"m": value}})).status_code == 200

    found = await alice.get(f"{persona}/diff", params={"from": 1, "to": 2})

    assert found.status_code == 200
    assert jsonpatch.apply_patch({"extensions": {"m": old}}, found.text) == {"extensions": {"m": new}}
