from __future__ import annotations

from datetime import UTC, datetime

from sidecar.clock import SYSTEM_CLOCK, SystemClock, rfc3339, rfc3339_s


def test_the_readings_agree_with_one_another():
    before, now, after = SYSTEM_CLOCK.wall_s(), SYSTEM_CLOCK.now(), SYSTEM_CLOCK.wall_ns() / 1e9
    assert before <= now.timestamp() <= after + 1e-3
    assert now.tzinfo is UTC


def test_durations_never_go_backwards():
    clock = SystemClock()
    for read in (clock.monotonic_s, clock.boottime_s):
        first = read()
        assert read() >= first


def test_times_are_whole_seconds_rounded_down():
    noon = datetime(2026, 11, 24, 12, 0, 0, 999_999, tzinfo=UTC)
    assert rfc3339(noon) == "2026-11-24T12:00:00Z"
    assert rfc3339_s(noon.replace(microsecond=0).timestamp() + 0.999) == "2026-11-24T12:00:00Z"
    assert rfc3339_s(253_402_300_799) == "9999-12-31T23:59:59Z"
