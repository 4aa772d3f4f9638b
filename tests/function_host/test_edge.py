"""What the worker library, the host's habits and our edge make of requests and answers."""

import asyncio
import importlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from devstack.functions_host import Worker, WorkerTransport
from devstack.process import StackError

PROBLEM = "application/problem+json"


@pytest.fixture
async def worker() -> Worker:
    worker = Worker(Path(__file__).parent, "throwaway_app.py")
    await worker.start()
    return worker


@pytest.fixture
def app(worker: Worker) -> ModuleType:
    return importlib.import_module("throwaway_app")


@pytest.fixture
async def client(worker: Worker) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=WorkerTransport(worker), base_url="http://twins.example") as client:
        yield client


async def test_ten_first_requests_at_once_run_no_lifespan(
    worker: Worker, client: httpx.AsyncClient, app: ModuleType
) -> None:
    answers = await asyncio.gather(*(client.get("/known") for _ in range(10)))

    assert [answer.status_code for answer in answers] == [200] * 10
    assert app.scopes == ["http"] * 10


async def test_an_unhandled_exception_is_our_problem_document(client: httpx.AsyncClient) -> None:
    answer = await client.get("/boom", headers={"X-Request-Id": "abc"})

    assert answer.status_code == 500
    assert answer.headers["content-type"] == PROBLEM
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "abc"
    assert "client sent" not in answer.text


async def test_repeated_answer_headers_arrive_whole(client: httpx.AsyncClient) -> None:
    answer = await client.get("/headers")

    assert answer.status_code == 200
    assert answer.headers.get_list("link") == ["</a>; rel=next, </b>; rel=prev"]
    assert answer.headers.get_list("vary") == ["Accept, Origin"]
    assert answer.headers.get_list("www-authenticate") == ["Bearer, Basic"]
    assert answer.headers["x-name"].startswith("Zo")


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_content_has_no_content_type(client: httpx.AsyncClient, status: int) -> None:
    answer = await client.get(f"/status/{status}")

    assert answer.status_code == status
    assert "content-type" not in answer.headers
    assert answer.content == b""


async def test_head_has_the_headers_of_get_and_no_body(client: httpx.AsyncClient) -> None:
    got, head = await client.get("/known"), await client.head("/known")

    assert head.content == b""
    assert head.headers["content-length"] == got.headers["content-length"] == str(len(got.content))
    assert head.headers["content-type"] == got.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "path",
    [
        "/%FF",
        "/known/%FF",
        "/known%2Fmore",
        "/known%2F",
        "/%00",
        "/known/%00",
        "/kno%2577n",
        "/%252e%252e/known%252e",
        "/%252e%252e%252fknown",
        "/status/%20204",
        "/status/%D9%A2%D9%A0%D9%A4",
        "/%ED%A0%80",
        "/%C3%A9",
        "/" + "a" * 8000,
        "//known",
        "/known;a=b",
        "/%",
    ],
)
async def test_a_hostile_path_is_a_4xx_problem(client: httpx.AsyncClient, worker: Worker, path: str) -> None:
    status, headers, body = await worker.request("GET", path, [(b"host", b"twins.example")])

    assert 400 <= status < 500, body
    assert (b"content-type", PROBLEM.encode()) in headers


async def test_a_path_is_not_decoded_a_second_time(client: httpx.AsyncClient, worker: Worker) -> None:
    assert (await client.get("/echo/%252e%2563")).json()["path"] == "/echo/%2e%63"
    assert (await client.get("/echo/%63")).json()["path"] == "/echo/c"


async def test_a_query_arrives_as_it_was_sent(client: httpx.AsyncClient, worker: Worker) -> None:
    answer = await client.get("/echo", params={"q": "100%/ü+?"})

    assert answer.json()["query"] == "q=100%25%2F%C3%BC%2B%3F"


@pytest.mark.parametrize(
    "header",
    [
        (b"host", b"twins.example:99999"),
        (b"host", b"[::1"),
        (b"host", b"a]b"),
        (b"host", b""),
        (b"host", "ex\u2100mple".encode()),
        (b"x-forwarded-port", b"9" * 5000),
        (b"x-forwarded-port", b"\xd9\xa2"),
        (b"x-other", b"\xff"),
    ],
)
async def test_no_header_of_a_request_breaks_the_edge(worker: Worker, header: tuple[bytes, bytes]) -> None:
    status, _, _ = await worker.request("GET", "/known", [header])

    assert status == 200


async def test_request_headers_of_one_name_are_joined(client: httpx.AsyncClient) -> None:
    answer = await client.get("/echo", headers=[("Accept", "a/b"), ("Accept", "c/d")])

    headers = dict(answer.json()["headers"])
    assert headers["accept"] == "a/b,c/d"
    assert headers["host"] == "twins.example"


async def test_a_body_with_a_length_arrives_byte_by_byte(client: httpx.AsyncClient) -> None:
    body = bytes(range(256))

    assert (await client.post("/echo", content=body)).json()["body"] == body.hex()


async def test_a_chunked_body_arrives_empty(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"lost"

    assert (await client.post("/echo", content=chunks())).json()["body"] == ""


async def test_a_streamed_answer_arrives_whole(client: httpx.AsyncClient) -> None:
    assert (await client.get("/stream")).text == "one two three"


async def test_a_client_never_seems_to_leave_before_the_answer(client: httpx.AsyncClient) -> None:
    assert (await client.get("/leave")).json() == "still here"


@pytest.mark.parametrize("method", ["DELETE", "OPTIONS", "TRACE", "QUERY", "PROPFIND"])
async def test_every_method_reaches_the_application(client: httpx.AsyncClient, method: str) -> None:
    answer = await client.request(method, "/known")

    assert answer.status_code == 405
    assert answer.headers["content-type"] == PROBLEM
    assert "GET" in answer.headers["allow"]


async def test_what_a_request_sets_in_its_context_stays_there(client: httpx.AsyncClient, app: ModuleType) -> None:
    assert (await client.get("/touch")).json() is False
    assert (await client.get("/touch")).json() is False
    assert app.touched.get() is False


async def test_the_scheme_of_the_client_is_kept(worker: Worker) -> None:
    _, _, body = await worker.request("GET", "/echo", [(b"host", b"twins.example")], scheme="https")

    assert b'"scheme":"https"' in body


async def test_the_worker_writes_no_line_a_request(client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        await client.get("/known")

    assert {record.name.split(".")[0] for record in caplog.records} <= {"shared", "httpx"}


async def test_a_timer_function_is_fired_and_its_failure_is_told(worker: Worker, app: ModuleType) -> None:
    await worker.fire("tick")
    await worker.fire("tick")
    assert app.fired == ["tick", "tick"]

    with pytest.raises(StackError, match="the third time fails"):
        await worker.fire("tick")


async def test_stopping_closes_what_the_application_has_opened(worker: Worker, app: ModuleType) -> None:
    await worker.stop()

    assert app.fired == ["closed"]


async def test_two_apps_live_in_one_process(tmp_path: Path, worker: Worker) -> None:
    (tmp_path / "other_app.py").write_text(
        "from shared.azure.functions import FunctionApp\n"
        "async def other(scope, receive, send):\n"
        "    await send({'type': 'http.response.start', 'status': 299, 'headers': []})\n"
        "    await send({'type': 'http.response.body'})\n"
        "app = FunctionApp(other)\n"
    )
    second = Worker(tmp_path, "other_app.py")
    await second.start()

    answers = await asyncio.gather(second.request("GET", "/known"), worker.request("GET", "/known"))

    assert [status for status, _, _ in answers] == [299, 200]


async def test_an_exception_that_leaves_the_application_is_an_empty_500(tmp_path: Path) -> None:
    # What the shell is for: the host throws away an answer that was sent before an exception.
    (tmp_path / "raising_app.py").write_text(
        "from shared.azure.functions import FunctionApp\n"
        "async def raising(scope, receive, send):\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': b'lost'})\n"
        "    raise RuntimeError\n"
        "app = FunctionApp(raising)\n"
    )
    worker = Worker(tmp_path, "raising_app.py")
    await worker.start()

    assert await worker.request("GET", "/") == (500, [(b"content-length", b"0")], b"")


async def test_an_app_that_does_not_import_says_why(tmp_path: Path) -> None:
    (tmp_path / "broken_app.py").write_text("raise RuntimeError('POSTGRES_DSN is missing')\n")

    with pytest.raises(StackError, match="POSTGRES_DSN is missing"):
        await Worker(tmp_path, "broken_app.py").start()
