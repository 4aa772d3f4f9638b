"""A process of its own answers what is heavy for the processor, and nobody can tell by the answer."""

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import httpx
import psutil
import pytest
from fastapi import Response
from starlette.types import Scope

from devstack.local import ROOT
from shared.http import second_process, serving
from shared.http.second_process import _TURN as TURN
from shared.http.second_process import SecondProcess
from shared.logging import Request, bind
from tests.support.app import ALEX, FRONTS, MISSING, Client, front, is_problem, make_twin, token
from twins.app import create_app
from twins.persona import service
from twins.settings import Settings

_OWN = {"request_id", "created_at", "version", "head"}
LARGE = {"facts": [{"text": "Ä fact. " * 20} for _ in range(500)]}
SMALL = {"summary": "Alex helps customers."}

type Make = Callable[[str], Client]


def processes() -> list[psutil.Process]:
    """Return the second processes of this one."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if any("shared.http.serving" in argument for argument in child.cmdline()):
                found.append(child)
    return found


async def ended(found: list[psutil.Process]) -> None:
    """Wait until these have ended, without taking their status from the process that waits for it."""
    async with asyncio.timeout(10):
        while any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in found):
            await asyncio.sleep(0.02)


@pytest.fixture(params=FRONTS)
async def client(
    request: pytest.FixtureRequest, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Client]:
    """An owner of an application that has a second process, behind each of the fronts."""
    monkeypatch.setenv("SECOND_PROCESS", "true")
    async with front(request.param) as transport:
        headers = {"Authorization": f"Bearer {token(f'second-{request.node.name}')}"}
        yield Client(transport=transport, base_url="http://twins.test", headers=headers, timeout=60)
    await ended(processes())


def told(answer: httpx.Response) -> tuple[int, Any, dict[str, str]]:
    """Return what does not differ from one request to the next."""
    own = {"x-request-id", "etag", "content-location"}
    body = answer.json() if answer.content else None
    if isinstance(body, dict):
        body = {name: value for name, value in body.items() if name not in _OWN}
    return answer.status_code, body, {name: value for name, value in answer.headers.items() if name not in own}


async def heavy(client: Client, path: str) -> list[tuple[int, Any, dict[str, str]]]:
    """Send one request of each heavy kind, right and wrong."""
    persona, as_json = f"{path}/persona", {"Content-Type": "application/json"}
    large = json.dumps(LARGE)
    sent = [
        client.put(persona, json=LARGE),
        client.put(persona, json=LARGE, headers={"If-Match": '"no-such"'}),
        client.put(persona, content=large[:-1], headers=as_json),
        client.put(persona, content=large[:-1] + ',"summary":7}', headers=as_json),
        client.put(persona, content=large, headers={"Content-Type": "text/plain"}),
        client.put(persona, content=large.ljust(1024 * 1024 + 1), headers=as_json),
        client.put(f"/api/v1/twins/{MISSING}/persona", json=LARGE),
        client.patch(persona, json=LARGE),
        client.get(f"{persona}/diff", params={"from": 1, "to": 2}),
        client.get(f"{persona}/diff", params={"from": 1, "to": 0}),
        client.get(f"{persona}/diff", params={"from": 1, "to": 2, "other": 3}),
        client.head(f"{persona}/diff", params={"from": 1, "to": 2}),
        client.get(f"{path}/ledger/verification"),
        client.get(f"/api/v1/twins/{MISSING}/ledger/verification"),
        client.get(f"{path}/ledger/verification", headers={"Authorization": "Bearer none"}),
    ]
    return [told(await each) for each in sent]


async def test_its_answers_are_those_of_the_first(client: Client, alice: Client) -> None:
    found = []
    for owner in (alice, client):
        path = await make_twin(owner)
        for greeting in ("Hello.", "Good day."):
            assert (await owner.put(f"{path}/persona", json=SMALL | {"greeting": greeting})).status_code == 200
        answers = await heavy(owner, path)
        found.append(json.loads(json.dumps(answers).replace(path, "/api/v1/twins/one")))
    assert found[1] == found[0]
    assert [status for status, _, _ in found[0]] == [
        *(200, 412, 400, 422, 415, 413, 404, 200, 200, 422, 422, 200, 200, 404, 401)
    ]
    assert len(processes()) == 1


async def test_nothing_begins_it_but_what_is_heavy(client: Client) -> None:
    path = await make_twin(client)
    for version in (1, 2):
        assert (await client.put(f"{path}/persona", json=SMALL | {"greeting": str(version)})).status_code == 200
    assert (await client.get(f"{path}/decision")).status_code == 200
    assert not processes()
    assert (await client.get(f"{path}/persona/diff", params={"from": 1, "to": 2})).status_code == 200
    assert len(processes()) == 1


async def test_its_lines_are_written_once_and_by_the_first(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    path = await make_twin(client)
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "twins"):
        answer = await client.put(f"{path}/persona", json=LARGE, headers={"X-Request-Id": "heavy"})
    assert answer.headers["x-request-id"] == "heavy"
    (line,) = [record for record in caplog.records if getattr(record, "status", None) == 200]
    assert (line.levelname, line.__dict__["request_id"]) == ("INFO", "heavy")
    assert (line.__dict__["route"], path.rpartition("/")[2]) == (
        "/api/v1/twins/{twin_id}/persona",
        line.__dict__["twin_id"],
    )


async def test_a_request_is_503_when_it_ends_and_the_next_begins_another(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    path = await make_twin(client)
    verification = f"{path}/ledger/verification"
    assert (await client.get(verification)).status_code == 200
    (process,) = processes()

    process.send_signal(signal.SIGSTOP)
    waiting = asyncio.create_task(client.get(verification))
    await asyncio.sleep(0.1)
    assert (await client.get(f"{path}/decision")).status_code == 200
    process.kill()

    answer = await waiting
    assert is_problem(answer, 503, "unavailable")
    assert answer.headers["retry-after"]
    assert (await client.get(verification)).json()["valid"]
    assert [other.pid for other in processes()] != [process.pid]
    (line,) = [record for record in caplog.records if record.message == "The second process has ended"]
    assert "request_id" not in line.__dict__  # nobody's request ended it


async def test_one_that_gives_no_sign_of_life_is_ended(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    path = await make_twin(client)
    with monkeypatch.context() as impatient:
        impatient.setattr(second_process, "_SILENCE", 5.0)
        assert (await client.get(f"{path}/ledger/verification")).status_code == 200
        (process,) = processes()

        process.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(20):
            answer = await client.get(f"{path}/ledger/verification")

    assert is_problem(answer, 503, "unavailable")
    await ended([process])
    assert (await client.get(f"{path}/ledger/verification")).status_code == 200


async def test_one_that_gives_no_first_sign_of_life_is_ended(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    path = await make_twin(client)
    with monkeypatch.context() as impatient:
        impatient.setattr(second_process, "_START", 0.05)
        assert is_problem(await client.get(f"{path}/ledger/verification"), 503, "unavailable")
    await ended(processes())
    assert (await client.get(f"{path}/ledger/verification")).status_code == 200


async def test_its_start_may_take_longer_than_a_later_silence(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    path = await make_twin(client)
    with monkeypatch.context() as impatient:
        impatient.setattr(second_process, "_SILENCE", 0.1)
        waiting = asyncio.create_task(client.get(f"{path}/ledger/verification"))
        while not (found := processes()):
            await asyncio.sleep(0.01)
        found[0].send_signal(signal.SIGSTOP)
        await asyncio.sleep(1)
    found[0].send_signal(signal.SIGCONT)
    assert (await waiting).status_code == 200


@pytest.mark.parametrize(("processors", "policy"), [(1, os.SCHED_IDLE), (2, os.SCHED_OTHER)])
async def test_on_one_processor_it_runs_only_while_nothing_else_would(
    client: Client, processors: int, policy: int
) -> None:
    path, all_ = await make_twin(client), os.sched_getaffinity(0)
    if len(all_) < processors:
        pytest.skip("there is one processor")
    os.sched_setaffinity(0, sorted(all_)[:processors])
    try:
        # Beside other tests it may come too late.
        assert (await client.get(f"{path}/ledger/verification")).status_code in (200, 503)
        (process,) = processes()
        assert os.sched_getscheduler(process.pid) == policy
        assert process.nice() == 10
    finally:
        os.sched_setaffinity(0, all_)


async def test_it_has_one_request_of_each_account_at_a_time(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    other = {"Authorization": f"Bearer {token('second-other')}"}
    made = await client.post("/api/v1/twins", json=ALEX, headers=other)
    path, theirs = await make_twin(client), made.headers["location"]
    answer, under_way, most = SecondProcess.answer, Counter[str](), Counter[str]()

    async def counted(self: SecondProcess, scope: Scope, body: bytes) -> Response:
        for account in (scope["user"].owner, "all"):
            under_way[account] += 1
            most[account] = max(most[account], under_way[account])
        await asyncio.sleep(0.2)
        try:
            return await answer(self, scope, body)
        finally:
            under_way.subtract([scope["user"].owner, "all"])

    monkeypatch.setattr(SecondProcess, "answer", counted)
    answers = await asyncio.gather(
        *(client.put(f"{path}/persona", json=LARGE) for _ in range(3)),
        client.get(f"{path}/ledger/verification"),
        *(client.put(f"{theirs}/persona", json=LARGE, headers=other) for _ in range(3)),
    )
    assert [answer.status_code for answer in answers] == [200] * 7
    assert most.pop("all") == 2
    assert [*most.values()] == [1, 1]


async def test_neither_process_works_while_nothing_is_asked(client: Client) -> None:
    path = await make_twin(client)
    assert (await client.put(f"{path}/persona", json=LARGE)).status_code == 200
    assert (await client.get(f"{path}/ledger/verification")).status_code == 200
    (process,) = processes()

    def spent() -> tuple[float, float]:
        times = process.cpu_times()
        return time.process_time(), times.user + times.system

    before = spent()
    await asyncio.sleep(1)
    assert all(after - earlier < 0.5 for earlier, after in zip(before, spent(), strict=True))


@pytest.mark.parametrize("processors", [1, 2])
async def test_the_first_leaves_it_turns_where_they_share_one_processor(
    client: Client, monkeypatch: pytest.MonkeyPatch, processors: int
) -> None:
    turns: list[float] = []
    monkeypatch.setattr(os, "process_cpu_count", lambda: processors)
    monkeypatch.setattr(second_process, "_EVERY", 0.001)
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: turns.append(seconds) if seconds == TURN else sleep(seconds))
    path = await make_twin(client)
    assert (await client.get(path)).status_code == 200
    assert not turns
    assert (await client.get(f"{path}/ledger/verification")).status_code == 200
    assert bool(turns) == (processors == 1)
    await asyncio.sleep(0.05)
    turns.clear()
    await asyncio.sleep(0.05)
    assert not turns


async def test_it_does_not_outlive_a_process_that_is_killed(settings: Settings) -> None:
    program = """
import asyncio, sys
from twins.app import create_app
from twins.settings import load

async def main():
    second = create_app(load()).state.context.second_process
    await second._start()
    print("started", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
    environment = os.environ | {"SECOND_PROCESS": "true"}
    first = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program), env=environment, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert first.stdout is not None
    assert await first.stdout.readline() == b"started\n"
    (second,) = psutil.Process(first.pid).children()
    first.kill()
    await first.wait()
    await ended([second])


@asynccontextmanager
async def its_side(settings: Settings) -> AsyncIterator[tuple[asyncio.Task[None], Callable[[], Awaitable[Any]]]]:
    """Serve in this process; yield what serves, and what asks for a difference and returns the number and answer."""
    app = create_app(settings)
    ours, theirs = socket.socketpair()
    side = asyncio.create_task(serving.serve("twins.app:create_app", theirs))
    reader, writer = await asyncio.open_connection(sock=ours)
    second_process.write(writer, settings)
    user = await app.state.context.authenticator.authenticate(f"Bearer {token('second')}")
    scope = {
        "type": "http",
        "method": "GET",
        "path": f"/api/v1/twins/{MISSING}/persona/diff",
        "root_path": "",
        "query_string": b"from=1&to=2",
        "headers": [],
        "user": user,
    }

    async def ask() -> Any:
        second_process.write(writer, (7, second_process.Asked(scope, Request("heavy"))))
        while (found := await second_process.read(reader)) == (None, b""):
            pass
        return found

    yield side, ask
    writer.close()
    await app.close()


async def test_what_it_cannot_answer_is_500_with_a_line(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: object) -> None:
        raise RuntimeError("a name")

    monkeypatch.setattr(service, "diff", fails)
    async with its_side(settings) as (side, ask):
        with caplog.at_level(logging.ERROR):
            (number, answered), body = await ask()
    await side
    assert (number, answered.status) == (7, 500)
    assert json.loads(body)["request_id"] == "heavy"
    (line,) = [record for record in caplog.records if record.message == "Unhandled exception"]
    assert line.__dict__["error"] == "RuntimeError"


async def test_it_ends_where_it_cannot_send_an_answer(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the first answers 503. If the process stayed alive, the request would wait for ever."""

    async def binds(*_: object) -> str:
        bind(of=cast("str", lambda: None))  # a function cannot be sent
        return "[]"

    monkeypatch.setattr(service, "diff", binds)
    async with its_side(settings) as (side, ask):
        with pytest.raises(EOFError):
            await ask()
        with pytest.raises(ExceptionGroup):
            await side


async def test_its_lines_wait_for_the_first_within_a_request_only(capsys: pytest.CaptureFixture[str]) -> None:
    handler = serving._Lines()
    record = logging.makeLogRecord(
        {"levelno": logging.WARNING, "levelname": "WARNING", "msg": "a %s", "args": ("line",)}
    )
    handler.handle(record)
    assert "a line" in capsys.readouterr().err
    lines: list[logging.LogRecord] = []
    serving._lines.set(lines)
    handler.handle(record)
    assert [line.getMessage() for line in lines] == ["a line"]
    assert not capsys.readouterr().err


async def test_without_the_setting_there_is_none(settings: Settings) -> None:
    assert create_app(settings).state.context.second_process is None
    second = create_app(settings.model_copy(update={"second_process": True})).state.context.second_process
    assert isinstance(second, SecondProcess)
    await second.close()
