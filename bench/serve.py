"""One application under test in a process: `python -m bench.serve NAME PORT` serves while standard input is open."""

import asyncio
import sys
from pathlib import Path

import uvicorn

from devstack import functions_host
from devstack.process import LOCALHOST
from devstack.serve import stop_with_parent

UNDER_UVICORN = {
    "ours": "twins.app:create_app",
    "hand-written": "bench.peers.handwritten:app",
    "silent": "bench.peers.handwritten:silent",
    "telemetry": "twins.app:create_app",
    "usual": "bench.peers.usual:app",
    "limit": "bench.peers.limit:app",
}
THROUGH_WORKER = {
    "function host": (functions_host.ROOT, "function_app.py"),
    "stock adapter": (Path(__file__).parent / "peers", "stock.py"),
}


async def _serve_function_app(folder: Path, script: str, port: int) -> None:
    worker = functions_host.Worker(folder, script)
    await worker.start()
    front = functions_host.front(worker)
    config = uvicorn.Config(front, LOCALHOST, port, lifespan="off", log_config=None, access_log=False)
    await uvicorn.Server(config).serve()


def main(name: str, port: int) -> None:
    stop_with_parent()
    if name in THROUGH_WORKER:
        asyncio.run(_serve_function_app(*THROUGH_WORKER[name], port))
    else:
        if name == "telemetry":
            from bench import exporting

            exporting.begin()
        app = UNDER_UVICORN[name]
        factory = app.endswith(("create_app", "handwritten:app", "silent"))
        uvicorn.run(app, factory=factory, host=LOCALHOST, port=port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
