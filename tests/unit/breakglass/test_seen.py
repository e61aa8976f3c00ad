from __future__ import annotations

from sidecar.breakglass.seen import HighestTime

DAY_S = 86400.0


def test_it_grows_with_the_wall_clock():
    seen = HighestTime(0.0, 1000.0, 50.0)
    assert seen.look(1010.0, 60.0) == 1010.0
    assert not seen.is_behind(1010.0)


def test_a_clock_that_goes_back_does_not_take_it_back():
    seen = HighestTime(0.0, 1000.0, 50.0)
    assert seen.look(400.0, 60.0) == 1000.0
    assert not seen.is_behind(970.0)
    assert seen.is_behind(969.9)


def test_what_was_known_before_the_start_counts():
    seen = HighestTime(5000.0, 1000.0, 50.0)
    assert seen.is_behind(1000.0)
    assert seen.look(1100.0, 150.0) == 5000.0
    assert not seen.is_behind(4990.0)


def test_a_reading_far_ahead_does_not_stick():
    seen = HighestTime(0.0, 1000.0, 50.0)
    assert seen.look(1000.0 + 365 * DAY_S, 51.0) == 1001.0
    assert not seen.is_behind(1002.0)


def test_time_suspended_counts():
    seen = HighestTime(0.0, 1000.0, 50.0)
    assert seen.look(1000.0 + DAY_S, 50.0 + DAY_S) == 1000.0 + DAY_S
