from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.audit.summing import Kind, Summing

WEB: Kind = ("spiffe://demo.test/web", "scope")


def flood(summing: Summing, count: int, now_s: float, kind: Kind = WEB) -> int:
    """How many of so many refusals get a line."""
    return sum(summing.admit(kind, now_s, now_s, f"id-{number}") for number in range(count))


def test_a_hundred_a_second_get_their_lines_and_the_rest_one():
    summing = Summing()
    assert flood(summing, 100, 10.0) == 100
    assert not summing.has_sums
    assert flood(summing, 50, 10.5) == 0
    assert summing.has_sums and summing.collect(10.9) == []
    (only,) = summing.collect(11.0)
    assert (only.kind, only.count, only.first, only.last) == (WEB, 50, "id-0", "id-49")
    assert (only.from_s, only.to_s) == (10.5, 10.5)
    assert summing.collect(11.0) == [] and not summing.has_sums


def test_the_next_second_has_its_own_hundred():
    summing = Summing()
    assert flood(summing, 150, 10.0) == 100
    assert flood(summing, 150, 11.0) == 100
    assert [each.count for each in summing.collect(12.0)] == [50, 50]


def test_kinds_are_counted_apart():
    summing = Summing()
    assert flood(summing, 150, 10.0) == 100
    assert flood(summing, 150, 10.0, ("spiffe://demo.test/web", "rate")) == 100
    assert flood(summing, 150, 10.0, ("spiffe://demo.test/batch", "scope")) == 100


def test_at_the_end_everything_is_collected():
    summing = Summing()
    flood(summing, 130, 10.0)
    assert [each.count for each in summing.collect_all()] == [30]


def test_more_kinds_than_the_table_holds_share_one_per_reason():
    summing = Summing(lines_per_s=2, max_kinds=3)
    for number in range(3):
        assert flood(summing, 1, 10.0, (f"caller-{number}", "scope")) == 1
    admitted = sum(flood(summing, 1, 10.1, (f"stranger-{number}", "scope")) for number in range(50))
    assert admitted == 2
    (only,) = summing.collect_all()
    assert (only.kind, only.count) == (("", "scope"), 48)


def test_a_kind_that_is_quiet_makes_room():
    summing = Summing(lines_per_s=1, max_kinds=2)
    flood(summing, 3, 10.0, ("old", "scope"))
    flood(summing, 1, 10.5, ("other", "scope"))
    assert flood(summing, 1, 11.1, ("new", "scope")) == 1
    assert [(each.kind, each.count) for each in summing.collect_all()] == [(("old", "scope"), 2)]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0.0, 0.7)), max_size=200), st.integers(1, 4))
def test_lines_and_sums_make_up_all_refusals(steps, max_kinds):
    summing = Summing(lines_per_s=3, max_kinds=max_kinds)
    now_s, lines, told = 0.0, 0, 0
    for name, pause_s in steps:
        now_s += pause_s
        lines += summing.admit((name, "scope"), now_s, now_s, "")
        told += sum(each.count for each in summing.collect(now_s))
        assert len(summing._windows) <= max_kinds + 1
    told += sum(each.count for each in summing.collect_all())
    assert lines + told == len(steps)
    assert not summing.has_sums


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_counted_is_nothing_told(count):
    summing = Summing()
    flood(summing, count, 1.0)
    assert summing.collect_all() == []
