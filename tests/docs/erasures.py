"""An erasure seen to its end."""

import asyncio
import base64
import json
import time
from typing import Any

from tests.support.app import Client


async def certificate_of(client: Client, path: str) -> dict[str, Any]:
    """Erase the twin at `path`, and return what its certificate says; its signature is judged elsewhere."""
    payload = (await signed_certificate_of(client, path)).split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return found


async def signed_certificate_of(client: Client, path: str) -> str:
    erased = await client.delete(path)
    assert erased.status_code == 204, erased.text
    return await _signed(client, erased.headers["location"])


async def signed_certificate_of_account(client: Client) -> tuple[str, str]:
    """Erase an account, and return its certificate and the path of the erasure."""
    erased = await client.delete("/api/v1/me")
    assert erased.status_code == 202, erased.text
    return await _signed(client, erased.headers["location"]), erased.headers["location"]


async def _signed(client: Client, path: str) -> str:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        erasure = (await client.get(path)).json()
        if erasure["certificate"]:
            return str(erasure["certificate"])
        await asyncio.sleep(0.1)
    raise TimeoutError(path)
