"""The acts that grant and end consents, within the transaction of whoever calls."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from shared.auth import CurrentUser
from shared.http.problems import ValidationFailed
from shared.stores.postgres import Connection
from twins.consent import queries
from twins.consent.problems import ConsentActive, ConsentEnded, PersonMustConsent
from twins.consent.terms import Terms
from twins.context import Context
from twins.ledger import service as ledger
from twins.parent import no_twin
from twins.quotas import SHORT, no_room_for_consents, no_room_for_names, no_room_for_terms
from twins.refusal import service as refusal

MOST_NAMED = 10_000
"""Whoever was ever named may say no for good, so that each change of `principals` leaves its accounts."""


async def give(
    ctx: Context,
    connection: Connection,
    user: CurrentUser,
    twin_id: UUID,
    terms: Terms,
    renews: UUID | None = None,
    *,
    is_first: bool = False,
) -> UUID:
    """Record a consent, and return its id; one that `is_first` on its twin counts nothing.

    Raises `NotFound`, `ConsentActive`, `ConsentEnded`, `PersonMustConsent`, `QuotaExceeded` or `ValidationFailed`.
    """
    if not is_first:
        terms = await _checked(ctx, connection, user, twin_id, terms)
    digest = None if terms.principal is None else ctx.account_digest(terms.principal)
    kept = digest, ctx.controller
    row = await queries.give_consent(connection, user.owns, user.sub, twin_id, terms, *kept, renews, user.client)
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


async def _checked(ctx: Context, connection: Connection, user: CurrentUser, twin_id: UUID, terms: Terms) -> Terms:
    """Return the terms, without a guardian who has erased their account since; raises as `give`."""
    most, size = ctx.settings.account_consents, ctx.settings.account_bytes
    notice = terms.notice.text if len(terms.notice.text.encode()) > SHORT else None
    guardian = None if terms.guardian is None else ctx.account_digest(terms.guardian)
    caller = user.owns, user.sub
    row = await queries.select_room(connection, *caller, twin_id, notice, terms.size, most, size, guardian)
    if row is None:
        return terms  # there is no such twin
    if not row["for_consent"]:
        raise no_room_for_consents(most)
    if not row["for_terms"]:
        raise no_room_for_terms(size)
    if not row["no_guardian"]:
        return terms
    if not terms.inherits_guardian:
        raise PersonMustConsent("The guardian's account has erased itself: only they can agree under that name again.")
    details = {name: value for name, value in (terms.details or {}).items() if name != "relation"}
    return replace(terms, guardian=None, details=details or None)


async def check_names(connection: Connection, twin_id: UUID, accounts: Sequence[str]) -> None:
    """Raise `QuotaExceeded` where a twin has named so many accounts that `principals` may bring no other."""
    if not await queries.may_name(connection, twin_id, accounts, MOST_NAMED):
        raise no_room_for_names(MOST_NAMED)


async def grant_general(ctx: Context, connection: Connection, user: CurrentUser, twin_id: UUID) -> None:
    """Record the caller's consent to the general use of their twin, unless that consent is live."""
    row = await queries.select_general(connection, user.owner, user.sub, twin_id, ctx.lowest)
    if row is None or row["reason"] != "granted":
        await give(ctx, connection, user, twin_id, Terms.general(user.sub))


async def grant_first(ctx: Context, connection: Connection, user: CurrentUser, twin_id: UUID) -> None:
    """Record the same consent for a twin that this transaction has just made: no other grant can block it."""
    await give(ctx, connection, user, twin_id, Terms.general(user.sub), is_first=True)


async def withdraw_general(ctx: Context, connection: Connection, user: CurrentUser, twin_id: UUID) -> None:
    """End the general consent of the caller's twin, if it is live or will be: its whole line of renewals."""
    row = await queries.select_general(connection, user.owner, user.sub, twin_id, ctx.lowest)
    if row is None or row["reason"] not in ("granted", "not_yet_valid"):
        return
    if row["is_listed"]:
        await refusal.withdraw(connection, user, twin_id, row["consent_id"])
    else:
        await revoke(connection, user, twin_id, row["consent_id"], None)


async def revoke(
    connection: Connection, user: CurrentUser, twin_id: UUID, consent_id: UUID, purposes: list[str] | None
) -> None:
    """End purposes of a consent's line of renewals for the owner; raises `NotFound` or `ValidationFailed`."""
    row = await queries.revoke_consent(connection, user.owner, user.sub, user.client, twin_id, consent_id, purposes)
    refusal.check_purposes(row["problem"])
    if row["is_changed"]:
        ledger.count("withdrawn")
