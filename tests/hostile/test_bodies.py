"""Hostile bodies on every route: a 4xx problem, and nothing has changed."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from devstack.functions_host import WorkerTransport
from shared.http.arguments import MAX_BODY
from shared.http.routing import ApiRoute, _scopes
from tests.hostile.operations import Operation, operations, possessions, state
from tests.support.app import Client, is_problem
from twins.resources import RESOURCES

JSON = "application/json"


@pytest.fixture(scope="module")
def writes(environment: dict[str, str]) -> list[Operation]:
    """Every operation that takes a body."""
    found = [operation for operation in operations() if operation.body is not None]
    assert len(found) > 5
    return found


async def refused(
    alice: Client, operation: Operation, ids: dict[str, str], content: Any, media_type: str = JSON
) -> int:
    """Send a body, and return the status of the problem that it is answered with."""
    request = operation.request(alice, ids)
    answer = await alice.request(operation.method, request.url, content=content, headers={"Content-Type": media_type})
    assert 400 <= answer.status_code < 500, (operation, str(content)[:50])
    assert is_problem(answer, answer.status_code, answer.json()["type"].removeprefix("/problems/"))
    return answer.status_code


OPTIONAL = ("/renew", "/withdraw", "/refusals")
"""The ends of the paths whose body may be left out."""

UNREADABLE = {
    "cut short": b'{"tone":',
    "NaN": b'{"tone":NaN}',
    "1e400": b'{"tone":1e400}',
    "a name twice": b'{"tone":"a","tone":"a"}',
    "lone surrogate": rb'{"tone":"\ud800"}',
    "lone surrogate as a name": rb'{"\udfff":1}',
    "invalid UTF-8": b'{"tone":"\xff"}',
    "UTF-16": '{"tone":"a"}'.encode("utf-16"),
    "raw NUL": b'{"tone":"a\x00"}',
    "10,000 levels of arrays": b"[" * 10_000 + b"]" * 10_000,
    "100,000 levels never closed": b'{"a":' * 100_000,
    "33 levels": b'{"a":' * 33 + b"1" + b"}" * 33,
    "an integer beyond a double": b'{"extensions":{"n":' + b"9" * 4000 + b"}}",
    "a number of 100,000 digits": b'{"tone":' + b"9" * 100_000 + b"}",
    "two documents": b"{}{}",
    "byte order mark": b"\xef\xbb\xbf{}",
    "blank": b" \n",
}


async def test_a_body_that_cannot_be_read_is_400_and_changes_nothing(alice: Client, writes: list[Operation]) -> None:
    ids = await possessions(alice)
    before = await state(alice, ids)
    for operation in writes:
        for name, content in UNREADABLE.items():
            status = await refused(alice, operation, ids, content)
            assert status == 400 or (status == 413 and len(content) > MAX_BODY), (operation, name)
    assert await state(alice, ids) == before


MISFITS = (
    b"null", b"true", b"0", b'""', b"[]", b"[{}]", b'{"unknown":1}', b'{"\\u0000":1}', b'{"__proto__":{}}',
    b'{"$where":"1"}', b'{"' + b"x" * 10_000 + b'":1}',
)  # fmt: skip


async def test_a_body_that_does_not_fit_is_422_and_changes_nothing(alice: Client, writes: list[Operation]) -> None:
    ids = await possessions(alice)
    before = await state(alice, ids)
    for operation in writes:
        for content in MISFITS:
            if content == b"null" and operation.path.endswith(OPTIONAL):
                continue
            assert await refused(alice, operation, ids, content) == 422, (operation, content)
    assert await state(alice, ids) == before


@pytest.mark.parametrize(
    "poison",
    [
        "",
        "\u200b\u200b",
        "\U000e0041\U000e0042",
        "\uffff",
        "a\0b",
        "a\u202eb",
        7,
        ["a"],
        "x" * 30_000,
        "\u0958" * 20_001,
    ],
)
async def test_a_text_nobody_could_read_is_refused_wherever_it_stands(
    alice: Client, writes: list[Operation], poison: Any
) -> None:
    ids = await possessions(alice)
    before = await state(alice, ids)
    for operation in writes:
        for worse in operation.spoiled(ids, poison):
            content = json.dumps(worse).encode()
            status = await refused(alice, operation, ids, content)
            assert status == 422 or (status == 413 and len(content) > MAX_BODY), (operation, worse)
    assert await state(alice, ids) == before


async def test_a_body_that_is_too_large_or_of_another_kind_or_absent_is_refused(
    alice: Client, writes: list[Operation], transport: httpx.AsyncBaseTransport
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        # The host of Azure Functions loses a body that has no length.
        yield b"{}" if isinstance(transport, WorkerTransport) else b""

    ids = await possessions(alice)
    before = await state(alice, ids)
    for operation in writes:
        assert await refused(alice, operation, ids, b" " * 2 * 1024 * 1024) == 413, operation
        for media_type in ("text/plain", "application/xml", "application/x-www-form-urlencoded", "x", ""):
            assert await refused(alice, operation, ids, b"{}", media_type) == 415, (operation, media_type)
        if not operation.path.endswith(OPTIONAL):
            assert await refused(alice, operation, ids, b"") == 422, operation
            answer = await alice.request(operation.method, operation.request(alice, ids).url, content=chunks())
            assert is_problem(answer, 422, "validation-failed"), operation
    assert await state(alice, ids) == before


# --- Routes that take no body -------------------------------------------------------------------

BODILESS = [
    f"{method} {route.path_format}"
    for resource in RESOURCES
    for route in resource.router.routes
    if isinstance(route, ApiRoute) and not route.dependant.body_params and not _scopes(route.dependant)
    for method in sorted((route.methods or set()) - {"GET", "HEAD"})
]


@pytest.fixture(params=BODILESS)
def bodiless(request: pytest.FixtureRequest, environment: dict[str, str]) -> Operation:
    """One operation that changes something and takes no body."""
    (found,) = [operation for operation in operations() if str(operation) == request.param]
    return found


async def test_a_body_nobody_asked_for_is_refused_and_changes_nothing(
    alice: Client, bodiless: Operation, transport: httpx.AsyncBaseTransport
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        # The host of Azure Functions loses a body that has no length.
        yield b'{"dry_run":true}' if isinstance(transport, WorkerTransport) else b""

    ids = await possessions(alice)
    before = await state(alice, ids)
    for content in (*MISFITS, b'{"dry_run":true}', b'{"purposes":["voice"]}', b" [0] "):
        assert await refused(alice, bodiless, ids, content) == 422, content
    assert await refused(alice, bodiless, ids, chunks()) == 422
    for name, content in UNREADABLE.items():
        assert await refused(alice, bodiless, ids, content) == (413 if len(content) > MAX_BODY else 400), name
    assert await refused(alice, bodiless, ids, b" " * 2 * 1024 * 1024) == 413
    for media_type in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert await refused(alice, bodiless, ids, b"{}", media_type) == 415, media_type
    assert await state(alice, ids) == before


@pytest.mark.parametrize("content", [b"", b"{}", b" { } "])
async def test_an_empty_body_and_an_empty_object_ask_for_nothing(
    alice: Client, bodiless: Operation, content: bytes
) -> None:
    url = bodiless.request(alice, await possessions(alice)).url
    answer = await alice.request(bodiless.method, url, content=content, headers={"Content-Type": JSON})

    assert answer.is_success, answer.text
