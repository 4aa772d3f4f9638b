"""Consent: granted, withdrawn, renewed under a lock of the twin, and asked for without one."""

import asyncio
import contextlib
import json
import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from opentelemetry import metrics

from shared import logs
from shared.auth import CurrentUser
from shared.context import Context
from shared.errors import Conflict, NotFound, ValidationFailed
from shared.idempotency import Answer, Key, once
from shared.paging import Page, seal, unseal
from shared.postgres import CheckViolationError, Connection, Record
from twins.consent import queries, receipt
from twins.consent.ledger import Chain, Flaw, Verifier, canonical, timestamp
from twins.consent.ledger import seal as seal_text
from twins.consent.models import (
    BOOLEAN_NOTICE,
    GENERAL,
    BatchDecision,
    Consent,
    ConsentCreate,
    ConsentRenew,
    Decision,
    Decisions,
    LedgerEntry,
    Notice,
    Questions,
    Verification,
)
from twins.problems import no_twin

logger = logging.getLogger(__name__)

_meter = metrics.get_meter("twins")
_decisions = _meter.create_counter("twins.decisions", description="Answers of the gate by reason.")
_transitions = _meter.create_counter("twins.consents", description="Consent events by transition.")

DECIDE_SCOPE = "twins:decide"
"""Lets a service ask the gate about any twin."""
_CHUNK = 200
"""Events that are fetched, and so decoded in the event loop, at a time."""


class ConsentActive(Conflict):
    """The twin has a live or future grant for one of these purposes: `consent_id`.

    Renew that one, or withdraw it first.
    """

    slug, title = "consent-active", "Consent active"


class ConsentEnded(Conflict):
    """The consent cannot be renewed in the `state` it is in.

    One that was withdrawn stays so: ask the person again, and record a new consent. Of one that was
    replaced, renew the latest.
    """

    slug, title = "consent-ended", "Consent ended"


@dataclass(frozen=True)
class Terms:
    """What a consent says; it never changes."""

    principal: str
    method: str
    purposes: list[str]
    notice: Notice
    not_before: datetime | None
    expires_at: datetime | None

    def sealed(self, salt: bytes) -> str:
        """Return the HMAC of the terms, which the ledger holds."""
        terms = {
            "expires_at": timestamp(self.expires_at),
            "method": self.method,
            "not_before": timestamp(self.not_before),
            "notice_language": self.notice.language,
            "notice_sha256": self.notice.sha256.hex(),
            "notice_version": self.notice.version,
            "principal": self.principal,
            "purposes": self.purposes,
        }
        return seal_text(salt, canonical(terms))


# --- The gate -------------------------------------------------------------------------------------


async def decide(ctx: Context, user: CurrentUser, twin_id: UUID, purpose: str) -> Decision:
    """Say whether a twin may be used for a purpose now; raises `NotFound`."""
    async with ctx.postgres.connection() as connection:
        row = await queries.select_decision(connection, twin_id, purpose, user.sub, DECIDE_SCOPE in user.scopes)
    if row is None:
        raise no_twin()
    _decisions.add(1, {"reason": row["reason"]})
    return Decision(decision=row["reason"] == "granted", purpose=purpose, **row)


async def decide_many(ctx: Context, user: CurrentUser, questions: Questions) -> Decisions:
    """Answer each question as of one moment; an unknown twin is `not_found`."""
    async with ctx.postgres.connection() as connection:
        rows = await queries.select_decisions(
            connection,
            [item.twin_id for item in questions.items],
            [item.purpose for item in questions.items],
            user.sub,
            DECIDE_SCOPE in user.scopes,
        )
    for row in rows:
        _decisions.add(1, {"reason": row["reason"]})
    return Decisions(items=[BatchDecision(decision=row["reason"] == "granted", **row) for row in rows])


# --- The life cycle, inside a transaction -----------------------------------------------------------


async def lock(connection: Connection, twin_id: UUID, owner: str | None) -> Chain:
    """Lock a twin and return the end of its ledger; raises `NotFound`."""
    row = await queries.lock_twin(connection, twin_id, owner)
    if row is None:
        raise no_twin()
    return chain_of(row)


def chain_of(row: Record) -> Chain:
    """Return the end of the ledger of a twin that this transaction has locked, or made."""
    return Chain(row["id"], row["salt"], row["ledger_seq"], row["ledger_hash"])


async def grant(connection: Connection, chain: Chain, actor: str, terms: Terms) -> Record:
    """Record a consent of a locked twin; raises `ConsentActive` or `ValidationFailed`."""
    blocking = await queries.select_blocking(connection, chain.twin_id, terms.purposes)
    if blocking is not None:
        detail = f"There is a live grant for the purpose {blocking['purpose']}."
        raise ConsentActive(detail, consent_id=str(blocking["consent_id"]), state="given")
    return await _insert(connection, chain, actor, terms)


async def _insert(connection: Connection, chain: Chain, actor: str, terms: Terms, renews: UUID | None = None) -> Record:
    try:
        row = await queries.insert_consent(
            connection,
            chain.twin_id,
            terms.principal,
            terms.method,
            terms.purposes,
            terms.notice.version,
            terms.notice.language,
            terms.notice.text,
            terms.notice.sha256,
            terms.not_before,
            terms.expires_at,
            renews,
        )
    except CheckViolationError as error:
        if error.constraint_name != "consents_expires_later":
            raise
        detail = "must be later than now and than not_before"
        raise ValidationFailed([{"pointer": "#/expires_at", "detail": detail}]) from error
    members = {"consent_id": str(row["id"]), "terms": terms.sealed(chain.salt)}
    if renews is None:
        await record(connection, chain, "given", actor, row["given_at"], **members)
    else:
        await record(connection, chain, "renewed", actor, row["given_at"], renews=str(renews), **members)
    return row


async def grant_general(connection: Connection, chain: Chain, user: CurrentUser) -> None:
    """Record that the caller agrees to the general use of a locked twin, unless it is so already."""
    row = await queries.select_general(connection, chain.twin_id)
    if row is None or row["reason"] != "granted":
        await grant(connection, chain, user.sub, _general(user))


async def grant_first(connection: Connection, chain: Chain, user: CurrentUser) -> None:
    """The same for a twin that this transaction has just made, so that nothing can be in its way."""
    await _insert(connection, chain, user.sub, _general(user))


def _general(user: CurrentUser) -> Terms:
    return Terms(user.sub, "api", [GENERAL], BOOLEAN_NOTICE, None, None)


async def withdraw_general(connection: Connection, chain: Chain, user: CurrentUser) -> None:
    """Withdraw the general consent of a locked twin, where there is one that is or would become live."""
    row = await queries.select_general(connection, chain.twin_id)
    if row is not None and row["reason"] in ("granted", "not_yet_valid"):
        await _withdraw(connection, chain, user.sub, row["lineage"])


async def record(
    connection: Connection,
    chain: Chain,
    kind: Literal["given", "renewed", "withdrawn"],
    actor: str,
    at: datetime,
    **members: Any,
) -> None:
    """Append an event to the ledger of a locked twin."""
    event, digest = chain.add(kind, actor, at, **members)
    await queries.insert_event(connection, chain.twin_id, chain.seq, event, digest)
    _note(kind)


async def close(connection: Connection, twin_ids: list[UUID], user: CurrentUser, erasure_id: UUID) -> None:
    """Append the last event of the ledgers of locked twins, that they are erased."""
    at = await queries.now(connection)
    events = []
    for row in await queries.lock_twins(connection, twin_ids, user.sub):
        chain = chain_of(row)
        event, digest = chain.add("erased", user.sub, at, erasure_id=str(erasure_id))
        events.append((chain.twin_id, chain.seq, event, digest))
        _note("erased")
    await queries.insert_events(connection, events)


def _note(transition: str) -> None:
    # A field of the request's line, not a line: that has the status, so it also tells what was rolled back.
    logs.bind(transition=transition)
    _transitions.add(1, {"transition": transition})


async def _withdraw(connection: Connection, chain: Chain, actor: str, lineage: UUID) -> None:
    withdrawn = await queries.withdraw_lineage(connection, lineage, actor)
    if withdrawn is not None:
        at = withdrawn["withdrawn_at"]
        await record(connection, chain, "withdrawn", actor, at, consent_id=str(withdrawn["id"]))


# --- What the routes do ---------------------------------------------------------------------------


async def create(ctx: Context, user: CurrentUser, twin_id: UUID, wanted: ConsentCreate, key: Key | None) -> Answer:
    """Record a consent, once for each idempotency key.

    Raises:
        NotFound: there is no such twin.
        ConsentActive: one of the purposes has a live or future grant.
        ValidationFailed: it would expire before it is valid, or names a purpose twice.
    """
    if len(set(wanted.purposes)) != len(wanted.purposes):
        raise ValidationFailed([{"pointer": "#/purposes", "detail": "must not name a purpose twice"}])
    terms = Terms(
        wanted.principal or user.sub,
        wanted.method,
        sorted(wanted.purposes),
        wanted.notice,
        wanted.not_before,
        wanted.expires_at,
    )

    async def work(connection: Connection) -> Answer:
        chain = await lock(connection, twin_id, user.sub)
        return _made(await grant(connection, chain, user.sub, terms))

    return await once(ctx.postgres, key, work)


async def renew(
    ctx: Context, user: CurrentUser, twin_id: UUID, consent_id: UUID, wanted: ConsentRenew, key: Key | None
) -> Answer:
    """Replace a given or expired consent by a new one, once for each idempotency key.

    Raises:
        NotFound: there is no such consent of a twin of this owner.
        ConsentEnded: it was withdrawn or replaced, or its purposes have been granted anew since.
        ValidationFailed: it would expire before it is valid, or after the year 9999, or leave a live
            twin without consent until it is valid.
    """

    async def work(connection: Connection) -> Answer:
        chain = await lock(connection, twin_id, user.sub)
        old = await queries.select_consent(connection, twin_id, consent_id, user.sub, owner_only=True)
        if old is None:
            raise _no_consent()
        if old["state"] not in ("given", "expired"):
            raise ConsentEnded(f"This consent is {old['state']}.", state=old["state"])
        if not old["holds"]:
            raise ConsentEnded("One of its purposes has been granted anew since.", state=old["state"])
        terms = _renewed(old, wanted)
        return _made(await _insert(connection, chain, user.sub, terms, renews=consent_id))

    return await once(ctx.postgres, key, work)


def _renewed(old: Record, wanted: ConsentRenew) -> Terms:
    """Return the terms of the consent that replaces `old`: where nothing is said, the same for as long again.

    Raises `ValidationFailed`.
    """
    at, not_before, expires_at = old["at"], wanted.not_before, wanted.expires_at
    is_ahead = old["not_before"] is not None and old["not_before"] > at
    if is_ahead and "not_before" not in wanted.model_fields_set:
        not_before = old["not_before"]
    if old["state"] == "given" and not is_ahead and not_before is not None and not_before > at:
        detail = "must not be later than now: the twin would have no consent until then"
        raise ValidationFailed([{"pointer": "#/not_before", "detail": detail}])
    if old["expires_at"] is not None and "expires_at" not in wanted.model_fields_set:
        valid_for = old["expires_at"] - (old["not_before"] or old["given_at"])
        try:
            # A tick more has to fit as well: asyncpg takes the calendar's last moment for infinity.
            expires_at = (not_before or at) + valid_for + datetime.resolution - datetime.resolution
        except OverflowError:
            detail = "must be given: as long again would end after the year 9999"
            raise ValidationFailed([{"pointer": "#/expires_at", "detail": detail}]) from None
    # It was checked when it was recorded: a limit that changes must not keep it from being renewed.
    notice = wanted.notice or Notice.model_construct(
        version=old["notice_version"], language=old["notice_language"], text=old["notice_text"]
    )
    return Terms(old["principal"], wanted.method or old["method"], old["purposes"], notice, not_before, expires_at)


async def withdraw(ctx: Context, user: CurrentUser, twin_id: UUID, consent_id: UUID) -> Consent:
    """Withdraw a consent, and what it was renewed by; it has taken effect when this returns.

    By the twin's owner or by the principal. Raises `NotFound`.
    """
    async with ctx.postgres.transaction() as connection:
        seen = await queries.select_consent(connection, twin_id, consent_id, user.sub)
        if seen is None:
            raise _no_consent()
        chain = await lock(connection, twin_id, None)
        await _withdraw(connection, chain, user.sub, seen["lineage"])
        row = await queries.select_consent(connection, twin_id, consent_id, user.sub)
    if row is None:  # the twin has passed to nobody in between
        raise _no_consent()
    return Consent.of(row)


async def get(ctx: Context, user: CurrentUser, twin_id: UUID, consent_id: UUID) -> Consent:
    """Return a consent, to the twin's owner or the principal; raises `NotFound`."""
    return Consent.of(await _select(ctx, user, twin_id, consent_id))


async def find(ctx: Context, user: CurrentUser, twin_id: UUID, limit: int, cursor: str | None) -> Page[Consent]:
    """Return a page of a twin's consents, newest first; raises `NotFound`."""
    scope = f"consents\n{user.sub}\n{twin_id}"
    before = None if cursor is None else UUID(unseal(ctx.digests, scope, cursor)[0])
    async with ctx.postgres.connection() as connection:
        rows = await queries.select_consents(connection, twin_id, user.sub, before, limit + 1)
        if not rows and await queries.select_head(connection, twin_id, user.sub) is None:
            raise no_twin()
    return _page(ctx, scope, rows, limit)


async def find_given(ctx: Context, user: CurrentUser, limit: int, cursor: str | None) -> Page[Consent]:
    """Return a page of the consents that the caller has given, newest first."""
    scope = f"consents given\n{user.sub}"
    before = None if cursor is None else UUID(unseal(ctx.digests, scope, cursor)[0])
    async with ctx.postgres.connection() as connection:
        rows = await queries.select_given_by(connection, user.sub, before, limit + 1)
    return _page(ctx, scope, rows, limit)


async def make_receipt(ctx: Context, user: CurrentUser, twin_id: UUID, consent_id: UUID) -> str:
    """Return a signed receipt of a consent as it is now; raises `NotFound`."""
    row = await _select(ctx, user, twin_id, consent_id)
    return await ctx.signer.sign(receipt.payload(Consent.of(row), row["owner"], row["at"]), receipt.TYPE)


async def ledger(ctx: Context, user: CurrentUser, twin_id: UUID, limit: int, cursor: str | None) -> Page[LedgerEntry]:
    """Return a page of a twin's ledger, oldest first; raises `NotFound`."""
    scope = f"ledger\n{user.sub}\n{twin_id}"
    after = 0 if cursor is None else int(unseal(ctx.digests, scope, cursor)[0])
    async with ctx.postgres.connection() as connection:
        if await queries.select_head(connection, twin_id, user.sub) is None:
            raise no_twin()
        rows = await queries.select_events(connection, twin_id, after, limit + 1)
    items = [entry(row) for row in rows[:limit]]
    following = seal(ctx.digests, scope, [items[-1].seq]) if len(rows) > limit else None
    return Page[LedgerEntry](items=items, next_cursor=following)


def entry(row: Record) -> LedgerEntry:
    """Return a row of the ledger as it crosses the wire."""
    return LedgerEntry(seq=row["seq"], event=json.loads(row["event"]), hash=row["hash"].hex())


async def verify(ctx: Context, user: CurrentUser, twin_id: UUID) -> Verification:
    """Recompute a twin's whole ledger, off the event loop and in chunks; raises `NotFound`."""
    async with ctx.postgres.connection() as connection:
        head = await queries.select_head(connection, twin_id, user.sub)
    if head is None:
        raise no_twin()
    verifier = Verifier(twin_id)
    flaw: Flaw | None = None
    while flaw is None and verifier.seq < head["ledger_seq"]:
        # A connection for each chunk, so that long ledgers do not keep one from others.
        async with ctx.postgres.connection() as connection:
            rows = await queries.select_events(connection, twin_id, verifier.seq, _CHUNK)
        chunk = [tuple(row) for row in rows if row["seq"] <= head["ledger_seq"]]
        if not chunk:
            break
        flaw = await asyncio.to_thread(verifier.check, chunk)
    flaw = flaw or verifier.finish(head["ledger_seq"], head["ledger_hash"])
    if flaw is None and head["last_seq"] > head["ledger_seq"]:
        flaw = Flaw(head["ledger_seq"] + 1, "behind the head that the twin has")
    if flaw is not None:
        logger.error("Ledger is broken", extra={"seq": flaw.seq, "reason": flaw.reason})
    return Verification(
        valid=flaw is None,
        events=verifier.seq,
        head=head["ledger_hash"].hex(),
        broken_at=flaw.seq if flaw else None,
        reason=flaw.reason if flaw else None,
    )


async def leave(ctx: Context, user: CurrentUser, limit: int) -> int:
    """Withdraw what a person agreed to for twins of others, take their name out, return how many.

    Their name is replaced by a keyed digest: the owner's records stay whole, and name nobody.
    """
    pseudonym = f"erased:{ctx.digests.label('principal', user.sub)}"
    async with ctx.postgres.connection() as connection:
        rows = await queries.select_given_to_others(connection, user.sub, limit)
    for row in rows:
        # A twin that has been erased meanwhile has taken its consents with it.
        with contextlib.suppress(NotFound):
            async with ctx.postgres.transaction() as connection:
                chain = await lock(connection, row["twin_id"], None)
                await _withdraw(connection, chain, user.sub, row["lineage"])
                await queries.update_principal(connection, row["lineage"], user.sub, pseudonym)
    return len(rows)


async def _select(ctx: Context, user: CurrentUser, twin_id: UUID, consent_id: UUID) -> Record:
    async with ctx.postgres.connection() as connection:
        row = await queries.select_consent(connection, twin_id, consent_id, user.sub)
    if row is None:
        raise _no_consent()
    return row


def _page(ctx: Context, scope: str, rows: list[Record], limit: int) -> Page[Consent]:
    items = [Consent.of(row) for row in rows[:limit]]
    following = seal(ctx.digests, scope, [str(items[-1].id)]) if len(rows) > limit else None
    return Page[Consent](items=items, next_cursor=following)


def _made(row: Record) -> Answer:
    consent = Consent.of(row)
    location = f"/api/v1/twins/{consent.twin_id}/consents/{consent.id}"
    return Answer(consent.twin_id, consent.model_dump_json(), {"Location": location})


def _no_consent() -> NotFound:
    return NotFound("There is no such consent.")
