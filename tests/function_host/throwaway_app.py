"""A function app for the tests of the edge: it answers with what reached it, and it misbehaves."""

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import azure.functions as func
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from shared.azure.functions import FunctionApp
from shared.http.middleware import wrap
from shared.http.validation import add_handlers

scopes: list[str] = []
fired: list[str] = []
touched: ContextVar[bool] = ContextVar("touched", default=False)

inner = FastAPI(openapi_url=None)
add_handlers(inner)


@inner.get("/touch")
async def touch() -> bool:
    before = touched.get()
    touched.set(True)
    return before


@inner.get("/boom")
async def boom() -> None:
    raise RuntimeError("the text may hold what a client sent")


@inner.get("/headers")
async def headers() -> Response:
    response = Response("{}", media_type="application/json")
    for name, first, second in (
        ("Link", "</a>; rel=next", "</b>; rel=prev"),
        ("Vary", "Accept", "Origin"),
        ("WWW-Authenticate", "Bearer", "Basic"),
    ):
        response.headers.append(name, first)
        response.headers.append(name, second)
    response.raw_headers.append((b"x-name", "Zoë ✓".encode()))
    return response


@inner.get("/status/{status}")
async def status(status: int) -> Response:
    return Response(status_code=status)


@inner.api_route("/known", methods=["GET", "HEAD"])
async def known() -> JSONResponse:
    return JSONResponse({"known": True})


@inner.get("/stream")
async def stream() -> StreamingResponse:
    async def parts() -> AsyncIterator[bytes]:
        for part in (b"one ", b"two ", b"three"):
            await asyncio.sleep(0)
            yield part

    return StreamingResponse(parts(), media_type="text/plain")


@inner.get("/leave")
async def leave(request: Request) -> str:
    # Waits for a client that leaves: with the body taken, the next message can only be that.
    await request.body()
    try:
        await asyncio.wait_for(request.receive(), 0.05)
    except TimeoutError:
        return "still here"
    return "gone"


@inner.api_route("/echo{rest:path}", methods=["GET", "POST"])
async def echo(request: Request) -> dict[str, Any]:
    body = await request.body()
    return {
        "path": request.scope["path"],
        "query": request.scope["query_string"].decode(),
        "headers": [[name.decode(), value.decode("latin-1")] for name, value in request.headers.raw],
        "scheme": request.scope["scheme"],
        "body": body.hex(),
    }


async def close() -> None:
    fired.append("closed")


shell = wrap(inner, close, close)


async def watched(scope: Any, receive: Any, send: Any) -> None:
    scopes.append(scope["type"])
    await shell(scope, receive, send)


app = FunctionApp(watched)


@app.timer_trigger(arg_name="timer", schedule="0 * * * * *", use_monitor=False)
async def tick(timer: func.TimerRequest) -> None:
    if fired.count("tick") == 2:
        raise RuntimeError("the third time fails")
    fired.append("tick")
