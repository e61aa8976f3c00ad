"""How fast the admin socket takes calls: a few wait briefly, the rest is turned away."""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

from asyncio_throttle.throttler import Throttler

from sidecar.errors import UnavailableError


class TooBusyError(UnavailableError):
    """More calls wait than may; ``retry_after_s`` is when to come back."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"too many admin calls at once; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class _Throttler(Protocol):
    async def acquire(self) -> None: ...


class Pace:
    """At most ``rate`` calls per ``period_s``, a sliding window; others wait, ``longest_wait_s`` at most.

    No more than ``waiters`` wait at once: the throttler polls every 10 ms for each of them and serves them in
    no particular order, so that a crowd would cost CPU and could starve one of its members.
    """

    def __init__(
        self, rate: int = 50, period_s: float = 1.0, waiters: int = 32, longest_wait_s: float = 2.0
    ) -> None:
        if rate < 1 or waiters < 1:  # the throttler takes a rate of 0 to mean "wait for ever"
            raise ValueError("a pace needs a rate and a number of waiters of at least 1")
        self._throttler: _Throttler = Throttler(rate_limit=rate, period=period_s)
        self._retry_after_s = math.ceil(period_s)
        self._longest_wait_s = longest_wait_s
        self._waiters = waiters
        self._waiting = 0

    async def take(self) -> None:
        """Returns when the caller may go on, at once while there is room. Raises :class:`TooBusyError`."""
        if self._waiting >= self._waiters:
            raise TooBusyError(self._retry_after_s)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._longest_wait_s):
                await self._throttler.acquire()
        except TimeoutError:
            raise TooBusyError(self._retry_after_s) from None
        finally:
            self._waiting -= 1
