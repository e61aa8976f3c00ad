from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.authz.rate import Buckets
from sidecar.policy.model import Rate

WEB = "spiffe://demo.test/web"


def taken(buckets: Buckets, rate: Rate, now_s: float, calls: int) -> int:
    return sum(buckets.take(WEB, rate, now_s) is None for _ in range(calls))


@pytest.mark.parametrize("calls", [1, 3, 7, 100])
@pytest.mark.parametrize("period_s", [1.0, 60.0, 3600.0])
def test_a_burst_is_the_rates_number_and_comes_back_after_its_period(calls, period_s):
    rate = Rate(calls, period_s)
    buckets = Buckets()
    for start_s in (0.0, 1e6, 1e6 + period_s, 1e6 + 5 * period_s):
        assert taken(buckets, rate, start_s, calls + 5) == calls


@pytest.mark.parametrize(
    ("calls", "period_s", "later_s", "wait_s"),
    [
        (1, 1.0, 0.0, 1),
        (100, 1.0, 0.0, 1),
        (1, 60.0, 0.0, 60),
        (2, 60.0, 0.0, 30),
        (1, 3600.0, 3599.5, 1),
        (1, 60.0, 10.5, 50),
    ],
)
def test_how_long_to_wait_in_whole_seconds(calls, period_s, later_s, wait_s):
    rate = Rate(calls, period_s)
    buckets = Buckets()
    taken(buckets, rate, 0.0, calls)
    assert buckets.look(WEB, rate, later_s) == wait_s
    assert buckets.take(WEB, rate, later_s) == wait_s
    assert buckets.take(WEB, rate, later_s + wait_s) is None


def test_looking_charges_nothing():
    buckets, rate = Buckets(), Rate(1, 1.0)
    assert buckets.look(WEB, rate, 0.0) is None and len(buckets) == 0
    assert buckets.take(WEB, rate, 0.0) is None
    assert buckets.look(WEB, rate, 0.0) == 1


def test_another_rate_neither_fills_nor_forgets():
    buckets = Buckets()
    assert taken(buckets, Rate(2, 3600.0), 0.0, 3) == 2
    assert taken(buckets, Rate(100, 1.0), 0.0, 3) == 0
    assert taken(buckets, Rate(100, 1.0), 0.05, 9) == 5
    assert (
        taken(buckets, Rate(1, 3600.0), 100.0, 9) == 1
    )  # what was saved under the old rate is capped by the new


def test_time_that_goes_back_adds_nothing_and_loses_nothing():
    buckets, rate = Buckets(), Rate(1, 10.0)
    assert buckets.take(WEB, rate, 100.0) is None
    assert buckets.take(WEB, rate, 90.0) == 10
    assert buckets.take(WEB, rate, 100.0) == 10
    assert buckets.take(WEB, rate, 110.0) is None


def test_only_full_buckets_are_dropped():
    buckets, rate = Buckets(), Rate(2, 10.0)
    buckets.take(WEB, rate, 0.0)
    buckets.drop_full(4.9)
    assert len(buckets) == 1
    buckets.drop_full(5.0)
    assert len(buckets) == 0


@given(
    st.integers(1, 5),
    st.sampled_from([1, 60]),
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 4)), max_size=30),
)
def test_never_more_than_the_burst_and_what_came_in(calls, period_s, steps):
    """Against exact arithmetic; times are eighths of a second, which floats hold exactly."""
    buckets, rate = Buckets(), Rate(calls, float(period_s))
    now, tokens = Fraction(0), Fraction(calls)
    for eighths, wanted in steps:
        elapsed = Fraction(eighths, 8)
        now += elapsed
        tokens = min(Fraction(calls), tokens + elapsed * calls / period_s)
        got = taken(buckets, rate, float(now), wanted)
        assert got <= min(wanted, int(tokens + Fraction(1, 10**9)))
        assert got >= min(wanted, int(tokens - Fraction(1, 10**9)))
        tokens -= got
