from __future__ import annotations

from datetime import UTC

from sidecar.clock import SYSTEM_CLOCK, SystemClock


def test_the_readings_agree_with_one_another():
    before, now, after = SYSTEM_CLOCK.wall_s(), SYSTEM_CLOCK.now(), SYSTEM_CLOCK.wall_ns() / 1e9
    assert before <= now.timestamp() <= after + 1e-3
    assert now.tzinfo is UTC


def test_durations_never_go_backwards():
    clock = SystemClock()
    for read in (clock.monotonic_s, clock.boottime_s):
        first = read()
        assert read() >= first
