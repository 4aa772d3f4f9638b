"""What means something to an interpreter, wherever a client can put it: it is text, and no more than that."""

import asyncio
import base64
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from devstack.process import LOCALHOST
from shared.http.text import is_line
from tests.hostile.operations import Operation, id_in, operations, possessions, state
from tests.support.app import ALEX, Client, id_of, is_problem, make_twin, token
from tests.support.consent import NOTICE
from tests.support.erasure import finish
from tests.support.serving import Service, serving
from twins.context import Context

INJECTIONS = {
    "SQL that ends a statement": "'; DROP TABLE twins; --",
    "SQL that is always true": "' OR 1=1 --",
    "SQL between dollars": "$$; SELECT pg_sleep(9); $$ $1",
    "SQL wildcards": "%_%",
    "MongoDB operator": '{"$gt": ""}',
    "MongoDB code": "$where: function() { while (true); }",
    "JSON that goes on": '"}],"extensions":{"admin":true},"x":[{"y":"\\',
    "HTML": '"><script>alert(1)</script><img src=x onerror=alert(1)>',
    "template": "{{7*7}}${7*7}<%= 7*7 %>#{7*7}",
    "JNDI": "${jndi:ldap://127.0.0.1:9/a}",
    "path": "../../../../etc/passwd",
    "header": "x\r\nSet-Cookie: x=1\r\n\r\n<p>",
    "encoded header": "x%0d%0aSet-Cookie:%20x=1",
    "link": '>; rel="next", <https://twins.invalid/>; rel="prev',
    "LDAP": "*)(uid=*))(|(uid=*",
    "format": "%s%n%x%999999d{0}{0.__class__.__init__.__globals__}",
    "shell": "$(id)`id`|id;id&id",
    "formula": "=cmd|' /C calc'!A0",
    "right to left": "ליאור مرحبا",
    "right to left by force": "a\u202egnp.exe",
}
injection = pytest.mark.parametrize("injection", INJECTIONS.values(), ids=INJECTIONS.keys())
line = pytest.mark.parametrize(
    "line", [pytest.param(text, id=name) for name, text in INJECTIONS.items() if is_line(text)]
)


@pytest.fixture(scope="module")
def writes(environment: dict[str, str]) -> list[Operation]:
    """Every operation that takes a body."""
    return [operation for operation in operations() if operation.body is not None]


@pytest.fixture(scope="module")
def lists(environment: dict[str, str]) -> list[Operation]:
    """Every list that has pages."""
    found = [operation for operation in operations() if "cursor" in in_query(operation)]
    assert len(found) >= 4
    return found


def in_query(operation: Operation) -> dict[str, str]:
    """Return the types of an operation's parameters in the query, by their names."""
    # What has a name of its own is a text of a list.
    return {it["name"]: it["schema"].get("type", "string") for it in operation.parameters if it["in"] == "query"}


def assert_harmless(answer: httpx.Response) -> None:
    """The server has not failed, and no header is of the client's making."""
    assert answer.status_code < 500, answer.text
    assert not any(re.search(rb"[\r\n\0]", name + value) for name, value in answer.headers.raw), answer.headers
    assert "set-cookie" not in answer.headers


def is_in(sent: Any, got: Any) -> bool:
    """Tell whether everything that was sent is in what came back; newlines are stored as U+000A, but for notices."""
    if isinstance(sent, dict):
        return all(name in got and is_in(value, got[name]) for name, value in sent.items())
    if isinstance(sent, list):
        return len(sent) == len(got) and all(map(is_in, sent, got))
    return bool(got == sent or (isinstance(sent, str) and got == sent.replace("\r\n", "\n")))


# --- Bodies --------------------------------------------------------------------------------------


async def test_a_whole_body_is_accepted_so_what_is_refused_below_is_refused_for_one_string(
    alice: Client, writes: list[Operation]
) -> None:
    for operation in writes:
        ids = await possessions(alice, refused=False)
        if operation.path.endswith(("/withdraw", "/renew")):
            continue  # its purposes have to be those of the consent
        answer = await alice.send(operation.request(alice, ids, operation.whole_for(ids)))
        assert answer.is_success, (operation, answer.text)


@injection
async def test_text_comes_back_as_it_was_sent_or_is_refused_and_changes_nothing(
    alice: Client, bob: Client, writes: list[Operation], injection: str
) -> None:
    # Where somebody has refused, a text that is accepted could still be a consent that is not.
    theirs, ids = await possessions(bob), await possessions(alice, refused=False)
    untouched = await state(bob, theirs)
    refused, accepted = [], 0

    for operation in writes:
        for body in operation.spoiled(ids, injection):
            answer = await alice.send(operation.request(alice, ids, body))
            assert_harmless(answer)
            if not answer.is_success:
                refused.append((operation, body))
                continue
            if operation.path.endswith("/decisions"):
                continue  # nothing of a question is kept, and its answer has other members
            place = answer.headers.get("content-location") or answer.headers.get("location") or answer.request.url
            read = await alice.get(place)
            assert_harmless(read)
            assert is_in(body, answer.json()), (operation, body)
            assert is_in(body, read.json()), (operation, body)
            accepted += 1
            if operation.method == "POST":  # what is agreed to cannot be agreed to again
                ids = await possessions(alice, refused=False)

    before = await state(alice, ids)
    assert refused
    assert (accepted > 0) == ("\u202e" not in injection)
    for operation, body in refused:
        answer = await alice.send(operation.request(alice, ids, body))
        assert is_problem(answer, 422, "validation-failed"), (operation, body)
        assert json.dumps(injection, ensure_ascii=False)[1:-1] not in answer.text
    assert await state(alice, ids) == before
    assert await state(bob, theirs) == untouched


@pytest.mark.parametrize("operator", [{"$gt": ""}, {"$where": "sleep(9000)"}, {"__proto__": {"admin": True}}], ids=str)
async def test_an_operator_is_no_text(alice: Client, writes: list[Operation], operator: dict[str, Any]) -> None:
    ids = await possessions(alice)
    before = await state(alice, ids)
    for operation in writes:
        for body in operation.spoiled(ids, operator):
            answer = await alice.send(operation.request(alice, ids, body))
            assert is_problem(answer, 422, "validation-failed"), (operation, body)
    assert await state(alice, ids) == before


NAMES = [
    *("$where", "$gt", "$set", "$ref", "$id", "$db", "a.b", ".", "", "_id", "twin_id", "extensions"),
    *("__proto__", "constructor", "__class__", "a\0b", "~1/~0", *INJECTIONS.values()),
]


async def test_names_that_mean_something_to_a_store_are_kept_in_extensions(alice: Client, bob: Client) -> None:
    theirs = await possessions(bob)
    untouched = await state(bob, theirs)
    path = f"{await make_twin(alice)}/persona"
    extensions = {name: {name: list(INJECTIONS.values())} for name in NAMES}
    extensions["reference"] = {"$ref": "personas", "$id": "x", "$db": "admin"}  # type: ignore[dict-item]
    text = json.dumps(extensions)

    written = await alice.put(path, json={"extensions": extensions})
    read = await alice.get(path)
    patched = await alice.patch(path, json={"extensions": {"$set": {"$unset": "x"}, "$where": None}})
    merged = {**extensions, "$set": {**extensions["$set"], "$unset": "x"}}
    del merged["$where"]

    assert [json.dumps(answer.json()["extensions"]) for answer in (written, read)] == [text, text]
    assert patched.json()["extensions"] == merged
    assert (await alice.get(path)).json()["extensions"] == merged
    assert (await alice.get(f"{path}/versions/1")).json()["extensions"] == extensions
    for below in ("/diff?from=1&to=2", "/prompt"):
        answer = await alice.get(path + below)
        assert_harmless(answer)
        assert answer.is_success
    assert await state(bob, theirs) == untouched


# --- Queries and paths ---------------------------------------------------------------------------


@injection
async def test_a_query_is_compared_and_never_run(alice: Client, injection: str) -> None:
    ids = await possessions(alice)
    before = await state(alice, ids)
    tried = 0
    for operation in operations():
        for name in (name for name, kind in in_query(operation).items() if kind == "string"):
            answer = await alice.send(operation.request(alice, ids, query={name: injection}))
            assert_harmless(answer)
            if answer.is_success:
                # A list, or an answer of the gate.
                found = answer.json()
                assert found == {"items": [], "next_cursor": None} or found["decision"] is False, (operation, name)
            else:
                assert is_problem(answer, 422, "validation-failed"), (operation, name)
            tried += 1
    assert tried > 4
    assert await state(alice, ids) == before


@line
async def test_a_filter_finds_its_own_text_and_the_link_to_the_next_page_is_one_link(alice: Client, line: str) -> None:
    await possessions(alice)
    made = [await make_twin(alice, twin_name=line, use_case=line, tone=line) for _ in range(2)]
    for name in ("q", "use_case", "tone"):
        first = await alice.get("/api/v1/twins", params={name: line, "limit": 1})
        link = re.fullmatch(r'<(/api/v1/twins\?[\w%&=.~*+-]+)>; rel="next"', first.headers["link"])
        assert link, first.headers
        second = await alice.get(link[1])
        found = [item["id"] for page in (first, second) for item in page.json()["items"]]
        assert [f"/api/v1/twins/{twin_id}" for twin_id in found] == made[::-1]
        assert second.json()["next_cursor"] is None


@injection
async def test_a_path_names_nothing_but_what_there_is(alice: Client, injection: str) -> None:
    ids = await possessions(alice)
    before = await state(alice, ids)
    for operation in operations():
        for name in operation.ids:
            request = operation.request(alice, ids | {name: quote(injection, safe="")})
            answer = await alice.send(request)
            assert_harmless(answer)
            assert answer.is_client_error, (operation, name)
            assert is_problem(answer, answer.status_code, answer.json()["type"].removeprefix("/problems/"))
    assert await state(alice, ids) == before


# --- Response splitting --------------------------------------------------------------------------

ENCODED = ["%0d%0a", "%0a", "%0d", "%250d%250a", "%E5%98%8D%E5%98%8A", "%C0%8D%C0%8A"]
RAW = ["\r\n", "\n", "\r", "\r\n ", "\n\t", "\0", "\x85"]
TARGETS = [
    *("/{}", "/docs/assets/{}", "/problems/{}", "/api/v1/twins/{}", "/api/v1/erasures/{}"),
    *("/api/v1/twins?q={}", "/api/v1/twins?limit=1&use_case={}", "/api/v1/twins?cursor={}", "/api/v1/twins?{}=1"),
]
HEADERS = [
    *("X-Request-Id", "Idempotency-Key", "traceparent", "tracestate", "If-Match", "If-None-Match", "Accept", "Origin"),
    *("Content-Type", "Authorization", "Range", "X-Forwarded-Host", "Forwarded", "Referer"),
]


def attempts() -> Iterator[tuple[str, str, str]]:
    """Yield a target, and a header with its value: in one of them is the end of a line and what may come after."""
    for split in ENCODED:
        for target in TARGETS:
            yield target.format(f"x{split}Set-Cookie:x=1{split}{split}<p>"), "X-Request-Id", "x"
    for split in ENCODED + RAW:
        for header in HEADERS:
            yield "/api/v1/twins", header, f"x{split}Set-Cookie: x=1"


async def test_no_line_of_a_client_gets_into_the_head_of_an_answer(alice: Client) -> None:
    await possessions(alice)
    for target, header, value in attempts():
        for method in ("GET", "POST"):
            headers = [(header.encode(), value.encode("latin-1"))]
            answer = await alice.request(method, target, headers=headers, content=b"{}")
            assert_harmless(answer)


@pytest.fixture(scope="module")
def service(environment: dict[str, str]) -> Iterator[Service]:
    with serving(environment) as running:
        yield running
        assert running.is_sound(), running.written


async def test_nor_as_bytes_on_the_wire(service: Service) -> None:
    for target, header, value in attempts():
        lines = [f"GET {target} HTTP/1.1", "Host: twins.test", "Connection: close", f"{header}: {value}"]
        if header != "Authorization":
            lines.append(f"Authorization: Bearer {token('splitter')}")
        reader, writer = await asyncio.open_connection(LOCALHOST, service.port)
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        head, end, body = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()

        status, *fields = head.split(b"\r\n")
        assert re.fullmatch(rb"HTTP/1\.1 [1-4]\d\d [A-Za-z ]+", status), head
        assert end
        assert all(re.fullmatch(rb"[A-Za-z-]+: [\t\x20-\x7e]*", one) for one in fields), head
        assert not any(one.lower().startswith(b"set-cookie") for one in fields), head
        assert b"HTTP/1.1" not in body


# --- Cursors -------------------------------------------------------------------------------------


async def two_of_each(client: Client, context: Context) -> dict[str, str]:
    """Make enough for a second page in every list."""
    account = (await client.get("/api/v1/me")).json()
    left = None
    if account["twins"] == 0:  # an erasure of two twins, of which each has a ledger
        for _ in range(2):
            await make_twin(client)
        left = (await client.delete("/api/v1/me")).headers["location"]
        await finish(context, left)
    ids = await possessions(client, refused=False)
    twin = f"/api/v1/twins/{ids['twin_id']}"
    await make_twin(client, twin_name="Another secret", use_case="secret use", tone="secret tone")
    (create_consent,) = (it for it in operations() if str(it) == "POST /api/v1/twins/{twin_id}/consents")
    assert (await client.send(create_consent.request(client, ids))).status_code == 201
    second = f"second {account['sub']}"
    assert (await client.patch(twin, json={"principals": [account["sub"], second]})).status_code == 200
    for headers in ({}, {"Authorization": f"Bearer {token(second)}"}):
        refused = await client.post(f"{twin}/refusals", json={"purposes": ["refused"]}, headers=headers)
        assert refused.status_code == 201
    await leave_records(client, account["sub"], context)
    return ids | {"refusal_id": id_in(refused)} | ({"erasure_id": str(id_of(left))} if left else {})


async def leave_records(client: Client, account: str, context: Context) -> None:
    """Leave two records with an account, of consents to a twin that another owner has erased."""
    owner = {"Authorization": f"Bearer {token(f'owner of {account}')}"}
    body = ALEX | {"consent": False, "principals": [account]}
    made = await client.post("/api/v1/twins", json=body, headers=owner)
    for purpose in ("voice", "face"):
        given = {"purposes": [purpose], "notice": NOTICE}
        assert (await client.post(f"{made.headers['location']}/consents", json=given)).status_code == 201
    erased = await client.delete(made.headers["location"], headers=owner)
    await finish(context, erased.headers["location"])


async def cursor_of(client: Client, operation: Operation, ids: dict[str, str], **query: str) -> str:
    """Return the cursor of a list's second page, which works."""
    first = await client.send(operation.request(client, ids, query={"limit": 1, **query}))
    cursor = first.json()["next_cursor"]
    assert cursor, f"{operation}: teach `two_of_each` to make two"
    second = await client.send(operation.request(client, ids, query={"limit": 1, **query, "cursor": cursor}))
    assert second.status_code == 200
    assert second.json()["items"] != first.json()["items"]
    return str(cursor)


async def assert_refused(client: Client, operation: Operation, ids: dict[str, str], cursor: str, **query: str) -> None:
    answer = await client.send(operation.request(client, ids, query={**query, "cursor": cursor}))
    assert is_problem(answer, 422, "validation-failed"), (operation, cursor)
    (error,) = answer.json()["errors"]
    assert error["parameter"] == "cursor"
    assert error["detail"] == (
        "is not a cursor of this list with these filters"
        if len(cursor) <= 2000
        else "String should have at most 2000 characters"
    )
    assert answer.json().keys() == {"type", "title", "status", "detail", "instance", "request_id", "errors"}
    assert "ecret" not in answer.text


def tampered(cursor: str) -> Iterator[str]:
    yield from (cursor[:n] for n in range(len(cursor)))
    yield from (cursor[n:] for n in range(1, len(cursor)))
    raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    for n in range(len(raw)):
        flipped = raw[:n] + bytes([raw[n] ^ 1 << n % 8]) + raw[n + 1 :]
        yield base64.urlsafe_b64encode(flipped).decode().rstrip("=")
    yield from (cursor + more for more in ("=", "==", "A", "AAAA", "\n", " ", "\0", "é", cursor))
    yield from ("null", "0", "-1", "[]", cursor.swapcase(), cursor[::-1], f" {cursor}", "A" * 2000)
    yield from (cursor.ljust(length, "A") for length in (2001, 10_000))
    yield from INJECTIONS.values()


async def test_a_cursor_that_was_tampered_with_is_refused(
    alice: Client, lists: list[Operation], context: Context
) -> None:
    ids = await two_of_each(alice, context)
    for operation in lists:
        for cursor in tampered(await cursor_of(alice, operation, ids)):
            await assert_refused(alice, operation, ids, cursor)


async def test_a_cursor_opens_the_list_that_gave_it_and_no_other(
    alice: Client, bob: Client, lists: list[Operation], context: Context
) -> None:
    hers, his, her_second = [await two_of_each(client, context) for client in (alice, bob, alice)]
    for given in lists:
        cursor = await cursor_of(alice, given, hers)
        for operation in lists:
            await assert_refused(bob, operation, his, cursor)
            if operation is not given:
                await assert_refused(alice, operation, hers, cursor)
            foreign = await bob.send(operation.request(bob, hers, query={"cursor": cursor}))
            assert foreign.status_code in (404, 422)
            assert "ecret" not in foreign.text
        if given.ids:
            await assert_refused(alice, given, her_second, cursor)


PAIRS = {"external_type": "external_id", "external_id": "external_type", "principal_issuer": "principal"}
"""Filters that need another one."""


def value_of(schema: dict[str, Any]) -> str:
    """Return a value that a filter takes."""
    if "enum" in schema:
        return str(schema["enum"][0])
    if "Assurance" in str(schema):
        return "token"
    if schema.get("format") == "date-time":
        return "2099-01-01T00:00:00Z"
    return "true" if "boolean" in schema.get("type", ()) else "secret"


async def test_a_cursor_goes_on_with_its_own_filters_alone(
    alice: Client, lists: list[Operation], context: Context
) -> None:
    ids = await two_of_each(alice, context)
    for operation in lists:
        cursor = await cursor_of(alice, operation, ids)
        values = {it["name"]: value_of(it["schema"]) for it in operation.parameters if it["in"] == "query"}
        for name in values.keys() - {"limit", "cursor"}:
            given = {both: values[both] for both in (name, PAIRS.get(name, name))}
            await assert_refused(alice, operation, ids, cursor, **given)

    (twins,) = (it for it in lists if it.path == "/api/v1/twins")
    filters: list[dict[str, str]] = [
        *({}, {"q": "secret"}, {"q": "Secret"}, {"use_case": "secret use"}, {"tone": "secret tone"}),
        *({"consent": "true"}, {"q": "secret", "consent": "true"}),
    ]
    for given in filters:
        cursor = await cursor_of(alice, twins, ids, **given)
        for others in filters:
            if others != given:
                await assert_refused(alice, twins, ids, cursor, **others)
