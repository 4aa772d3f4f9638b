"""The long-lived parts of the application, including those of the product."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Protocol
from uuid import UUID

from fastapi import Depends

from shared import context
from shared.stores.postgres import Connection
from twins.assurance import rank_of
from twins.settings import Settings


class Holder(Protocol):
    """A service that holds rows of twins. Its counts have the names of the rows as keys."""

    async def erase(self, connection: Connection, twin_ids: Sequence[UUID], /) -> Mapping[str, int]:
        """Remove some of the personal data of erased twins, and return the counts; all are 0 where none is left."""

    async def remaining(self, connection: Connection, twin_ids: Sequence[UUID]) -> Mapping[str, int]:
        """Count the rows of these twins that still have personal data."""


@dataclass(slots=True)
class Compared:
    """How far this process has compared the ledgers with the journal."""

    to: tuple[str, bytes] = ("", b"")
    """The time and id of the last entry that it compared."""
    again_at: float = 0.0
    """When it compares the newest entries again, by the monotonic clock."""


@dataclass(frozen=True, slots=True)
class Context(context.Context):
    """The parts that request handlers use beside the request."""

    settings: Settings
    holders: Sequence[Holder]
    compared: Compared = field(default_factory=Compared)

    @property
    def lowest(self) -> int:
        """The rank of the lowest assurance that is a yes here."""
        return rank_of(self.settings.min_assurance)

    def log_name(self, name: str) -> str:
        """Return a person's or twin's name in the form for logs: the name, or its digest."""
        return name if self.settings.log_names else self.digests.label("name", name)

    def account_digest(self, account: str) -> bytes:
        """Return the keyed digest by which an account is known once it is erased, and in the journal."""
        return self.digests.digest("account", account.encode())

    @property
    def controller(self) -> str | None:
        """What a consent keeps of the setting `CONTROLLER`, as JSON."""
        return None if self.settings.controller is None else self.settings.controller.model_dump_json()

    def erasure_digest(self, owner: str) -> bytes:
        """Return the keyed digest that identifies an erasure's owner after the name is removed."""
        return self.digests.digest("erasure", owner.encode())

    def external_digest(self, owner: str, type_: str, name: str) -> bytes:
        """Return the keyed digest by which an owner's external id is found, and remembered."""
        return self.digests.digest("external id", json.dumps([owner, type_, name]).encode())

    def account_of(self, named: str) -> str:
        """Return the account behind a `Principal`: one of an issuer with `bare_subjects` is its subject alone."""
        issuer, _, subject = named.partition("\n")
        is_bare = any(row.bare_subjects and issuer in row.names for row in self.settings.auth_issuers)
        return subject if is_bare else named

    def owner_of(self, named: str) -> str:
        """Return the account behind an `Owner`: of an organisation, with the claim that names it in tokens."""
        match named.split("\n"):
            case [issuer, "", organization]:
                claims = (row.owner_claim for row in self.settings.auth_issuers if issuer in row.names)
                return f"{issuer}\n{next(claims, None) or ''}\n{organization}"
            case _:
                return self.account_of(named)


Ctx = Annotated[Context, Depends(context.context_of)]
