"""The Azure Functions host in miniature: HTTP in front of the real Python worker library.

`azure_functions_runtime` runs function_app.py in Azure. Here this process hands it the messages of
FunctionRpc.proto that the host sends over gRPC, and changes requests and answers as the host (4.x) and
its server Kestrel do:

- the path is percent-decoded once, except `%2F` and bytes that are not UTF-8, loses its dot segments,
  and is encoded again, except parts that look encoded;
- header names are in lower case, fields of one name are joined by a comma;
- a body without `Content-Length` (chunked) arrives empty;
- only the last of several answer headers with one name stays, an empty `Content-Type` is dropped;
- an invocation has a trace context: the client's trace goes on, and any other request begins one;
- a failed invocation, or an answer that Kestrel would not send, becomes an empty 500.

Not imitated: function keys, `/admin` and `/runtime`, cookies, limits of time and size, and Kestrel's own
refusal of a NUL in the path, so that nothing depends on it.
"""

import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, unquote_to_bytes
from uuid import uuid4

import httpx
import uvicorn
from azure_functions_runtime import handle_event
from azure_functions_runtime.functions import Registry
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from devstack.process import GRACE, LOCALHOST, StackError

logger = logging.getLogger(__name__)

# Not from devstack.local, which imports the signing library: the bench measures this module's processes.
ROOT = Path(__file__).resolve().parent.parent
EVERY_MINUTE = "0 * * * * *"

type Headers = list[tuple[bytes, bytes]]
type Answer = tuple[int, Headers, bytes]
"""Status, headers, body."""

_BODYLESS = {204, 205, 304}
_FAILED: Answer = (500, [(b"content-length", b"0")], b"")


class _OneOf(SimpleNamespace):
    """A message with one field of several."""

    def WhichOneof(self, _: str) -> str | None:  # noqa: N802 - protobuf's name
        """Return the name of the field that is set."""
        return next(iter(vars(self)), None)


class _StatusResult(SimpleNamespace):
    Failure, Success = 0, 1


class _BindingInfo(SimpleNamespace):
    inout, out, undefined = 2, 1, 0


class _Protos:
    """Stands in for the generated protobuf module: a message keeps the fields of its constructor."""

    StatusResult = _StatusResult
    BindingInfo = _BindingInfo

    def __getattr__(self, _: str) -> type[SimpleNamespace]:
        return SimpleNamespace


class Worker:
    """One function app, loaded by the real worker library.

    Several may live in one process: each keeps its own registry of functions and imports its script
    anew. The modules that the script imports are shared, and read the environment as usual.
    """

    def __init__(self, folder: Path = ROOT, script: str = "function_app.py") -> None:
        self._folder = str(folder)
        self._script = script
        self._registry = Registry()
        self._ids: dict[str, str] = {}
        self.traces: deque[str] = deque(maxlen=100)
        """The `traceparent` of the last requests, as the host's own rows have it."""
        self.bindings: dict[str, list[dict[str, Any]]] = {}
        """The bindings that the app declares to the host, by the name of the function."""

    async def start(self) -> None:
        """Import the app and index its functions.

        Raises:
            StackError: the import or the indexing failed; the text has the worker's own message.
        """
        handle_event._functions = self._registry  # noqa: SLF001 - else one app a process
        properties = {"protos": _Protos(), "host": LOCALHOST}
        with self._script_settings():
            init = await handle_event.worker_init_request(
                _request(properties, worker_init_request={"function_app_directory": self._folder})
            )
        _check(init.result)
        self._module = sys.modules[Path(self._script).stem]
        metadata = await handle_event.functions_metadata_request(_request(properties))
        for function in metadata.function_metadata_results:
            load = {"function_id": function.function_id, "metadata": function}
            loaded = await handle_event.function_load_request(_request(properties, function_load_request=load))
            _check(loaded.result)
            self._ids[function.name] = function.function_id
            self.bindings[function.name] = [json.loads(binding) for binding in function.raw_bindings]

    def functions(self, trigger: str) -> dict[str, dict[str, Any]]:
        """Return the trigger bindings of one type, such as `httpTrigger`, by the function's name."""
        return {
            name: binding
            for name, bindings in self.bindings.items()
            for binding in bindings
            if binding["type"] == trigger
        }

    async def request(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[bytes, bytes]] = (),
        body: bytes = b"",
        scheme: str = "http",
    ) -> Answer:
        """Answer one HTTP request; `target` is the path and query as on the wire (RFC 9112 §3.2.1)."""
        folded: dict[str, str] = {}
        for raw_name, raw_value in headers:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("utf-8", "replace")
            folded[name] = f"{folded[name]},{value}" if name in folded else value
        path, mark, query = target.partition("?")
        received = body if int(folded.get("content-length") or 0) else b""
        http = SimpleNamespace(
            method=method,
            url=f"{scheme}://{folded.get('host', '')}{_recoded(path)}{mark}{query}",
            headers=folded,
            body=_OneOf(bytes=received) if received else _OneOf(),
            params={},
            query={},
        )
        ((name, trigger),) = self.functions("httpTrigger").items()
        self.traces.append(_trace(folded.get("traceparent", "")))
        response = await self._invoke(name, trigger["name"], _OneOf(http=http), self.traces[-1])
        if response.result.status != _StatusResult.Success:
            logger.error("%s failed: %s", name, response.result.exception.message)
            return _FAILED
        return _sent(method, response.return_value.http)

    async def stop(self) -> None:
        """Close the application's connections. The real host never asks for it: it ends the process."""

        async def receive() -> Message:
            return {"type": "lifespan.shutdown"}

        async def send(_: Message) -> None:
            pass

        starting: asyncio.Task[None] | None = getattr(self._module.app, "starting", None)
        if starting is not None:
            starting.cancel()
            await asyncio.wait({starting})
        await self._module.app.asgi_app({"type": "lifespan"}, receive, send)

    async def fire(self, function: str) -> None:
        """Run a timer function once; raises `StackError` if it fails."""
        timer = self.functions("timerTrigger")[function]
        now = _OneOf(json=json.dumps({"IsPastDue": False, "ScheduleStatus": {}, "Schedule": {}}))
        _check((await self._invoke(function, timer["name"], now)).result)

    async def _invoke(self, function: str, parameter: str, data: _OneOf, trace_parent: str = "") -> Any:
        invocation = {
            "invocation_id": str(uuid4()),
            "function_id": self._ids[function],
            "input_data": [_Parameter(name=parameter, data=data)],
            "trigger_metadata": {},
            "trace_context": SimpleNamespace(trace_parent=trace_parent, trace_state="", attributes={}),
            "retry_context": SimpleNamespace(retry_count=0, max_retry_count=0, exception=None),
        }

        async def run() -> Any:
            handle_event._functions = self._registry  # noqa: SLF001 - read before it first awaits
            return await handle_event.invocation_request(_request({}, invocation_request=invocation))

        # A task of its own, as in the worker: context variables set inside stay inside.
        return await asyncio.create_task(run())

    @contextlib.contextmanager
    def _script_settings(self) -> Iterator[None]:
        sys.modules.pop(Path(self._script).stem, None)
        if self._folder not in sys.path:
            sys.path.append(self._folder)
        before = os.environ.get("PYTHON_SCRIPT_FILE_NAME")
        os.environ["PYTHON_SCRIPT_FILE_NAME"] = self._script
        try:
            yield
        finally:
            del os.environ["PYTHON_SCRIPT_FILE_NAME"]
            if before is not None:
                os.environ["PYTHON_SCRIPT_FILE_NAME"] = before


class _Parameter(SimpleNamespace):
    def WhichOneof(self, _: str) -> str:  # noqa: N802 - protobuf's name
        return "data"


def _request(properties: dict[str, Any], **messages: dict[str, Any]) -> SimpleNamespace:
    content = {name: SimpleNamespace(capabilities={}, **fields) for name, fields in messages.items()}
    return SimpleNamespace(request=SimpleNamespace(**content), properties=properties)


def _check(result: Any) -> None:
    if result.status != _StatusResult.Success:
        raise StackError(f"The worker failed. {result.exception.message}\n{result.exception.stack_trace}")


def _trace(given: str) -> str:
    """Return a span of the host in the client's trace, with its flags, or in a new trace that is recorded."""
    found = re.fullmatch("00-([0-9a-f]{32})-[0-9a-f]{16}-(0[01])", given)
    trace_id, flags = found.groups() if found else (uuid4().hex, "01")
    return f"00-{trace_id}-{uuid4().hex[16:]}-{flags}"


def _recoded(path: str) -> str:
    """Return the path as the host passes it on: decoded by Kestrel, encoded by PathString."""
    kept = re.sub("%(?=2[Ff]|00)", "%25", path)
    decoded = unquote_to_bytes(kept).decode("utf-8", "surrogateescape")
    decoded = re.sub("[\udc80-\udcff]", lambda octet: f"%{ord(octet[0]) - 0xDC00:02X}", decoded)
    segments: list[str] = []
    for segment in decoded.split("/")[1:]:
        if segment == "..":
            del segments[-1:]
        elif segment != ".":
            segments.append(segment)
    if decoded.endswith(("/.", "/..")):
        segments.append("")
    joined = "/" + "/".join(segments) if decoded.startswith("/") else ""
    return re.sub(
        r"(%[0-9A-Fa-f]{2})|[^A-Za-z0-9\-._~!$&'()*+,;=:@/]",
        lambda found: found[1] or quote(found[0]),
        joined,
    )


def _sent(method: str, http: Any) -> Answer:
    status, body = int(http.status_code), http.body.bytes
    headers = [
        (name.encode(), value.encode())
        for name, value in http.headers.items()
        if value or name.lower() != "content-type"
    ]
    length = next((int(value) for name, value in headers if name.lower() == b"content-length"), None)
    if not all(re.fullmatch(rb"[\t\x20-\x7e]*", value) for _, value in headers):
        logger.error("Kestrel refuses a header value that is not printable ASCII")
    elif body and status in _BODYLESS:
        logger.error("Kestrel refuses a body with status %s", status)
    elif method == "HEAD":
        return status, headers, b""
    elif length not in {None, len(body)} and status not in _BODYLESS:
        logger.error("Kestrel refuses a body of another length than Content-Length says")
    else:
        return status, headers, body
    return _FAILED


class WorkerTransport(httpx.AsyncBaseTransport):
    """An httpx transport into a `Worker`, where tests would use `httpx.ASGITransport`."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; a body from an iterator has no length, and so arrives empty."""
        status, headers, body = await self._worker.request(
            request.method,
            request.url.raw_path.decode("ascii"),
            request.headers.raw,
            await request.aread(),
            request.url.scheme,
        )
        return httpx.Response(status, headers=headers, stream=httpx.ByteStream(body))


def front(worker: Worker) -> ASGIApp:
    """Return an ASGI app for a server such as uvicorn, which passes each request to a worker."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        query = scope["query_string"].decode("latin-1")
        target = scope["raw_path"].decode("latin-1") + ("?" + query if query else "")
        status, headers, content = await worker.request(scope["method"], target, scope["headers"], body)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    return answer


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own handler raises the signal again in the end, and ends the process in the middle
        # of the caller of `serve`.
        def stop() -> None:
            self.should_exit = True

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def _timers(worker: Worker) -> AsyncIterator[None]:
    """Run every timer function once a minute, the only schedule that this host knows, and some at the start too."""
    timers = worker.functions("timerTrigger")
    for name, timer in timers.items():
        if timer["schedule"] != EVERY_MINUTE:
            raise StackError(f"{name} has another schedule than {EVERY_MINUTE!r}")

    async def tick() -> None:
        due = [name for name, timer in timers.items() if timer.get("runOnStartup")]
        while True:
            for name in due:
                try:
                    await worker.fire(name)
                except StackError:
                    logger.exception("%s failed", name)
            await asyncio.sleep(60)
            due = list(timers)

    task = asyncio.create_task(tick())
    try:
        yield
    finally:
        task.cancel()


async def serve(host: str, port: int) -> None:
    """Serve the project's function app over HTTP until SIGINT or SIGTERM, then return.

    Settings are read from the environment. Raises `StackError` if the app does not load.
    """
    worker = Worker()
    await worker.start()
    config = uvicorn.Config(
        front(worker),
        host,
        port,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )
    async with _timers(worker):
        await _Server(config).serve()
    await worker.stop()
