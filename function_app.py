"""Entry point of Azure Functions: HTTP goes to the application, and a timer drains what requests left."""

import azure.functions as func

from shared.functions import FunctionApp
from twins.app import create_app

shell = create_app()
app = FunctionApp(shell)


@app.timer_trigger(arg_name="timer", schedule="0 * * * * *", use_monitor=False)
async def drain(timer: func.TimerRequest) -> None:  # noqa: ARG001 - the host's name for it
    """Take up what an earlier request left in the outbox."""
    await shell.drain()
