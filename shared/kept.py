"""A value from another service, such as a secret, a token or a set of keys, read once and then kept fresh."""

import asyncio
import logging
import math
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from shared.http.problems import Unavailable

logger = logging.getLogger(__name__)

TIMEOUT = 4.0
"""Seconds that one read may take, and so a request may wait for it."""
PAUSE = 1.0
"""Seconds between a failure and the next read; they double with each further failure."""
LONGEST_PAUSE = 60.0
"""Bound of that pause, also for a server's `Retry-After`: an instance recovers within it."""
failures: Counter[tuple[str, str]] = Counter()
"""Failed reads by service and `error.type` (OpenTelemetry: the status code, else the class)."""


@dataclass(frozen=True, slots=True)
class Reading[T]:
    """A value as it was read, with times in seconds since the epoch."""

    value: T
    due_at: float
    """When it is read again, in the background."""
    stale_at: float = math.inf
    """When callers wait for that."""
    expires_at: float = math.inf
    """When it serves no more."""


class Kept[T](ABC):
    """A value from another service, read once for all callers and then kept fresh.

    One task reads at a time, within `timeout` seconds. No caller waits for the refresh of a value that
    is due, only for that of one that is stale: an instance that was idle has refreshed nothing. After a
    failure the old value serves on until it expires. azure-identity's own cache refreshes in the
    caller's time, once for each concurrent caller and with retries of ten seconds and more.
    """

    _service: ClassVar[str]
    _failure: ClassVar[str]
    _labels: Mapping[str, str]
    """Log fields of a failure."""
    _hints: ClassVar[Mapping[str, str]] = {}
    """Remedies for the operator, by `error.type`."""

    def __init__(self, *, timeout: float = TIMEOUT, pause: float = PAUSE) -> None:
        self._timeout = timeout
        self._pause = pause
        self._value: T | None = None
        # Seconds since the epoch: tokens expire by that clock, also while an instance is frozen.
        self._due_at = 0.0
        self._stale_at = math.inf
        self._expires_at = math.inf
        self._failures = 0
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def _read(self) -> Reading[T]:
        """Return the value, and how long it serves."""

    async def _get(self, *, wait: bool = True) -> T:
        now = time.time()
        if now >= self._due_at:
            self._begin()
        if wait and self._task is not None and (self._value is None or now >= min(self._stale_at, self._expires_at)):
            await self._wait_for(self._task)
            now = time.time()
        if self._value is None or now >= self._expires_at:
            raise Unavailable(f"{self._failure}.", retry_after=max(1, math.ceil(self._due_at - now)))
        return self._value

    @staticmethod
    async def _wait_for(task: asyncio.Task[None]) -> None:
        # Unlike awaiting the task, this does not cancel the other callers' read with this caller.
        await asyncio.wait({task})

    def _begin(self) -> asyncio.Task[None]:
        """Start a read, or return the one that runs."""
        if self._task is None:
            self._task = asyncio.create_task(self._refresh())
        return self._task

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                reading = await self._read()
        except Exception as error:  # noqa: BLE001 - logged; requests go on
            self._note(error)
        else:
            self._failures = 0
            self._due_at = max(reading.due_at, time.time() + self._pause)
            self._stale_at, self._expires_at = reading.stale_at, reading.expires_at
            if reading.value != self._value:  # callers compare by identity
                self._value = reading.value
        finally:
            self._task = None

    def _count(self, kind: str) -> None:
        """Count a failure by its `error.type`."""
        failures[self._service, kind] += 1

    def _note(self, error: Exception) -> None:
        """Count and log a failure, without the SDK's text, and set the time of the next read."""
        status = getattr(error, "status_code", None)
        kind = str(status or type(error).__name__)
        self._count(kind)
        pause = max(self._pause * 2 ** min(self._failures, 6), _retry_after(error))
        self._failures += 1
        # A read that came early and failed does not bring the next one forward.
        self._due_at = max(self._due_at, time.time() + min(pause, LONGEST_PAUSE))
        hint = self._hints.get(kind)
        logger.log(
            logging.WARNING if hint is None else logging.ERROR,
            self._failure if hint is None else f"{self._failure}: {hint}",
            extra={**self._labels, "status": status, "error": type(error).__name__},
        )


def _retry_after(error: Exception) -> float:
    """Return the delay-seconds of a `Retry-After` header (RFC 9110 §10.2.3), or 0."""
    response = getattr(error, "response", None)
    header = "" if response is None else response.headers.get("Retry-After", "")
    return float(header) if header.isdecimal() else 0.0
