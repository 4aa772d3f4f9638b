"""The application's long-lived parts, for request handlers."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from shared.auth import Authenticator
from shared.digests import Digests
from shared.http.bounds import Bounds
from shared.http.second_process import SecondProcess
from shared.signing import Signer
from shared.stores.mongo import Mongo
from shared.stores.postgres import Postgres


@dataclass(frozen=True, slots=True)
class Context:
    """The long-lived parts; the product adds its own in a subclass."""

    postgres: Postgres
    mongo: Mongo
    authenticator: Authenticator
    digests: Digests
    signer: Signer
    bounds: Bounds
    second_process: SecondProcess | None


async def context_of(request: Request) -> Context:
    """Return the parts of the application that serves this request."""
    context: Context = request.app.state.context
    return context


Ctx = Annotated[Context, Depends(context_of)]
