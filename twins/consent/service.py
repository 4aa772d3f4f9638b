"""Consents: recorded, renewed and withdrawn by functions of the database, under the lock of the twin."""

from collections.abc import Sequence
from functools import partial
from uuid import UUID

from shared.auth import CurrentUser
from shared.http.idempotency import Answer, Key, once
from shared.http.problems import NotFound
from shared.stores.postgres import Connection, Priority, Record
from twins.consent import queries, receipt
from twins.consent.acts import give, revoke
from twins.consent.models import Consent, ConsentCreate, ConsentRenew, ConsentWithdraw, address
from twins.consent.problems import ConsentEnded
from twins.consent.terms import Terms
from twins.context import Context
from twins.journal import service as journal
from twins.locking import lock
from twins.refusal import service as refusal


async def create(ctx: Context, user: CurrentUser, twin_id: UUID, wanted: ConsentCreate, key: Key | None) -> Answer:
    """Record a consent, once for each idempotency key; raises what `give` does, but for `ConsentEnded`."""
    terms = Terms.wanted(wanted, user.sub, ctx.account_of)

    async def work(connection: Connection) -> Answer:
        return await _made(connection, user, twin_id, await give(ctx, connection, user, twin_id, terms))

    answer = await once(ctx.postgres, key, work, partial(_read, ctx, user, twin_id))
    await journal.attempt(ctx, twin_id)  # it may have opened a refusal
    return answer


async def renew(
    ctx: Context, user: CurrentUser, twin_id: UUID, consent_id: UUID, wanted: ConsentRenew, key: Key | None
) -> Answer:
    """Replace a given or expired consent by a new one, once for each idempotency key.

    Raises `NotFound`, `ConsentEnded`, `PersonMustConsent` or `ValidationFailed`.
    """

    async def work(connection: Connection) -> Answer:
        old = await _select(connection, user, twin_id, consent_id)
        await lock(connection, old["owner"], twin_id)
        old = await _select(connection, user, twin_id, consent_id)
        state = Consent.of(old).state
        if state not in ("given", "expired"):
            raise ConsentEnded(f"This consent is {state}.", state=state)
        terms = Terms.renewed(old, wanted, ctx.account_of)
        made = await give(ctx, connection, user, twin_id, terms, renews=consent_id)
        return await _made(connection, user, twin_id, made)

    answer = await once(ctx.postgres, key, work, partial(_read, ctx, user, twin_id))
    await journal.attempt(ctx, twin_id)  # it may be narrower
    return answer


async def withdraw(
    ctx: Context, user: CurrentUser, twin_id: UUID, consent_id: UUID, wanted: ConsentWithdraw
) -> Consent:
    """End purposes of a consent and its renewals at once; raises `NotFound` or `ValidationFailed`.

    The word of the person, and of an operator, is a refusal. So is a colleague's on a consent in their own name;
    otherwise the owner's word is a revocation, where `principals` does not list who acts.
    """
    purposes = wanted.purposes and sorted(wanted.purposes)
    operator = refusal.is_operator(user)
    async with ctx.postgres.transaction(Priority.HIGH) as connection:
        seen = await _select(connection, user, twin_id, consent_id, is_operator=operator)
        for_owner = seen["owner"] == user.owns
        is_colleagues_own = seen["owner"] != user.sub and seen["principal"] == user.sub
        if for_owner and not seen["is_listed"] and not is_colleagues_own:
            await revoke(connection, user, twin_id, consent_id, purposes)
        else:
            by_operator = not for_owner and seen["principal"] != user.sub
            await refusal.withdraw(connection, user, twin_id, consent_id, purposes, by_operator=by_operator)
        consent = Consent.of(await _select(connection, user, twin_id, consent_id, is_operator=operator))
    await journal.attempt(ctx, twin_id)
    return consent


async def get(ctx: Context, user: CurrentUser, twin_id: UUID, consent_id: UUID) -> Consent:
    """Return a consent, to the twin's owner or the principal; raises `NotFound`."""
    async with ctx.postgres.connection() as connection:
        return Consent.of(await _select(connection, user, twin_id, consent_id))


async def make_receipt(ctx: Context, user: CurrentUser, twin_id: UUID, consent_id: UUID) -> str:
    """Return a signed receipt of a consent in its present state; raises `NotFound`."""
    async with ctx.postgres.connection() as connection:
        row = await _select(connection, user, twin_id, consent_id)
        refusals = await refusal.over(connection, twin_id, row["purposes"])
    return await ctx.signer.sign(receipt.payload(row, refusals), receipt.TYPE)


async def erase(connection: Connection, twin_ids: Sequence[UUID]) -> dict[str, int]:
    """Remove some of the consents of these erased twins, and of what belongs to them, and return the numbers."""
    return dict(await queries.erase(connection, twin_ids, 1000))


async def remaining(connection: Connection, twin_ids: Sequence[UUID]) -> dict[str, int]:
    """Count the consents of these twins, and what belongs to them."""
    return dict(await queries.remaining(connection, twin_ids))


async def _select(
    connection: Connection, user: CurrentUser, twin_id: UUID, consent_id: UUID, *, is_operator: bool = False
) -> Record:
    row = await queries.select_consent(connection, user.owns, user.sub, twin_id, consent_id, is_operator=is_operator)
    if row is None:
        raise NotFound("There is no such consent.")
    return row


async def _made(connection: Connection, user: CurrentUser, twin_id: UUID, consent_id: UUID) -> Answer:
    return _answer(Consent.of(await _select(connection, user, twin_id, consent_id)))


async def _read(ctx: Context, user: CurrentUser, twin_id: UUID, made: str) -> Answer:
    return _answer(await get(ctx, user, twin_id, UUID(made)))


def _answer(consent: Consent) -> Answer:
    location = {"Location": address(consent.twin_id, consent.id)}
    return Answer(consent.twin_id, str(consent.id), consent.model_dump_json(), location)
