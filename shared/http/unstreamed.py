"""One request to an ASGI application, and its whole answer (ASGI HTTP specification 2.4)."""

import asyncio

from starlette.types import ASGIApp, Message, Scope

type Whole = tuple[int, list[tuple[bytes, bytes]], bytes]
"""Status, headers, body."""


async def call(app: ASGIApp, scope: Scope, body: bytes) -> Whole:
    """Serve a request without streaming; raises what the application raises."""
    unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    status = 500
    headers: list[tuple[bytes, bytes]] = []
    content: list[bytes] = []
    answered = asyncio.Event()

    async def receive() -> Message:
        if unread:
            return unread.pop()
        await answered.wait()  # nobody reports that the client has left
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            headers.extend(message["headers"])
        else:
            content.append(message.get("body", b""))
            if not message.get("more_body"):
                answered.set()

    await app(scope, receive, send)
    return status, headers, b"".join(content)
