"""The app's process: `python -m devstack.serve app|functions|idle PORT`; `idle` is the app without its timer.

It serves while its standard input is open, so that it never outlives the run that started it, however
that run ends.
"""

import asyncio
import os
import signal
import sys
import threading

import uvicorn

from devstack.process import GRACE, LOCALHOST, StackError


def stop_with_parent() -> None:
    """Send this process a SIGTERM when its standard input ends; returns at once."""

    def wait() -> None:
        os.read(sys.stdin.fileno(), 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def main(host: str, port: int) -> None:
    """Serve until SIGTERM or the end of standard input."""
    stop_with_parent()
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
            lifespan="off" if host == "idle" else "auto",
            timeout_graceful_shutdown=GRACE,
        )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
