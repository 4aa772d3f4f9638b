"""The real server, with some of its answers altered on the way."""

from collections.abc import Callable
from typing import override

import httpx

type Change = Callable[[httpx.Request, httpx.Response], None]
"""Alters an answer in place, or leaves it."""


class Altering(httpx.HTTPTransport):
    """The network, with a `change` to what comes back over it."""

    def __init__(self, change: Change) -> None:
        super().__init__()
        self._change = change

    @override
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        response.read()
        kept = {name: value for name, value in response.headers.items() if name != "content-length"}
        answer = httpx.Response(response.status_code, headers=kept, content=response.content)
        self._change(request, answer)
        return answer
