"""The gate: may this twin be used for this purpose, now, and why."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from shared.auth import CurrentUser
from shared.http.problems import ValidationFailed
from shared.stores.postgres import Priority, Record
from twins.assurance import TOKEN, rank_of, word_of
from twins.context import Context
from twins.decision import queries
from twins.decision.models import (
    GENERAL,
    LACKS,
    NOTHING,
    PLAIN,
    Answer,
    AnyQuestion,
    Attributes,
    BatchDecision,
    Decision,
    Decisions,
    ExternalDecision,
    ExternalQuestion,
    PlainDecisions,
    Question,
    Questions,
)
from twins.decision.queries import Asked
from twins.limits import ACCOUNT, Asker, asker, key_of, key_of_account
from twins.parent import no_twin
from twins.scopes import DECIDE

_reasons: Counter[str] = Counter()


def _decisions(_: CallbackOptions) -> Iterable[Observation]:
    # Of a copy: the thread that exports asks while questions are answered.
    for reason, times in _reasons.copy().items():
        yield Observation(times, {"reason": reason})


# To add to a counter of the SDK takes as long as a twentieth of an answer.
metrics.get_meter("twins").create_observable_counter(
    "twins.decisions", [_decisions], description="Answers of the gate by reason."
)


async def decide(ctx: Context, user: CurrentUser, twin_id: UUID, purpose: str, attributes: Attributes) -> Decision:
    """Return whether a twin may be used for a purpose now; raises `NotFound`."""
    asked = _asked(ctx, user, purpose, attributes)
    any_owner = DECIDE in user.scopes
    async with ctx.postgres.connection(Priority.HIGHEST) as connection:
        row = await queries.select_decision(connection, user.owns, user.sub, twin_id, asked, any_owner=any_owner)
    if row is None:
        raise no_twin()
    _reasons[row["reason"]] += 1
    return Decision.model_validate(_answer(purpose, asker(asked.recipient), row))


async def prepare(ctx: Context) -> None:
    """Ask about no twin: the first question then finds an open connection that knows the statement."""
    async with ctx.postgres.connection() as connection:
        await queries.select_decision(connection, None, "", UUID(int=0), Asked(GENERAL, ""), any_owner=False)


async def decide_many(ctx: Context, user: CurrentUser, questions: Questions) -> Decisions | PlainDecisions:
    """Answer each question as of one moment; an unknown twin is `not_found`. Raises `ValidationFailed`."""
    items, any_owner = questions.items, DECIDE in user.scopes
    twin_ids = [item.twin_id if isinstance(item, Question) else None for item in items]
    purposes = [item.purpose for item in items]
    asker_of_all = key_of_account(user.sub)
    async with ctx.postgres.connection(Priority.HIGHEST) as connection:
        who = connection, user.owns, user.sub, any_owner
        if all(item.model_fields_set <= PLAIN for item in items):
            recipients = [asker(asker_of_all)] * len(items)
            rows, at = await queries.select_decisions(*who, twin_ids, purposes, asker_of_all, ctx.lowest)
        else:
            asked = [_one_of_many(ctx, user, place, item) for place, item in enumerate(items)]
            recipients = [asker(question.recipient) for question in asked]
            digests = [_digest(ctx, user, item) if isinstance(item, ExternalQuestion) else None for item in items]
            rows, at = await queries.select_answers(*who, twin_ids, digests, asked)
    missing = _missing(at)
    answers = [_answer(purpose, recipients[place], rows.get(place, missing)) for place, purpose in enumerate(purposes)]
    _reasons.update(answer["reason"] for answer in answers)
    if not any(isinstance(item, ExternalQuestion) for item in items):
        return PlainDecisions.model_construct(items=answers)
    return Decisions(
        items=[
            ExternalDecision(**answer, twin_id=rows[place]["twin_id"] if place in rows else None)
            if isinstance(item, ExternalQuestion)
            else BatchDecision(**answer)
            for place, (item, answer) in enumerate(zip(items, answers, strict=True))
        ]
    )


def _digest(ctx: Context, user: CurrentUser, question: ExternalQuestion) -> bytes | None:
    """Return the digest of an external id: the owner's whom the question names, else the caller's own."""
    owner = user.owns if question.owner is None else ctx.owner_of(question.owner)
    external = question.external_id
    return None if owner is None else ctx.external_digest(owner, external.type, external.id)


def _one_of_many(ctx: Context, user: CurrentUser, place: int, item: AnyQuestion) -> Asked:
    attributes = item.attributes()
    if lacks := attributes.lacks():
        raise ValidationFailed([{"pointer": f"#/items/{place}/{lacks}", "detail": LACKS}])
    return _asked(ctx, user, item.purpose, attributes)


def _asked(ctx: Context, user: CurrentUser, purpose: str, attributes: Attributes) -> Asked:
    """Return a question in the form of the database."""
    lowest = ctx.lowest
    if attributes == NOTHING:
        return Asked(purpose, key_of_account(user.sub), lowest)
    kind, name, issuer, modality, territory, assurance, principal = attributes
    if principal is not None:
        principal, lowest = ctx.account_of(principal), TOKEN
    if name is None:
        recipient = key_of_account(user.sub)
    elif kind == ACCOUNT and issuer:
        recipient = key_of_account(ctx.account_of(f"{issuer}\n{name}"))
    else:
        recipient = key_of(kind or ACCOUNT, name, issuer)
    lowest = max(lowest, rank_of(assurance))
    return Asked(purpose, recipient, lowest, name is not None, modality, territory, principal)


def _answer(purpose: str, recipient: Asker, row: Record | dict[str, Any]) -> Answer:
    reason, rank = row["reason"], row["assurance"]
    return {
        "decision": reason == "granted",
        "purpose": purpose,
        "reason": reason,
        "consent_id": row["consent_id"],
        "expires_at": row["expires_at"],
        "assurance": None if rank is None else word_of(rank),
        "recipient": recipient,
        "evaluated_at": row["evaluated_at"],
    }


def _missing(at: datetime) -> dict[str, Any]:
    """Return the gate's answer about a twin that there is not."""
    return {"reason": "not_found", "assurance": None, "consent_id": None, "expires_at": None, "evaluated_at": at}
