"""How many requests of one account an instance has at once: each kind of work has its own bound."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from shared.auth import CurrentUser
from shared.http.problems import TooManyRequests

_MARK = "_kind_of_work"
_AT_ONCE = nullcontext()


@dataclass(frozen=True, eq=False)
class Kind:
    """A kind of work, and whether each person has the bound by itself, or all together that act for an owner."""

    name: str
    of_person: bool = False


COMMON = Kind("common")
"""The kind of every operation that declares no other."""

type KindOf = Callable[[Any], Kind]
"""Returns the kind of a request from its body as JSON: None where there is none."""


def of_kind[Endpoint: Callable[..., Any]](kind: Kind | KindOf) -> Callable[[Endpoint], Endpoint]:
    """Declare the kind of an endpoint's work; by its body, which then is read before the bound is asked."""

    def mark(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _MARK, kind)
        return endpoint

    return mark


def kind_of(endpoint: Callable[..., Any]) -> Kind | KindOf:
    """Return what `of_kind` declared."""
    kind: Kind | KindOf = getattr(endpoint, _MARK, COMMON)
    return kind


class Bounds:
    """Counts the requests of each account that are being answered; it keeps nothing of accounts that have none."""

    def __init__(self, most: Mapping[Kind, int], concurrency: int) -> None:
        self._concurrency = concurrency
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Semaphore] = WeakValueDictionary()
        self._kinds: dict[Kind, tuple[int, dict[str, int]]] = {kind: (number, {}) for kind, number in most.items()}

    def place(self, kind: Kind, user: CurrentUser) -> "_Place":
        """Return a place for the block; entering it raises `TooManyRequests` where the account has its most."""
        most, now = self._kinds[kind]
        return _Place(most, now, user.sub if kind.of_person else _owner_of(user))

    def turn(self, kind: Kind, user: CurrentUser, room: str) -> AbstractAsyncContextManager[None]:
        """Return what lets a block of common work begin once few others of the account in this room are in theirs.

        Each step of a request runs before the steps that came after it, and its statements take the database's
        processor: with sixteen renewals of one account under way, the gate's p99 was eight times as long. Each room
        has its own turns: while one store hangs, the account's work with the other goes on.
        """
        if kind is not COMMON:
            return _AT_ONCE
        return self._turn(_owner_of(user), room, self._concurrency)

    def heavy_turn(self, user: CurrentUser) -> AbstractAsyncContextManager[None]:
        """Return what lets a heavy request begin once no other of the account is in its block.

        Each moves large bodies or documents through this process and the stores: with those of one account at once,
        the gate's p99 was half as long again.
        """
        return self._turn(_owner_of(user), "", 1)

    def _turn(self, account: str, room: str, most: int) -> asyncio.Semaphore:
        turn = self._turns.get((account, room))
        if turn is None:
            turn = self._turns[account, room] = asyncio.Semaphore(most)
        return turn


def _owner_of(user: CurrentUser) -> str:
    return user.sub if user.owns is None else user.owns


class _Place:
    """A place for a block. A generator and a `Counter` would cost ten times as much, in each request."""

    __slots__ = ("_account", "_most", "_now")

    def __init__(self, most: int, now: dict[str, int], account: str) -> None:
        self._most, self._now, self._account = most, now, account

    def __enter__(self) -> None:
        number = self._now.get(self._account, 0)
        if number >= self._most:
            raise TooManyRequests(f"{self._most} requests of this kind by this account are being answered.")
        self._now[self._account] = number + 1

    def __exit__(self, *_: object) -> None:
        number = self._now.pop(self._account) - 1
        if number:
            self._now[self._account] = number
