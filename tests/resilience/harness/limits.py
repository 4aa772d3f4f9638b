"""How long a scenario is, and what it may take: seconds, and connections.

Environment: `PROFILE` is `short` (the default) or `full`.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable

LONG = os.environ.get("PROFILE") == "full"
SEED = 20_261_124
LOAD_SECONDS = 10.0 if LONG else 0.7
"""How long load runs before, and again after, a fault."""
RECOVERY = 5.0
"""Seconds within which everything works once a store is back."""
ANSWERED = 5.0
"""Seconds within which every request is answered while a store is not there."""
ANSWERED_HUNG = 6.5
"""The same while it hangs: up to 2 s for a connection and 3 s for a statement, and some for the machine."""
STARTED = 15.0
STOPPED = 15.0
PATIENCE = 60.0
"""Seconds that a client goes on sending one request again."""
PAUSE = 0.05
POOL_MAX = 10
MONGO_POOL_MAX = 20


async def eventually(count: Callable[[], Awaitable[int]], most: int, within: float = 10.0) -> None:
    """Wait until a count is at most `most`: a server notices after a moment that a client has gone."""
    deadline = time.monotonic() + within
    while (now := await count()) > most:
        assert time.monotonic() < deadline, f"still {now}, more than {most}"
        await asyncio.sleep(0.1)
