"""The highest wall time seen, so that a clock set back opens nothing again. Pure."""

from __future__ import annotations

from sidecar.breakglass.verify import SKEW_S


class HighestTime:
    """Grows with the wall clock, but no faster than boot time: one reading of 2099 does not stick.

    ``persisted_s`` is what was known before this start. All in seconds.
    """

    __slots__ = ("_boot_s", "_wall_s", "value_s")

    def __init__(self, persisted_s: float, wall_s: float, boot_s: float) -> None:
        self._wall_s = max(persisted_s, wall_s)
        self._boot_s = boot_s
        self.value_s = self._wall_s

    def look(self, wall_s: float, boot_s: float) -> float:
        """Takes a reading of both clocks; gives the highest time now."""
        limit_s = self._wall_s + (boot_s - self._boot_s)
        self.value_s = max(self.value_s, min(wall_s, limit_s))
        return self.value_s

    def is_behind(self, wall_s: float) -> bool:
        """Whether the wall clock is so far below the highest time that no grant may begin to count."""
        return wall_s < self.value_s - SKEW_S
