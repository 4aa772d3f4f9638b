"""The gate: may this twin be used for this purpose, now, and why."""

from collections import Counter
from uuid import UUID

from opentelemetry import metrics

from shared.auth import CurrentUser
from shared.stores.postgres import Priority
from twins.context import Context
from twins.decision import queries
from twins.decision.models import GENERAL, Decision, Decisions, Questions
from twins.parent import no_twin
from twins.scopes import DECIDE

_decisions = metrics.get_meter("twins").create_counter("twins.decisions", description="Answers of the gate by reason.")


async def decide(ctx: Context, user: CurrentUser, twin_id: UUID, purpose: str) -> Decision:
    """Return whether a twin may be used for a purpose now; raises `NotFound`."""
    any_owner = DECIDE in user.scopes
    async with ctx.postgres.connection(Priority.HIGHEST) as connection:
        row = await queries.select_decision(connection, user.owns, twin_id, purpose, any_owner=any_owner)
    if row is None:
        raise no_twin()
    _decisions.add(1, {"reason": row["reason"]})
    return Decision(purpose=purpose, **row)


async def prepare(ctx: Context) -> None:
    """Ask about no twin: the first question then finds an open connection that knows the statement."""
    async with ctx.postgres.connection() as connection:
        await queries.select_decision(connection, None, UUID(int=0), GENERAL, any_owner=False)


async def decide_many(ctx: Context, user: CurrentUser, questions: Questions) -> Decisions:
    """Answer each question as of one moment; an unknown twin is `not_found`."""
    twin_ids, purposes = [item.twin_id for item in questions.items], [item.purpose for item in questions.items]
    any_owner = DECIDE in user.scopes
    async with ctx.postgres.connection(Priority.HIGHEST) as connection:
        rows = await queries.select_decisions(connection, user.owns, twin_ids, purposes, any_owner=any_owner)
    for reason, times in Counter(row["reason"] for row in rows).items():
        _decisions.add(times, {"reason": reason})
    return Decisions.model_validate({"items": [dict(row) for row in rows]})
