"""The limit: bare ASGI and asyncpg. No framework, no token, no logging, no checks beyond those of the work itself."""

import json
import os
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID

import asyncpg
from motor.motor_asyncio import AsyncIOMotorClient

from bench.peers import work


class App:
    """Takes the owner's name from the header `X-Owner`."""

    pool: asyncpg.Pool
    personas: Any

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        body = b""
        while scope["method"] != "GET":
            message = await receive()
            body += message["body"]
            if not message.get("more_body"):
                break
        owner = next(value for name, value in scope["headers"] if name == b"x-owner").decode()
        content, headers = b"", [(b"content-type", b"application/json")]
        try:
            status, answer, tag = await self._answer(
                scope["method"], scope["path"].split("/")[4:], scope["query_string"], owner, body
            )
        except work.Refused as refused:
            status = refused.status
        else:
            content = work.as_json(answer)
            if tag:
                headers.append((b"etag", tag.encode()))
        headers.append((b"content-length", str(len(content)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _answer(
        self, method: str, path: list[str], query: bytes, owner: str, body: bytes
    ) -> tuple[int, Any, str | None]:
        twin_id: Any = UUID(path[0]) if path else None
        if path[1:] == ["persona"]:
            if method == "PUT":
                persona = await work.put_persona(self.pool, self.personas, owner, twin_id, json.loads(body))
            else:
                persona = await work.get_persona(self.pool, self.personas, owner, twin_id)
            return 200, persona, None
        async with self.pool.acquire() as connection:
            if method != "GET":
                return await self._change(connection, method, owner, twin_id, json.loads(body))
            asked = {name: values[0] for name, values in parse_qs(query.decode()).items()}
            if twin_id is None:
                page = await work.find(connection, owner, int(asked.get("limit", 20)), asked.get("cursor"))
                return 200, page, None
            if path[1:] == ["decision"]:
                return 200, await work.gate(connection, owner, twin_id, asked.get("purpose", "general")), None
            return 200, *await work.get(connection, owner, twin_id)

    async def _change(
        self, connection: Any, method: str, owner: str, twin_id: Any, body: Any
    ) -> tuple[int, Any, str | None]:
        if method == "POST":
            return 201, *await work.create(connection, owner, body)
        return 200, *await work.patch(connection, owner, twin_id, body)

    async def _lifespan(self, receive: Any, send: Any) -> None:
        async def no_reset(_: Any) -> None:
            pass

        await receive()
        self.pool = await asyncpg.create_pool(os.environ["POSTGRES_DSN"], reset=no_reset)
        client: AsyncIOMotorClient[Any] = AsyncIOMotorClient(os.environ["MONGODB_URI"], uuidRepresentation="standard")
        self.personas = client[os.environ["MONGODB_DATABASE"]]["personas"]
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.pool.close()
        client.close()
        await send({"type": "lifespan.shutdown.complete"})


app = App()
