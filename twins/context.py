"""The long-lived parts of the application, including those of the product."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol
from uuid import UUID

from fastapi import Depends

from shared import context
from shared.stores.postgres import Connection
from twins.settings import Settings


class Holder(Protocol):
    """A service that holds rows of twins. Its counts have the names of the rows as keys."""

    async def erase(self, connection: Connection, twin_ids: Sequence[UUID], /) -> Mapping[str, int]:
        """Remove some of the personal data of erased twins, and return the counts; all are 0 where none is left."""

    async def remaining(self, connection: Connection, twin_ids: Sequence[UUID]) -> Mapping[str, int]:
        """Count the rows of these twins that still have personal data."""


@dataclass(frozen=True, slots=True)
class Context(context.Context):
    """The parts that request handlers use beside the request."""

    settings: Settings
    holders: Sequence[Holder]

    def log_name(self, name: str) -> str:
        """Return a person's or twin's name in the form for logs: the name, or its digest."""
        return name if self.settings.log_names else self.digests.label("name", name)

    def account_digest(self, account: str) -> bytes:
        """Return the keyed digest by which an account is known once it is erased, and in the journal."""
        return self.digests.digest("account", account.encode())

    def account_of(self, named: str) -> str:
        """Return the account behind a `Principal`: one of an issuer with `bare_subjects` is its subject alone."""
        issuer, _, subject = named.partition("\n")
        is_bare = any(row.bare_subjects and issuer in row.names for row in self.settings.auth_issuers)
        return subject if is_bare else named


Ctx = Annotated[Context, Depends(context.context_of)]
