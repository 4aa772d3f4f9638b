"""The functions of Bicep and ARM templates that these templates use, on plain JSON values."""

import hashlib
from collections.abc import Callable
from typing import Any

from infra.checks.resources import Runtime


def text(value: Any) -> str:
    """Return a value as it appears inside a string."""
    return "" if value is None else str(value)


def _format(pattern: str, *arguments: Any) -> str:
    for number, argument in enumerate(arguments):
        pattern = pattern.replace(f"{{{number}}}", text(argument))
    return pattern.replace("{{", "{").replace("}}", "}")


def _concat(*values: Any) -> Any:
    if isinstance(values[0], list):
        return [item for value in values for item in value]
    return "".join(text(value) for value in values)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "and": lambda *values: all(values),
    "concat": _concat,
    "createArray": lambda *values: list(values),
    "createObject": lambda *pairs: dict(zip(pairs[::2], pairs[1::2], strict=True)),
    "empty": lambda value: not value,
    "environment": lambda: {"suffixes": {"storage": "core.windows.net"}},
    "equals": lambda left, right: left == right,
    "format": _format,
    "items": lambda value: [{"key": key, "value": value[key]} for key in sorted(value)],
    "length": len,
    "not": lambda value: not value,
    "notEquals": lambda left, right: left != right,
    "null": lambda: None,
    "or": lambda *values: any(values),
    "replace": lambda value, old, new: value.replace(old, new),
    "resourceGroup": lambda: {"id": "/subscriptions/s/resourceGroups/g", "location": "westeurope"},
    "string": text,
    "subscriptionResourceId": lambda kind, name: f"/subscriptions/s/providers/{kind}/{name}",
    "take": lambda value, count: value[:count],
    "tenant": lambda: {"tenantId": Runtime("tenantId")},
    "uniqueString": lambda *values: hashlib.sha256("".join(map(str, values)).encode()).hexdigest()[:13],
    "utcNow": lambda: "2026-01-01T00:00:00Z",
}
"""By name; any other function gives a `Runtime` value."""


def call(name: str, arguments: list[Any]) -> Any:
    """Apply a function; one that needs Azure gives a `Runtime` value."""
    if name in FUNCTIONS:
        return FUNCTIONS[name](*arguments)
    return Runtime(f"{name}({', '.join(map(str, arguments))})")


def member(base: Any, name: str | int) -> Any:
    """Return a member of an object or array; of a `Runtime` value, another."""
    if isinstance(base, Runtime):
        return Runtime(f"{base}.{name}")
    return base[name]
