from __future__ import annotations

import asyncio

import pytest

from sidecar.breakglass.entries import Ended, TimeSeen, decode_entry
from sidecar.journal import open_journal
from tests.fakes.book import Desktop
from tests.fakes.orders import make_grant, sign_order


@pytest.fixture
def desktop(tmp_path) -> Desktop:
    return Desktop(tmp_path)


def entries_of(desktop: Desktop) -> list[object]:
    found: list[object] = []

    async def story() -> None:
        await open_journal(desktop.path, lambda data: found.append(decode_entry(data))).close()

    asyncio.run(story())
    return found


def test_time_takes_effect_without_anybody_asking_for_the_grant(desktop):
    grants = [
        make_grant(desktop.clock, id=letter * 32, ttl_s=ttl_s) for letter, ttl_s in (("a", 60), ("b", 120))
    ]

    async def story() -> None:
        book = await desktop.open()
        for grant in grants:
            await book.submit_order(sign_order(grant, "oncall"))
        generation = book.generation
        for _ in range(59):
            desktop.clock.advance(1)
            book.settle()
        assert book.generation == generation and not desktop.heard("end")
        desktop.clock.advance(1)
        assert book.generation > generation  # whoever watches it sees the end
        assert [body["grant"] for body in desktop.heard("end")] == [grants[0].id]
        generation = book.generation
        desktop.clock.advance(60)
        book.settle()
        assert [body["grant"] for body in desktop.heard("end")] == [each.id for each in grants]
        assert book.generation > generation
        await book.close()

    asyncio.run(story())
    assert [each.grant_id for each in entries_of(desktop) if isinstance(each, Ended)] == [
        each.id for each in grants
    ]


def test_an_end_is_told_once(desktop):
    grant = make_grant(desktop.clock, ttl_s=60)

    async def story() -> None:
        book = await desktop.open()
        await book.submit_order(sign_order(grant, "oncall"))
        desktop.clock.advance(60)
        for _ in range(5):
            desktop.clock.advance(1)
            book.settle()
        await book.close()
        book = await desktop.open()
        book.settle()
        await book.close()

    asyncio.run(story())
    assert len(desktop.heard("end")) == 1 and len(desktop.heard("resume")) == 0


@pytest.mark.parametrize(("with_grant", "least", "most"), [(True, 5, 6), (False, 1, 1)])
def test_the_time_is_written_each_minute_while_a_grant_is_in_force(with_grant, least, most, desktop):
    async def story() -> None:
        book = await desktop.open()
        if with_grant:
            await book.submit_order(sign_order(make_grant(desktop.clock), "oncall"))
        for _ in range(300):
            desktop.clock.advance(1)
            book.settle()
        await book.close()

    asyncio.run(story())
    written = [each for each in entries_of(desktop) if isinstance(each, TimeSeen)]
    assert least <= len(written) <= most
    assert written[-1].seen_s == desktop.clock.wall_s()


def test_a_clock_that_is_far_ahead_for_a_moment_forgets_nothing(desktop):
    grant = make_grant(desktop.clock, ttl_s=60)

    async def story() -> None:
        book = await desktop.open()
        await book.submit_order(sign_order(grant, "oncall"))
        desktop.clock.advance(61)
        desktop.clock.step_wall(10 * 86400)
        book.settle()
        desktop.clock.advance(2)
        book.settle()
        assert [each["state"] for each in book.listing()] == ["ended"]
        await book.close()

    asyncio.run(story())
