"""`python -m bench.cold PATH TOKEN`: one cold start through the Functions driver, as JSON in milliseconds.

In Azure more comes before it: finding a place for the instance, mounting the package, and starting the
process that speaks gRPC with the host. The driver has none of these.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable

from devstack.functions_host import Worker

PHASES = ("import and index", "prepare", "first answer", "second answer")
"""`prepare` is what the app starts while the host prepares: connections and keys."""


async def phases(path: str, token: str) -> dict[str, float]:
    """Start, and ask twice as a caller with a token."""
    worker, found = Worker(), dict[str, float]()

    async def timed[T](phase: str, work: Awaitable[T]) -> T:
        begin = time.perf_counter()
        done = await work
        found[phase] = round((time.perf_counter() - begin) * 1000, 2)
        return done

    await timed("import and index", worker.start())
    await timed("prepare", sys.modules["function_app"].app.starting)
    for phase in ("first answer", "second answer"):
        status, _, body = await timed(
            phase, worker.request("GET", path, [(b"authorization", f"Bearer {token}".encode())])
        )
        assert status in {200, 404}, body
    await worker.stop()
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(phases(*sys.argv[1:]))))
