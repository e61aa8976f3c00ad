"""How long a connection may live, and when its end is announced. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.proxy.limits import ANNOUNCE_S


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Ends of one connection: ``announce_s`` is monotonic, ``certificates_end_s`` wall clock, ``..._boot_s``
    boot time.

    The certificates end when either clock says so: the wall clock can be set back, and boot time counts
    through a suspend.
    """

    announce_s: float
    certificates_end_s: float
    certificates_end_boot_s: float

    def has_ended(self, wall_s: float, boot_s: float) -> bool:
        """Whether a certificate that the connection rests on has ended."""
        return wall_s >= self.certificates_end_s or boot_s >= self.certificates_end_boot_s


def plan_lifetime(
    max_age_s: float, certificates_end_s: float, *, now_s: float, wall_s: float, boot_s: float
) -> Lifetime:
    """For a connection made now: its age and its certificates end it, and the last tenth announces that."""
    left_s = certificates_end_s - wall_s
    life_s = max(0.0, min(max_age_s, left_s))
    announce_s = now_s + life_s - min(life_s / 10, ANNOUNCE_S)
    return Lifetime(announce_s, certificates_end_s, boot_s + left_s)
