"""A clock that stands still until a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class FakeClock:
    """All three clocks start together and move together, unless :meth:`step_wall` moves the wall alone."""

    def __init__(self, start: datetime = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)) -> None:
        self._wall = start
        self._monotonic_s = 1000.0

    def now(self) -> datetime:
        return self._wall

    def wall_s(self) -> float:
        return self._wall.timestamp()

    def wall_ns(self) -> int:
        return int(self._wall.timestamp() * 1_000_000) * 1000

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def boottime_s(self) -> float:
        return self._monotonic_s

    def advance(self, seconds: float) -> None:
        self._wall += timedelta(seconds=seconds)
        self._monotonic_s += seconds

    def step_wall(self, seconds: float) -> None:
        self._wall += timedelta(seconds=seconds)
