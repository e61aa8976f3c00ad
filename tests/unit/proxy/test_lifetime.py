"""When a connection's end is announced, and when it has come."""

from __future__ import annotations

import pytest

from sidecar.proxy.lifetime import plan_lifetime

NOW, WALL, BOOT = 1000.0, 5_000_000.0, 2000.0


@pytest.mark.parametrize(
    ("max_age_s", "left_s", "announced_after_s"),
    [
        (3600.0, 1e9, 3570.0),  # thirty seconds at most
        (100.0, 1e9, 90.0),  # a tenth
        (3600.0, 100.0, 90.0),  # the certificates end first
        (3600.0, 0.0, 0.0),
        (3600.0, -5.0, 0.0),
        (3600.0, float("inf"), 3570.0),
    ],
)
def test_the_end_is_announced_in_the_last_tenth(max_age_s: float, left_s: float, announced_after_s: float):
    life = plan_lifetime(max_age_s, WALL + left_s, now_s=NOW, wall_s=WALL, boot_s=BOOT)
    assert life.announce_s == NOW + announced_after_s


@pytest.mark.parametrize(
    ("wall_s", "boot_s", "ended"),
    [
        (WALL + 99.9, BOOT + 99.9, False),
        (WALL + 100.0, BOOT, True),  # the wall clock says so
        (WALL - 3600, BOOT + 100.0, True),  # or the time since boot does, whatever became of the wall clock
    ],
)
def test_certificates_end_by_either_clock(wall_s: float, boot_s: float, ended: bool):
    life = plan_lifetime(3600.0, WALL + 100.0, now_s=NOW, wall_s=WALL, boot_s=BOOT)
    assert life.has_ended(wall_s, boot_s) is ended
