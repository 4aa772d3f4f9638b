"""The difference between two personas, as a JSON Patch (RFC 6902).

Its time and size grow with the size of the personas, and no faster: arrays are compared from both ends, then place by
place, and where the operations on the members of a value would be longer than the value, one operation replaces it.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple


class _Operation(NamedTuple):
    op: str
    path: str
    """A JSON pointer that starts at the two values that are compared."""
    value: str | None = None
    """As JSON text."""

    def __str__(self) -> str:
        """Return it as JSON text."""
        value = "" if self.value is None else f',"value":{self.value}'
        return f'{{"op":"{self.op}","path":{_text(self.path)}{value}}}'


def json_patch(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Return the patch that turns `before` into `after`."""
    steps = [step._replace(path=token + step.path) for token, below in _members(before, after) for step in below]
    return f"[{','.join(map(str, steps))}]"


def _changes(old: Any, new: Any) -> list[_Operation]:
    """Return the operations that turn `old` into `new`: those on its members, or a replacement if that is shorter."""
    text = _text(new)
    if _text(old) == text:
        return []
    whole = _Operation("replace", "", text)
    if not any(isinstance(old, kind) and isinstance(new, kind) for kind in (dict, list)):
        return [whole]
    found: list[_Operation] = []
    size = 0
    for token, below in _members(old, new):
        # Measured before the paths are made: a long name above many changes would be repeated in each.
        size += sum(len(token) + len(str(step)) for step in below)
        if size > len(str(whole)):
            return [whole]
        found += [step._replace(path=token + step.path) for step in below]
    return found


def _members(old: Any, new: Any) -> Iterator[tuple[str, list[_Operation]]]:
    """Yield for each member of two objects or arrays its token in a pointer, and its operations, in order."""
    yield from _of_objects(old, new) if isinstance(old, dict) else _of_arrays(old, new)


def _of_objects(old: dict[str, Any], new: dict[str, Any]) -> Iterator[tuple[str, list[_Operation]]]:
    for name in old | new:
        token = "/" + name.replace("~", "~0").replace("/", "~1")
        if name not in new:
            yield token, [_Operation("remove", "")]
        elif name not in old:
            yield token, [_Operation("add", "", _text(new[name]))]
        else:
            yield token, _changes(old[name], new[name])


def _of_arrays(old: list[Any], new: list[Any]) -> Iterator[tuple[str, list[_Operation]]]:
    start, old_end, new_end = 0, len(old), len(new)
    while start < min(old_end, new_end) and _equal(old[start], new[start]):
        start += 1
    while start < min(old_end, new_end) and _equal(old[old_end - 1], new[new_end - 1]):
        old_end, new_end = old_end - 1, new_end - 1
    paired = min(old_end, new_end)
    for n in range(start, paired):
        yield f"/{n}", _changes(old[n], new[n])
    for _ in range(paired, old_end):
        yield f"/{paired}", [_Operation("remove", "")]
    for n in range(paired, new_end):
        yield f"/{n}", [_Operation("add", "", _text(new[n]))]


def _equal(old: object, new: object) -> bool:
    return old == new and _text(old) == _text(new)  # to Python, 1 and true are equal


_text = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode
"""Returns JSON text that is equal for equal values."""
