"""Requests as bytes, as no HTTP client would write them: whatever they are, nothing but an error comes of them."""

import json
import os
import re
import socket
from collections import Counter
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import h11
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devstack.local import ROOT
from devstack.process import LOCALHOST
from tests.hostile.operations import possessions
from tests.support.app import Client, token
from tests.support.figures import record
from tests.support.serving import Service, serving

LONG = os.environ.get("PROFILE") == "full"
INPUTS = {"app": 80_000, "functions": 20_000} if LONG else {"app": 4_000, "functions": 1_000}
PATIENCE = 5.0
"""Seconds for an answer, or for the end of the connection."""

PATHS: dict[str, Any] = json.loads((ROOT / "docs" / "openapi.json").read_text())["paths"]
METHODS = [b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"HEAD", b"OPTIONS", b"TRACE", b"CONNECT", b"get", b"QUERY"]
QUERIES = sorted(
    {
        parameter["name"]
        for item in PATHS.values()
        for operation in item.values()
        for parameter in operation.get("parameters", ())
        if parameter["in"] == "query"
    }
)
MEMBERS = [
    "twin_name",
    "use_case",
    "tone",
    "consent",
    "summary",
    "traits",
    "items",
    "twin_id",
    "purpose",
    "purposes",
    "notice",
]
HEADERS = [
    *(b"Content-Type", b"Idempotency-Key", b"If-Match", b"If-None-Match", b"Accept", b"X-Request-Id", b"traceparent"),
    *(b"Expect", b"Range", b"Cookie", b"Host", b"X-HTTP-Method-Override", b"X-Forwarded-Proto", b"Content-Encoding"),
]
VALUES = [
    *(b"application/json", b"application/merge-patch+json", b"text/plain", b"*", b'"1"', b'W/"1", "2"', b"*/*;q=0"),
    *(b"gzip", b"100-continue", b"bytes=0-", b"a-key", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", b"", b"%0d%0a"),
]
UGLY = [
    "%00",
    "%FF",
    "%2F",
    "%252e",
    "%0d%0aSet-Cookie:%20a=1",
    "..",
    "%ED%A0%80",
    "'",
    '"',
    "$where",
    "\\",
    "%F0%9F%9A%B2",
]


@dataclass(frozen=True)
class Sent:
    """One request, as it goes out."""

    method: bytes
    head: bytes
    body: bytes

    @property
    def raw(self) -> bytes:
        return self.head + b"\r\n\r\n" + self.body


def requests(ids: dict[str, str], bearer: str) -> st.SearchStrategy[Sent]:
    """Mostly well-formed requests to real resources, each with something that should not be there."""
    junk = st.binary(max_size=40)
    texts = st.one_of(st.sampled_from(UGLY), st.text(max_size=20).map(quote), st.sampled_from(sorted(ids.values())))

    @st.composite
    def targets(draw: st.DrawFn) -> bytes:
        if draw(st.integers(0, 9)) == 0:
            return b"/" + draw(junk)
        path = draw(st.sampled_from(sorted(PATHS)))
        for name in re.findall(r"\{(\w+)\}", path):
            path = path.replace(f"{{{name}}}", draw(st.just(ids[name]) | texts))
        pairs = draw(st.lists(st.tuples(st.sampled_from(QUERIES) | texts, texts), max_size=3))
        query = "&".join(f"{name}={value}" for name, value in pairs)
        return (path + (f"?{query}" if query else "")).encode()

    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("\ud800")
    values = st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(MEMBERS) | st.text(max_size=5), inner, max_size=6)
        ),
        max_leaves=12,
    )
    bodies = st.one_of(
        st.just(b""),
        st.just(b'{"twin_name": "Alex", "use_case": "support", "tone": "warm", "consent": true}'),
        values.map(lambda value: json.dumps(value).encode()),
        st.dictionaries(st.sampled_from(MEMBERS), values, max_size=5).map(lambda value: json.dumps(value).encode()),
        junk,
    )
    bearers = st.sampled_from([f"Bearer {bearer}".encode()] * 9 + [b"Bearer x", b"Basic eDp5"])
    headers = st.lists(st.tuples(st.sampled_from(HEADERS) | junk, st.sampled_from(VALUES) | junk), max_size=4)

    @st.composite
    def whole(draw: st.DrawFn) -> Sent:
        method = draw(st.sampled_from(METHODS) if draw(st.integers(0, 9)) else junk)
        body = draw(bodies)
        lines = [
            method + b" " + draw(targets()) + b" HTTP/1.1",
            b"Host: twins.test",
            b"Connection: close",
            b"Authorization: " + draw(bearers),
            *(name + b": " + value for name, value in draw(headers)),
        ]
        framing = draw(st.sampled_from(["length"] * 7 + ["chunked", "short", "none"]))
        if framing == "chunked":
            lines.append(b"Transfer-Encoding: chunked")
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
        elif framing != "none" and body:
            lines.append(b"Content-Length: %d" % (len(body) - (framing == "short")))
        return Sent(method, b"\r\n".join(lines), body)

    noise = st.binary(max_size=200).map(lambda raw: Sent(b"", raw, b""))
    return st.integers(0, 19).flatmap(lambda n: whole() if n else noise)


def send(port: int, sent: Sent) -> bytes:
    """Return all that comes back; the end of what is sent ends a request that waits for more."""
    with socket.create_connection((LOCALHOST, port), PATIENCE) as connection:
        connection.sendall(sent.raw)
        received = b""
        try:
            # For an answer that comes at once the connection must stay open.
            connection.settimeout(0.5)
            while chunk := connection.recv(65536):
                received += chunk
        except TimeoutError:
            connection.settimeout(PATIENCE)
            connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionResetError:
            pass
        return received


def judge(sent: Sent, received: bytes) -> str:
    """Check that an answer is one whole HTTP message and no failure, and return its status."""
    if not received:
        return "none"
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="HEAD" if sent.method == b"HEAD" else "GET", target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(received)
    client.receive_data(b"")
    answer, content = None, b""
    while not isinstance(event := client.next_event(), (h11.EndOfMessage, h11.ConnectionClosed)):
        assert event is not h11.NEED_DATA, "the answer is cut off"
        if isinstance(event, h11.Response):
            answer = event
        elif isinstance(event, h11.Data):
            content += event.data
    assert answer is not None
    headers = dict(answer.headers.raw_items())
    assert answer.status_code < 500, content
    assert b"set-cookie" not in {name.lower() for name in headers}
    assert b"Traceback" not in content
    by_us = b"x-request-id" in {name.lower() for name in headers}
    if by_us and answer.status_code >= 400 and sent.method != b"HEAD":
        assert json.loads(content)["status"] == answer.status_code
    return str(answer.status_code) if by_us else f"{answer.status_code} of the server"


@pytest.mark.parametrize("front", ["app", "functions"])
async def test_no_bytes_whatever_make_the_service_fail(front: str, environment: dict[str, str]) -> None:
    with serving(environment, front) as service:
        bearer = token("fuzzer")
        headers = {"Authorization": f"Bearer {bearer}"}
        async with Client(base_url=service.url, headers=headers, trust_env=False) as client:
            ids = await possessions(client)
            seen = _fuzz(service, ids, bearer, INPUTS[front])
            assert (await client.get("/ready")).status_code == 200
        assert service.is_sound(), service.written[-3000:]
    assert seen.total() >= INPUTS[front]
    assert seen["none"] < seen.total() * 0.1, "mostly noise has no answer"
    record("fuzz", {"front": front, "inputs": seen.total(), "outcomes": dict(sorted(seen.items()))})


def _fuzz(service: Service, ids: dict[str, str], bearer: str, inputs: int) -> Counter[str]:
    seen: Counter[str] = Counter()

    # In the long run each time others, which a failure prints.
    @settings(max_examples=inputs, derandomize=not LONG, database=None, suppress_health_check=list(HealthCheck))
    @given(requests(ids, bearer))
    def fuzz(sent: Sent) -> None:
        seen[judge(sent, send(service.port, sent))] += 1

    fuzz()
    return seen
