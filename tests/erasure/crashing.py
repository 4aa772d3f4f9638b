"""A process that dies by SIGKILL before the nth call it makes to a store, while it erases a twin or an account.

Run as a program it reads lines of JSON, `{"step", "token", "path"}`, and for each forks a child that
deletes what `path` names and runs the job to the end, unless it dies before. It answers with a line each,
`{"died": bool, "step": what it was about to do}`. Forked, since importing the application takes longer than an erasure.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import httpx
from pymongo import monitoring

from devstack.local import ROOT
from shared.stores import outbox
from tests.support.app import id_of
from twins.app import create_app
from twins.erasure import sweep
from twins.settings import load


class Doom(monitoring.CommandListener):
    """Counts the calls to both stores, and kills the process before a given one."""

    def __init__(self, step: int, report: int) -> None:
        self._left = step
        self._report = report

    def count(self, what: str) -> None:
        """Note a call that is about to be made."""
        self._left -= 1
        if self._left == 0:
            os.write(self._report, " ".join(what.split())[:60].encode())
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        """Have every statement to PostgreSQL and every command to MongoDB counted."""
        monitoring.register(self)
        for name in ("_execute", "execute", "_executemany"):
            setattr(asyncpg.Connection, name, self._counting(getattr(asyncpg.Connection, name)))

    def _counting(self, call: Any) -> Any:
        async def counting(connection: Any, query: str, *args: Any, **options: Any) -> Any:
            if call.__name__ != "execute" or not args:  # with arguments it is an `_execute`
                self.count(query)
            return await call(connection, query, *args, **options)

        return counting

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """Count a command, in the thread that is about to send it."""
        self.count(f"{event.command_name} in MongoDB")

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Need nothing."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Need nothing."""


async def _erase(token: str, path: str) -> None:
    app = create_app(load().model_copy(update={"erasure_second_sweep": 0}))
    context = app.state.context
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://twins.test") as client:
        deleted = await client.delete(path, headers=headers)
    assert deleted.status_code in (202, 204), deleted.text
    erasure_id = id_of(deleted.headers["location"])
    await outbox.drain(context.postgres, sweep.handlers(context), subject=erasure_id)


def _serve() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            Doom(request["step"], writing).watch()
            asyncio.run(_erase(request["token"], request["path"]))
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as report:
            step = report.read()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, -signal.SIGKILL), code
        sys.stdout.write(json.dumps({"died": code != 0, "step": step}) + "\n")
        sys.stdout.flush()


class Crasher:
    """The program, from the outside."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def erase(self, step: int, token: str, path: str) -> tuple[bool, str]:
        """Delete a twin, or an account, in a process that dies before its nth call to a store.

        Returns whether it died, and what it was about to do.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"step": step, "token": token, "path": path}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer["died"], answer["step"]


@contextmanager
def running_crasher(environment: dict[str, str]) -> Iterator[Crasher]:
    """Start the program and end it again."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.erasure.crashing"],
        cwd=ROOT,
        env=os.environ | environment | {"LOG_LEVEL": "ERROR"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Crasher(process)


if __name__ == "__main__":
    _serve()
