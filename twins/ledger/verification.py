"""The verification of a ledger: its chain, and its replay against what is stored; in chunks, without a lock.

No connection is kept between chunks, and nothing is read in one snapshot: each page of what is stored comes with the
head of that moment, up to which the events are replayed before the two are compared.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from shared.lane import Lane
from shared.stores.postgres import Connection, Postgres, Record
from twins.assurance import TOKEN
from twins.ledger import queries
from twins.ledger.chain import Flaw, Verifier
from twins.ledger.events import consents_of
from twins.ledger.outcome import DifferenceError
from twins.ledger.replay import Replay

_CHUNK = 200
"""The number of rows to fetch, and so to decode in the event loop, in a turn: without turns sixteen kept the gate."""
_PURPOSES = 1000
REQUESTED = Lane("verification", threads=1, within=2.0)  # for one chunk


class TooLongError(Exception):
    """The ledger is not verified in time."""


class Result(NamedTuple):
    """What a verification found."""

    seq: int
    head: bytes
    flaw: Flaw | None
    unverifiable: int


@dataclass(frozen=True)
class _Kind:
    """One kind of what is stored, as it is paged by its key."""

    name: str
    key: tuple[str, ...]
    first: tuple[object, ...]
    select: Callable[..., Awaitable[list[Record]]]
    expected: Callable[[Replay], dict[Any, Any]]
    is_as: Callable[[Replay, Any, Record], bool]
    may_add: Callable[[Replay, Record], bool] = lambda _replay, _row: False
    """Whether a row without an event is right: a no may be noted twice."""
    may_miss: Callable[[Any], bool] = lambda _: False  # an opened lock decides nothing, and a downgrade drops it

    def key_of(self, row: Record) -> Any:
        return tuple(row[name] for name in self.key) if len(self.key) > 1 else row[self.key[0]]


_ZERO = UUID(int=0)
_KINDS = (
    _Kind(
        "state of a purpose",
        ("purpose",),
        ("",),
        queries.select_states,
        lambda replay: replay.states,
        lambda replay, state, row: state.is_as(row, is_vague=replay.is_vague or state.lineage in replay.vague_lines),
        lambda replay, row: replay.is_vague and row["no"] is not None,
    ),
    _Kind(
        "a withdrawal",
        ("lineage", "purpose"),
        (_ZERO, ""),
        queries.select_withdrawals,
        lambda replay: replay.endings,
        lambda _, ending, row: ending.is_as(row["withdrawn_at"], row["withdrawn_by"], row["actor"], row["client"]),
        lambda replay, row: (
            replay.is_vague
            or bool(replay.stops)
            or row["purpose"] in replay.refused
            or row["lineage"] in replay.vague_lines
        ),
    ),
    _Kind(
        "a stop",
        ("seq",),
        (0,),
        queries.select_stops,
        lambda replay: replay.stops,
        lambda _, stop, row: stop.is_as(row["stopped_at"], "operator" if row["by_operator"] else "person"),
    ),
    _Kind(
        "a lock",
        ("id",),
        (_ZERO,),
        queries.select_locks,
        lambda replay: replay.locks,
        lambda _, lock, row: lock.is_as(row),
        may_miss=lambda lock: lock.opened_at is not None,
    ),
)


async def verify(postgres: Postgres, twin_id: UUID, lane: Lane = REQUESTED, limit: float | None = None) -> Result:
    """Verify a twin's ledger, at the latest in `limit` seconds; raises `TooLongError`, or as the lane does."""
    run = _Run(postgres, twin_id, lane, limit)
    result = await run.result()
    if result.flaw and not run.replay.was_erased:
        async with postgres.connection() as connection:
            head = await queries.select_whole_head(connection, twin_id)
        if head["is_erased"]:  # in the meantime: then less is stored than the events say
            return await _Run(postgres, twin_id, lane, limit).result()
    return result


class _Run:
    """One pass over a ledger."""

    def __init__(self, postgres: Postgres, twin_id: UUID, lane: Lane, limit: float | None) -> None:
        self._postgres, self._lane, self._twin_id = postgres, lane, twin_id
        self._chain = Verifier(twin_id)
        self._give_up_at = None if limit is None else time.monotonic() + limit
        self.replay = Replay(was_erased=False)

    async def result(self) -> Result:
        try:
            flaw = await self._verify()
        except DifferenceError as error:
            flaw = error.flaw
        return Result(self._chain.seq, self._chain.head, flaw, self.replay.unverifiable)

    async def _verify(self) -> Flaw | None:
        async with self._postgres.connection() as connection:
            head = await queries.select_whole_head(connection, self._twin_id)
        replay = self.replay = Replay(was_erased=head["is_erased"])
        await self._follow(head["seq"], head["hash"])
        if head["last_seq"] > head["seq"]:
            raise DifferenceError(head["seq"] + 1, "behind the head that the twin has")
        if replay.is_erased != head["is_erased"]:
            raise DifferenceError(head["seq"], "the twin is not erased" if replay.is_erased else "the twin is erased")
        if replay.is_erased:
            return None
        flaws = _of_the_twin(replay, head)
        for kind in _KINDS:
            flaws += await self._compare(kind)
        return min(flaws, key=lambda flaw: flaw.seq, default=None)

    async def _follow(self, seq: int, head: bytes) -> None:
        """Replay the events up to a head."""
        while self._chain.seq < seq:
            if self._give_up_at and time.monotonic() > self._give_up_at:
                raise TooLongError
            async with self._lane.turn(), self._postgres.connection() as connection:
                limit = min(_CHUNK, seq - self._chain.seq)
                rows = await queries.select_events(connection, self._twin_id, self._chain.seq, limit)
            if not rows:
                break
            flaw = await self._lane.run(self._chain.check, [tuple(row) for row in rows])
            await self._replay(self._chain.events)
            if flaw:
                raise DifferenceError(flaw.seq, flaw.reason)
        if flaw := self._chain.finish(seq, head):
            raise DifferenceError(flaw.seq, flaw.reason)

    async def _replay(self, events: Sequence[dict[str, Any]]) -> None:
        named = list(consents_of(events))
        async with self._lane.turn(), self._postgres.connection() as connection:
            salt = await queries.select_salt(connection, self._twin_id)
            rows = [] if self.replay.was_erased else await queries.select_consents(connection, self._twin_id, named)
            purposes = [] if self.replay.knows(events, salt) else await self._purposes(connection)
        if purposes:
            await self._lane.run(self.replay.learn, salt, purposes)
        await self._lane.run(self.replay.apply, events, {row["id"]: row for row in rows}, salt)

    async def _purposes(self, connection: Connection) -> list[str]:
        found: list[str] = []
        while len(found) % _PURPOSES == 0:
            page = await queries.select_purposes(connection, self._twin_id, found[-1] if found else "", _PURPOSES)
            found += page
            if not page:
                break
        return found

    async def _compare(self, kind: _Kind) -> list[Flaw]:
        replay, expected = self.replay, kind.expected(self.replay)
        since, after, seen, flaws = self._chain.seq, kind.first, set(), []
        while True:
            async with self._lane.turn(), self._postgres.connection() as connection:
                rows = await kind.select(connection, self._twin_id, *after, _CHUNK)
            if not rows:
                break
            await self._follow(rows[0]["head_seq"], rows[0]["head_hash"])
            if replay.is_erased:
                return []
            for row in rows:
                key = kind.key_of(row)
                seen.add(key)
                wanted = expected.get(key)
                if wanted is None and not kind.may_add(replay, row):
                    flaws.append(Flaw(self._chain.seq, f"{kind.name} without an event"))
                elif wanted is not None and not kind.is_as(replay, wanted, row):
                    flaws.append(Flaw(wanted.since, f"{kind.name} differs"))
            after = tuple(rows[-1][name] for name in kind.key)
        # What an event has made since may stand on a page that was read before.
        unseen = [item for key, item in expected.items() if key not in seen and not kind.may_miss(item)]
        return flaws + [Flaw(item.since, f"{kind.name} is missing") for item in unseen if item.since <= since]


def _of_the_twin(replay: Replay, head: Record) -> list[Flaw]:
    """Return what differs in the twin's own row, as of the head up to which the events are replayed."""
    flaws = []
    if head["consents"] != replay.given:
        flaws.append(Flaw(head["seq"], "a consent without an event"))
    if head["stop_seq"] != max(replay.stops, default=None):
        flaws.append(Flaw(max(replay.stops, default=head["seq"]), "the last stop differs"))
    if head["spoken"] < (TOKEN if replay.token_since else bool(replay.locks)):
        since = min([lock.since for lock in replay.locks.values()] or [replay.token_since])
        flaws.append(Flaw(since, "whether a person has spoken differs"))
    return flaws
