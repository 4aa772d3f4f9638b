"""Consents: recorded, renewed and withdrawn by functions of the database, under the lock of the twin."""

from collections.abc import Sequence
from functools import partial
from uuid import UUID

from shared.auth import CurrentUser
from shared.http.idempotency import Answer, Key, once
from shared.http.paging import Pages
from shared.http.problems import NotFound, ValidationFailed
from shared.stores.postgres import Connection, Priority, Record
from twins.consent import queries, receipt
from twins.consent.models import Consent, ConsentCreate, ConsentPage, ConsentRenew, ConsentWithdraw, address
from twins.consent.problems import ConsentActive, ConsentEnded, PersonMustConsent
from twins.consent.terms import Terms
from twins.context import Context
from twins.journal import service as journal
from twins.ledger import service as ledger
from twins.locking import lock
from twins.parent import no_twin
from twins.quotas import SHORT, no_room_for_notice
from twins.refusal import service as refusal


async def _give(
    ctx: Context, connection: Connection, user: CurrentUser, twin_id: UUID, terms: Terms, renews: UUID | None = None
) -> UUID:
    """Record a consent, and return its id.

    Raises `NotFound`, `ConsentActive`, `ConsentEnded`, `PersonMustConsent` or `ValidationFailed`.
    """
    text, most = terms.notice.text, ctx.settings.account_bytes
    if len(text.encode()) > SHORT and not await queries.has_room(connection, twin_id, text, most):
        raise no_room_for_notice(most)
    digest = ctx.account_digest(terms.principal)
    row = await queries.give_consent(connection, user.owns, user.sub, twin_id, terms, digest, renews, user.client)
    match row["problem"]:
        case None:
            ledger.count("renewed" if renews else "given")
            consent_id: UUID = row["consent_id"]
            return consent_id
        case "not_found":
            raise no_twin()
        case "not_yourself":
            raise ValidationFailed([{"pointer": "#/principal", "detail": "must be your own account"}])
        case "consent_active":
            detail = f"There is a live grant for the purpose {row['purpose']}."
            raise ConsentActive(detail, consent_id=str(row["consent_id"]), state="given")
        case "consent_ended":
            raise ConsentEnded("One of its purposes has been granted anew since.", state="expired")
        case "expires_too_early":
            detail = "must be later than now and than not_before"
            raise ValidationFailed([{"pointer": "#/expires_at", "detail": detail}])
        case "locked":
            raise PersonMustConsent("A refusal stands over one of these purposes: only its author can open it.")
        case "too_many_exceptions":
            raise PersonMustConsent("Your refusal of everything has 1,000 exceptions: open it first.")
        case _:
            raise PersonMustConsent("A person has spoken on this twin: only their own word grants anything on it.")


async def grant_general(ctx: Context, connection: Connection, user: CurrentUser, twin_id: UUID) -> None:
    """Record the caller's consent to the general use of their twin, unless that consent is live."""
    row = await queries.select_general(connection, user.owner, user.sub, twin_id)
    if row is None or row["reason"] != "granted":
        await grant_first(ctx, connection, user, twin_id)


async def grant_first(ctx: Context, connection: Connection, user: CurrentUser, twin_id: UUID) -> None:
    """Record the same consent for a twin that this transaction has just made: no other grant can block it."""
    await _give(ctx, connection, user, twin_id, Terms.general(user.sub))


async def withdraw_general(connection: Connection, user: CurrentUser, twin_id: UUID) -> None:
    """End the general consent of the caller's twin, if it is live or will be: its whole line of renewals."""
    row = await queries.select_general(connection, user.owner, user.sub, twin_id)
    if row is None or row["reason"] not in ("granted", "not_yet_valid"):
        return
    if row["is_listed"]:
        await refusal.withdraw(connection, user, twin_id, row["consent_id"])
    else:
        await _revoke(connection, user, twin_id, row["consent_id"], None)


async def _revoke(
    connection: Connection, user: CurrentUser, twin_id: UUID, consent_id: UUID, purposes: list[str] | None
) -> None:
    row = await queries.revoke_consent(connection, user.owner, user.sub, user.client, twin_id, consent_id, purposes)
    refusal.check_purposes(row["problem"])
    if row["is_changed"]:
        ledger.count("withdrawn")


async def create(ctx: Context, user: CurrentUser, twin_id: UUID, wanted: ConsentCreate, key: Key | None) -> Answer:
    """Record a consent, once for each idempotency key; raises what `_give` does, but for `ConsentEnded`."""
    terms = Terms.wanted(wanted, ctx.account_of(wanted.principal or user.sub))

    async def work(connection: Connection) -> Answer:
        return await _made(connection, user, twin_id, await _give(ctx, connection, user, twin_id, terms))

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
        made = await _give(ctx, connection, user, twin_id, Terms.renewed(old, wanted), renews=consent_id)
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
            await _revoke(connection, user, twin_id, consent_id, purposes)
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


async def find(ctx: Context, user: CurrentUser, twin_id: UUID, pages: Pages) -> ConsentPage:
    """Return a page of a twin's consents, newest first; raises `NotFound`."""
    pages = pages.within("consents", twin_id)
    before = pages.start(UUID)
    async with ctx.postgres.connection() as connection:
        rows = await queries.select_consents(connection, user.owner, twin_id, before, pages.fetch)
        if not rows and not await ledger.exists(connection, user.owner, twin_id):
            raise no_twin()
    return _page(pages, rows)


async def find_given(ctx: Context, user: CurrentUser, pages: Pages) -> ConsentPage:
    """Return a page of the consents that the caller gave, newest first."""
    pages = pages.within("consents given")
    before = pages.start(UUID)
    async with ctx.postgres.connection() as connection:
        rows = await queries.select_given_by(connection, user.sub, before, pages.fetch)
    return _page(pages, rows)


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


def _page(pages: Pages, rows: list[Record]) -> ConsentPage:
    return pages.page(ConsentPage, [Consent.of(row) for row in rows], lambda consent: str(consent.id))


async def _made(connection: Connection, user: CurrentUser, twin_id: UUID, consent_id: UUID) -> Answer:
    return _answer(Consent.of(await _select(connection, user, twin_id, consent_id)))


async def _read(ctx: Context, user: CurrentUser, twin_id: UUID, made: str) -> Answer:
    return _answer(await get(ctx, user, twin_id, UUID(made)))


def _answer(consent: Consent) -> Answer:
    location = {"Location": address(consent.twin_id, consent.id)}
    return Answer(consent.twin_id, str(consent.id), consent.model_dump_json(), location)
