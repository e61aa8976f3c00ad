"""The only place that reads the time; everything else is handed a :class:`Clock`.

Three readings, because they answer different questions: the wall clock says what time of day it is (certificates,
grants, records), the monotonic clock measures durations and deadlines, and boot time counts through a suspend, so
that a lifetime cannot be stretched by closing a lid or stepping the wall clock back.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Readings of time. Implementations never go backwards in ``monotonic_s`` and ``boottime_s``."""

    def now(self) -> datetime:
        """Wall clock, aware, UTC."""
        ...

    def wall_s(self) -> float:
        """Wall clock in seconds since the Unix epoch; the hot path's form of :meth:`now`."""
        ...

    def wall_ns(self) -> int:
        """Wall clock in nanoseconds since the Unix epoch."""
        ...

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start; for durations and deadlines only."""
        ...

    def boottime_s(self) -> float:
        """Seconds since boot, time suspended included (``CLOCK_BOOTTIME``)."""
        ...


class SystemClock:
    """The real clocks of this machine."""

    __slots__ = ()

    # Static references instead of wrappers: these are read several times per call on the fast path.
    wall_s = staticmethod(time.time)
    wall_ns = staticmethod(time.time_ns)
    monotonic_s = staticmethod(time.monotonic)

    def now(self) -> datetime:
        """Wall clock, aware, UTC."""
        return datetime.now(UTC)

    def boottime_s(self) -> float:
        """Seconds since boot, time suspended included; the monotonic clock where there is no such clock."""
        clock_id = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        return time.clock_gettime(clock_id)


SYSTEM_CLOCK = SystemClock()


def rfc3339(moment: datetime) -> str:
    """``moment`` (aware, UTC) in whole seconds, rounded down, as messages and records show it."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def rfc3339_s(wall_s: float) -> str:
    """As :func:`rfc3339`, from Unix seconds up to the year 9999."""
    return rfc3339(datetime.fromtimestamp(int(wall_s), UTC))
