"""THE list of resources. A new resource is a folder, and an entry here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fastapi import APIRouter

from shared.stores.outbox import Handler
from twins.account.routes import router as account
from twins.consent import service as consents
from twins.consent.routes import router as consent
from twins.context import Context, Holder
from twins.decision.routes import router as decision
from twins.erasure import sweep as erasures
from twins.erasure.routes import router as erasure
from twins.health.routes import router as health
from twins.journal import service as journal
from twins.keys.routes import router as keys
from twins.ledger.routes import router as ledger
from twins.organization.routes import router as organization
from twins.persona import service as personas
from twins.persona.routes import router as persona
from twins.protected_resource.routes import router as protected_resource
from twins.refusal.routes import router as refusal
from twins.twin import service as twins
from twins.twin.routes import router as twin


@dataclass(frozen=True)
class Resource:
    """A resource: its tag in the documentation, its routes, and its part in erasure and in the outbox."""

    tag: str
    description: str
    router: APIRouter
    holder: Holder | None = None
    """Its service, if that holds rows of twins: erasure calls it."""
    jobs: Callable[[Context], Mapping[str, Handler]] | None = None
    """Its handlers for the outbox, by kind of job."""


# The most requested first, since a path is matched against one after another.
RESOURCES = (
    Resource("decisions", "The gate: may this twin be used for this purpose, now, and why.", decision),
    Resource("twins", "AI personas, each managed by one owner.", twin, twins),
    Resource("consents", "The consents of people, each bound to the exact text that was shown.", consent, consents),
    Resource("refusals", "What people have refused, and only they can open again.", refusal),
    Resource("ledger", "Everything that happened to a twin's consent, in a chain that shows tampering.", ledger),
    Resource("persona", "The character of a twin: nested, versioned, compiled to a prompt.", persona, personas),
    Resource("erasure", "The progress of an erasure, and its certificate.", erasure, jobs=erasures.handlers),
    Resource("account", "The stored data of an account, and its erasure.", account),
    Resource("organization", "The erasure of everything that an organisation owns.", organization),
    Resource("keys", "The keys that verify signatures.", keys),
    Resource("metadata", "How a client gets a token for this service.", protected_resource),
    Resource("health", "Whether the service runs, for load balancers and web tests.", health),
)


def holders() -> tuple[Holder, ...]:
    """Return the services of resources that hold rows of twins."""
    return tuple(resource.holder for resource in RESOURCES if resource.holder is not None)


def jobs(ctx: Context) -> dict[str, Handler]:
    """Return the handlers of the outbox, by kind of job."""
    rooms = (resource.jobs for resource in RESOURCES if resource.jobs)
    return {kind: run for handlers in (*rooms, journal.handlers) for kind, run in handlers(ctx).items()}
