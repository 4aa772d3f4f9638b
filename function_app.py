"""Entry point of Azure Functions: HTTP goes to the application, and a timer drains what requests left."""

import gc

gc.disable()  # Imports make many objects and hardly any garbage: collections are a tenth of a cold start.

from pydantic import BaseModel  # noqa: E402

# FastAPI's models of an OpenAPI document are built when one is asked for; at import they are a tenth of a cold start.
BaseModel.model_config["defer_build"] = True
import fastapi.openapi.models  # noqa: E402, F401

del BaseModel.model_config["defer_build"]

import azure.functions as func  # noqa: E402

from shared.azure.functions import FunctionApp  # noqa: E402
from twins.app import create_app  # noqa: E402

api = create_app()
gc.freeze()
gc.enable()
app = FunctionApp(api, api.start)


@app.timer_trigger(arg_name="timer", schedule="0 * * * * *", use_monitor=False, run_on_startup=True)
async def drain(timer: func.TimerRequest) -> None:  # noqa: ARG001 - the host's name for it
    """Take up what an earlier request left in the outbox."""
    await api.drain()
