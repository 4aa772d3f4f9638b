"""What a request handler works with, beside the request."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from shared.auth import Authenticator
from shared.digests import Digests
from shared.mongo import Mongo
from shared.postgres import Postgres
from shared.settings import Settings
from shared.signing import Signer


@dataclass(frozen=True, slots=True)
class Context:
    """The application's long-lived parts, made once by `create_app`."""

    settings: Settings
    postgres: Postgres
    mongo: Mongo
    authenticator: Authenticator
    digests: Digests
    signer: Signer

    def log_name(self, name: str) -> str:
        """Return a person's or twin's name as logs may carry it: itself, or a digest of it."""
        return name if self.settings.log_names else self.digests.label("name", name)


async def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


Ctx = Annotated[Context, Depends(_context)]
