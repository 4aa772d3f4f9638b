"""The app's process: `python -m devstack.serve app|functions PORT`.

It serves for as long as its standard input is open, so that it never outlives the run that started
it, however that one ends.
"""

import asyncio
import os
import signal
import sys
import threading

import uvicorn

from devstack.process import LOCALHOST, StackError

GRACE = 5
"""Seconds that requests under way have to finish."""


def _stop_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)


def main(host: str, port: int) -> None:
    """Serve until SIGTERM or the end of standard input."""
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    if host == "functions":
        from devstack.functions_host import serve  # noqa: PLC0415 - not every run needs the worker library

        try:
            asyncio.run(serve(LOCALHOST, port))
        except StackError as error:
            sys.exit(str(error))
    else:
        uvicorn.run(
            "twins.app:create_app",
            factory=True,
            host=LOCALHOST,
            port=port,
            access_log=False,
            log_level="warning",
            timeout_graceful_shutdown=GRACE,
        )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
