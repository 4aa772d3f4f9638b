"""How many requests of one account an instance answers at once: each kind of work has its own bound."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from shared.auth import CurrentUser
from shared.http.problems import TooManyRequests

_MARK = "_kind_of_work"


@dataclass(frozen=True)
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

    def __init__(self, most: Mapping[Kind, int]) -> None:
        self._most = dict(most)
        self._now: Counter[tuple[Kind, str]] = Counter()

    @contextmanager
    def place(self, kind: Kind, user: CurrentUser) -> Iterator[None]:
        """Take a place for the block; raises `TooManyRequests` where the account has as many as it may have."""
        place = kind, user.sub if kind.of_person or user.owns is None else user.owns
        if self._now[place] >= self._most[kind]:
            raise TooManyRequests(f"{self._most[kind]} requests of this kind by this account are being answered.")
        self._now[place] += 1
        try:
            yield
        finally:
            self._now[place] -= 1
            if not self._now[place]:
                del self._now[place]
