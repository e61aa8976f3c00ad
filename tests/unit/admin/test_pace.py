from __future__ import annotations

import asyncio

import asyncio_throttle.throttler
import pytest

from sidecar.admin.pace import Pace, TooBusyError


@pytest.fixture
def clock(monkeypatch):
    """The throttler's clock, moved by hand; its polling is real and costs 10 ms."""

    class Time:
        now = 100.0

        def monotonic(self) -> float:
            return self.now

    time = Time()
    monkeypatch.setattr(asyncio_throttle.throttler, "time", time)
    return time


async def settle() -> None:
    """Lets every task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize(("rate", "waiters"), [(0, 1), (-1, 1), (1, 0)])
def test_a_pace_that_would_wait_for_ever_is_refused(rate, waiters):
    with pytest.raises(ValueError, match="at least 1"):
        Pace(rate=rate, waiters=waiters)


def test_beyond_the_waiters_calls_are_turned_away_with_a_time(clock):
    async def story() -> None:
        pace = Pace(rate=2, period_s=1.5, waiters=3)
        await pace.take()
        await pace.take()
        waiting = [asyncio.create_task(pace.take()) for _ in range(3)]
        await settle()
        with pytest.raises(TooBusyError) as refusal:
            await pace.take()
        assert refusal.value.retry_after_s == 2
        clock.now += 10  # the window is empty again: two of the three go on
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0.03)
        assert sum(task.done() for task in waiting) == 2
        clock.now += 10
        await asyncio.gather(*waiting)
        await pace.take()

    asyncio.run(story())


def test_a_wait_has_an_end_and_leaves_its_place(clock):
    async def story() -> None:
        pace = Pace(rate=1, waiters=1, longest_wait_s=0.02)
        await pace.take()
        for _ in range(3):
            with pytest.raises(TooBusyError):
                await pace.take()
        clock.now += 10
        await pace.take()

    asyncio.run(story())


def test_a_caller_that_goes_away_leaves_its_place(clock):
    async def story() -> None:
        pace = Pace(rate=1, waiters=1)
        await pace.take()
        waiting = asyncio.create_task(pace.take())
        await settle()
        waiting.cancel()
        await asyncio.wait([waiting])
        clock.now += 10
        await pace.take()

    asyncio.run(story())


class TestThrottlerKeepsItsPromises:
    """What we rely on in asyncio-throttle 1.0; a newer version has to pass this first."""

    def test_the_window_is_exact_and_its_end_is_exclusive(self, clock):
        async def story() -> None:
            throttler = asyncio_throttle.throttler.Throttler(rate_limit=2, period=1.0)
            await throttler.acquire()
            clock.now += 0.5
            await throttler.acquire()
            clock.now += 0.5  # the first is exactly one period old and still counts
            third = asyncio.create_task(throttler.acquire())
            await settle()
            assert not third.done()
            clock.now += 0.01
            await third

        asyncio.run(story())

    def test_with_room_it_never_gives_up_the_loop(self, clock):
        attempt = asyncio_throttle.throttler.Throttler(rate_limit=1).acquire()
        with pytest.raises(StopIteration):
            attempt.send(None)

    def test_a_cancelled_waiter_takes_no_place(self, clock):
        async def story() -> None:
            throttler = asyncio_throttle.throttler.Throttler(rate_limit=1, period=1.0)
            await throttler.acquire()
            waiting = asyncio.create_task(throttler.acquire())
            await settle()
            waiting.cancel()
            await asyncio.wait([waiting])
            clock.now += 2
            assert throttler.acquire().close() is None  # never started: takes nothing
            await asyncio.wait_for(throttler.acquire(), 1)

        asyncio.run(story())
