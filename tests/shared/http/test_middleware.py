"""The outermost layer: whatever happens inside, one well-formed answer gets out."""

import gc
import logging
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from shared import logging as logs
from shared.http.middleware import wrap
from shared.http.validation import add_handlers


class Caught(list[Message]):
    """Collects what an application sends."""

    async def __call__(self, message: Message) -> None:
        self.append(message)

    @property
    def headers(self) -> dict[str, str]:
        pairs = self[0]["headers"]
        assert len(pairs) == len({name for name, _ in pairs})
        return {name.decode(): value.decode("ascii") for name, value in pairs}


async def nothing() -> None:
    pass


def scope_of(path: str = "/", headers: list[tuple[bytes, bytes]] | None = None) -> Scope:
    return {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers or [],
    }


async def receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def call(app: Any, scope: Scope | None = None) -> Caught:
    sent = Caught()
    await wrap(app, nothing, nothing)(scope or scope_of(), receive, sent)
    return sent


def answering(*headers: tuple[bytes, bytes], status: int = 200) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await send({"type": "http.response.body", "body": b"x"})

    return app


# --- Exceptions ----------------------------------------------------------------------------------


async def test_an_exception_before_the_answer_is_a_problem(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("what a client sent")

    sent = await call(app)

    assert (sent[0]["status"], sent.headers["content-type"]) == (500, "application/problem+json")
    assert sent.headers["x-request-id"].encode() in sent[1]["body"]
    assert b"what a client sent" not in sent[1]["body"]
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert vars(record)["error"] == "RuntimeError"
    assert "test_middleware.py:" in vars(record)["stack"]
    assert "what a client sent" not in caplog.text
    assert record.exc_info is None


async def test_an_exception_after_the_answer_has_begun_adds_no_second_one() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answering()(scope, receive, send)
        raise RuntimeError

    sent = await call(app)

    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 200


async def test_an_exception_in_a_route_is_answered_once() -> None:
    app = FastAPI()
    add_handlers(app)

    @app.get("/boom")
    async def boom() -> None:
        raise LookupError

    sent = await call(app, scope_of("/boom"))

    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 500
    assert sent.headers["content-type"] == "application/problem+json"


# --- Headers -------------------------------------------------------------------------------------


async def test_headers_of_one_name_are_joined_and_names_are_in_lower_case() -> None:
    sent = await call(answering((b"Link", b"</a>"), (b"link", b"</b>"), (b"Vary", b"Accept")))

    assert sent.headers["link"] == "</a>, </b>"
    assert sent.headers["vary"] == "Accept"


async def test_a_header_value_beyond_ascii_is_replaced() -> None:
    sent = await call(answering((b"x-name", "Zoë".encode("latin-1"))))

    assert sent.headers["x-name"] == "Zo?"


async def test_security_headers_are_on_every_answer_that_does_not_set_them() -> None:
    sent = await call(answering((b"cache-control", b"private")))

    assert sent.headers["cache-control"] == "private"
    assert sent.headers["x-content-type-options"] == "nosniff"
    assert sent.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert sent.headers["strict-transport-security"].startswith("max-age=")
    assert (await call(answering())).headers["cache-control"] == "no-store"


async def test_an_answer_without_headers_and_body_is_completed() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    sent = await call(app)

    assert sent[1]["body"] == b""
    assert "x-request-id" in sent.headers


# --- Request ids ---------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["a", "0b8f6a4e-7c1d-4f2a-9a53-3d1e5c7b9f20", "A.b_c:d-9", "x" * 64])
async def test_a_given_request_id_is_kept(given: str) -> None:
    seen: list[str | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(logs.request_id())
        await answering()(scope, receive, send)

    sent = await call(app, scope_of(headers=[(b"x-request-id", given.encode())]))

    assert sent.headers["x-request-id"] == given
    assert seen == [given]


@pytest.mark.parametrize(
    "given", [None, b"", b" ", b"x" * 65, b"a b", b"a\nb", b"a\n", b"a,b", b'"', b"\xff", "é".encode(), b"<x>"]
)
async def test_a_request_id_that_does_not_fit_is_replaced_by_a_new_one(given: bytes | None) -> None:
    headers = [] if given is None else [(b"x-request-id", given)]
    made = {(await call(answering(), scope_of(headers=headers))).headers["x-request-id"] for _ in range(2)}

    assert len(made) == 2
    assert all(UUID(one).version == 4 for one in made)


async def test_a_request_id_ends_with_its_request(caplog: pytest.LogCaptureFixture) -> None:
    logs.configure("INFO")
    with caplog.at_level(logging.INFO, "shared.http.middleware"):
        await call(answering(status=404), scope_of("/secret", [(b"x-request-id", b"first")]))
        await call(answering(status=404))

    first, second = [vars(record) for record in caplog.records if record.message == "Request"]
    assert (first["request_id"], first["method"], first["status"]) == ("first", "GET", 404)
    assert second["request_id"] != "first"
    assert first["duration_ms"] >= 0
    assert "secret" not in str(first)


@pytest.mark.parametrize(
    ("method", "status", "level"),
    [
        ("GET", 200, logging.DEBUG),
        ("HEAD", 304, logging.DEBUG),
        ("GET", 404, logging.INFO),
        ("POST", 201, logging.INFO),
    ],
)
async def test_only_reads_that_succeed_are_left_out_of_the_usual_log(
    method: str, status: int, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "shared.http.middleware"):
        await call(answering(status=status), {**scope_of(), "method": method})

    (line,) = [record for record in caplog.records if record.message == "Request"]
    assert line.levelno == level


# --- The rest of ASGI ----------------------------------------------------------------------------


async def lifespan(*messages: str) -> tuple[list[str], int]:
    closed: list[bool] = []
    waiting = [{"type": f"lifespan.{message}"} for message in messages]

    async def close() -> None:
        closed.append(True)

    async def receive() -> Message:
        return waiting.pop(0)

    sent = Caught()
    await wrap(FastAPI(), nothing, close)({"type": "lifespan"}, receive, sent)
    return [message["type"] for message in sent], len(closed)


async def test_what_a_server_has_imported_is_left_out_of_collections() -> None:
    gc.unfreeze()
    await lifespan("startup", "shutdown")
    assert gc.get_freeze_count() > 10_000
    gc.unfreeze()


async def test_a_lifespan_starts_at_once_and_closes_at_its_end() -> None:
    assert await lifespan("startup", "shutdown") == (
        ["lifespan.startup.complete", "lifespan.shutdown.complete"],
        1,
    )


async def test_a_second_startup_is_not_taken_for_a_shutdown() -> None:
    sent, closed = await lifespan("startup", "startup", "startup", "shutdown")

    assert sent == ["lifespan.startup.complete"] * 3 + ["lifespan.shutdown.complete"]
    assert closed == 1


async def test_a_shutdown_without_a_startup_is_harmless() -> None:
    assert await lifespan("shutdown") == (["lifespan.shutdown.complete"], 1)


async def test_what_the_functions_adapter_leaves_out_is_added() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await answering()(scope, receive, send)

    await call(app)

    assert seen[0]["asgi"]["version"] == "3.0"


async def test_a_websocket_is_not_for_this_application() -> None:
    sent = Caught()
    await wrap(FastAPI(), nothing, nothing)({"type": "websocket", "path": "/", "headers": []}, receive, sent)

    assert sent == []
