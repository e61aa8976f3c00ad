"""Whether a caller reads, judged by what has left the buffer."""

from __future__ import annotations

import pytest

from sidecar.proxy.limits import WRITE_PROGRESS_BYTES, ProxyLimits
from tests.fakes.data_plane import DataPlane
from tests.fakes.transports import FakeTransport


def make_link() -> FakeTransport:
    return DataPlane(limits=ProxyLimits(write_timeout_s=30)).caller()


def is_stuck(link: FakeTransport, now_s: float, buffered: int, sent: int, call_id: str = "a") -> bool:
    link.buffered = buffered
    return link.protocol._is_stuck(now_s, call_id, sent)


@pytest.mark.parametrize(
    ("taken", "stuck"), [(0, True), (WRITE_PROGRESS_BYTES - 1, True), (WRITE_PROGRESS_BYTES, False)]
)
def test_a_caller_has_to_take_something_in_the_time(taken: int, stuck: bool):
    link = make_link()
    assert not is_stuck(link, 0.0, 50_000, 50_000)
    assert not is_stuck(link, 15.0, 50_000 - taken, 50_000)
    assert not is_stuck(link, 29.9, 50_000 - taken, 50_000)
    assert is_stuck(link, 30.0, 50_000 - taken, 50_000) is stuck


def test_a_buffer_that_stays_as_full_as_it_is_may_be_read_all_the_time():
    link = make_link()
    for second in range(100):
        assert not is_stuck(link, float(second), 40_000, 40_000 + second * 10_000)


def test_a_service_that_adds_drops_does_not_excuse_a_caller_who_takes_none():
    link = make_link()
    assert not is_stuck(link, 0.0, 100, 100)
    assert [is_stuck(link, float(second), 100 + second, 100 + second) for second in (10, 29, 30)] == [
        *(False, False),
        True,
    ]


def test_an_empty_buffer_and_another_call_begin_anew():
    link = make_link()
    assert not is_stuck(link, 0.0, 100, 100)
    assert not is_stuck(link, 20.0, 0, 100)
    assert not is_stuck(link, 35.0, 100, 200)
    assert not is_stuck(link, 66.0, 100, 200, "b")
    assert is_stuck(link, 96.0, 100, 200, "b")


def test_a_link_that_is_closing_is_neither_paused_nor_resumed():
    link = make_link()
    link.protocol._close()
    link.protocol.hold_reading(True)
    assert not link.is_paused
