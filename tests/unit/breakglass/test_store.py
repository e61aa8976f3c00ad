from __future__ import annotations

import asyncio
import errno
import os
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.authz.ports import Grants
from sidecar.breakglass import ledger as ledger_module
from sidecar.breakglass import store as store_module
from sidecar.breakglass.grant import parse_target
from sidecar.breakglass.signers import NO_SIGNERS
from sidecar.breakglass.store import GrantBook
from sidecar.breakglass.verify import SKEW_S, GrantRules
from sidecar.errors import OrderRefused, StateError, UnavailableError
from sidecar.identity.route import split_path
from sidecar.identity.spiffe_id import parse_workload_id
from tests.fakes.book import Desktop, code_of
from tests.fakes.loops import both_loops, run_on
from tests.fakes.orders import (
    OTHER,
    WEB,
    make_grant,
    make_review,
    make_revocation,
    sign_order,
    signers_of,
)

ORDER_42 = split_path("/orders/42")


@pytest.fixture
def desktop(tmp_path) -> Desktop:
    return Desktop(tmp_path)


def opens(desktop: Desktop, book: GrantBook, caller: str = str(WEB), method: str = "DELETE", path=ORDER_42):
    found = book.find(caller, method, path, desktop.clock.wall_s())
    return None if found is None else found[0]


def test_it_is_the_port_that_the_decision_declares(desktop):
    async def story() -> None:
        book = await desktop.open()
        port: Grants = book
        assert port.find(str(WEB), "DELETE", ORDER_42, 0.0) is None
        await book.close()

    asyncio.run(story())


@both_loops
def test_a_grant_opens_what_it_names_and_nothing_else(factory, desktop):
    grant = make_grant(desktop.clock)

    async def story() -> None:
        book = await desktop.open()
        before = book.generation
        answer = await book.submit_order(sign_order(grant, "oncall"))
        assert answer["result"] == "accepted" and answer["grant"] == grant.id
        assert book.generation != before and book.active_count == 1 and book.entries == 2
        wall_s = desktop.clock.wall_s()
        assert book.find(str(WEB), "DELETE", ORDER_42, wall_s) == (grant.id, float(grant.not_after_s))
        assert list(book.in_force()) == [(grant.id, float(grant.not_after_s))]
        for caller, method, path in (
            (str(OTHER), "DELETE", "/orders/42"),
            (str(WEB) + "2", "DELETE", "/orders/42"),
            (str(WEB).upper(), "DELETE", "/orders/42"),
            (str(WEB) + ".", "DELETE", "/orders/42"),
            (str(WEB), "GET", "/orders/42"),
            (str(WEB), "DELETE", "/orders"),
            (str(WEB), "DELETE", "/orders/42/items"),
        ):
            assert opens(desktop, book, caller, method, split_path(path)) is None
        await book.close()

    run_on(factory, story())


def test_a_grant_is_on_disk_before_it_counts(desktop, monkeypatch):
    grant = make_grant(desktop.clock)

    async def story() -> None:
        book = await desktop.open()
        with monkeypatch.context() as planted:
            planted.setattr(os, "fdatasync", lambda fd: (_ for _ in ()).throw(OSError(errno.EIO, "gone")))
            with pytest.raises(UnavailableError):
                await book.submit_order(sign_order(grant, "oncall"))
        assert opens(desktop, book) is None and book.trouble is not None
        assert [body["result"] for body in desktop.heard("submit")] == ["failed"]
        with pytest.raises(UnavailableError):
            await book.submit_order(sign_order(grant, "oncall"))
        await book.close()
        book = await desktop.open()
        assert opens(desktop, book) is None
        await book.close()

    asyncio.run(story())


def test_whoever_hands_a_grant_in_may_go_away(desktop):
    grant = make_grant(desktop.clock)

    async def story() -> None:
        book = await desktop.open()
        handing_in = asyncio.ensure_future(book.submit_order(sign_order(grant, "oncall")))
        await asyncio.sleep(0)
        handing_in.cancel()
        assert await code_of(book, sign_order(grant, "oncall")) == "known"
        assert opens(desktop, book) == grant.id and book.entries == 2
        await book.close()

    asyncio.run(story())


def test_the_grant_that_lasts_longest_is_found_and_one_without_uses_is_not(desktop):
    short = make_grant(desktop.clock, id="a" * 32, ttl_s=60)
    long = make_grant(desktop.clock, id="b" * 32, ttl_s=600, max_uses=1)

    async def story() -> None:
        book = await desktop.open()
        for grant in (short, long):
            await book.submit_order(sign_order(grant, "oncall"))
        assert opens(desktop, book) == long.id
        await book.record_use(long.id, "call-1")
        assert opens(desktop, book) == short.id
        assert book.is_in_force(long.id, desktop.clock.wall_s())  # the call with the last use may go on
        await book.close()

    asyncio.run(story())


@pytest.mark.parametrize("seconds", [900.0, 901.0, 10**6])
def test_a_grant_ends_to_the_second_and_for_open_calls_too(seconds, desktop):
    grant = make_grant(desktop.clock, ttl_s=900)

    async def story() -> None:
        book = await desktop.open()
        await book.submit_order(sign_order(grant, "oncall"))
        desktop.clock.advance(899.999)
        assert opens(desktop, book) == grant.id and book.is_in_force(grant.id, desktop.clock.wall_s())
        before = book.generation
        desktop.clock.advance(seconds - 899.999)
        assert opens(desktop, book) is None and not book.is_in_force(grant.id, desktop.clock.wall_s())
        assert book.generation != before and book.active_count == 0
        assert [body["grant"] for body in desktop.heard("end")] == [grant.id]
        with pytest.raises(OrderRefused) as refusal:
            book.record_use(grant.id, "late")
        assert refusal.value.code == "not-in-force"
        assert await code_of(book, sign_order(grant, "oncall")) == "expired"
        await book.close()

    asyncio.run(story())


def test_rel_20_a_wall_clock_that_goes_back_lengthens_nothing(desktop):
    grant = make_grant(desktop.clock, ttl_s=900)

    async def story() -> None:
        book = await desktop.open()
        await book.submit_order(sign_order(grant, "oncall"))
        desktop.clock.advance(600)
        desktop.clock.step_wall(-3600)
        found = book.find(str(WEB), "DELETE", ORDER_42, desktop.clock.wall_s())
        assert found == (grant.id, desktop.clock.wall_s() + 300)  # the end as the boot clock has it
        desktop.clock.advance(299)
        assert opens(desktop, book) == grant.id
        desktop.clock.advance(1)
        assert opens(desktop, book) is None
        book.settle()
        desktop.clock.step_wall(3600 - 600)
        assert opens(desktop, book) is None  # it stays ended, whatever the clocks say later
        await book.close()

    asyncio.run(story())


def test_rel_20_a_wall_clock_that_goes_ahead_ends_it(desktop):
    grant = make_grant(desktop.clock, ttl_s=900)

    async def story() -> None:
        book = await desktop.open()
        await book.submit_order(sign_order(grant, "oncall"))
        desktop.clock.step_wall(3600)
        assert opens(desktop, book) is None
        book.settle()
        desktop.clock.step_wall(-3600)
        assert opens(desktop, book) is None
        await book.close()

    asyncio.run(story())


@both_loops
def test_bg_08_grants_and_uses_survive_a_restart_and_a_replay_changes_nothing(factory, desktop):
    grant = make_grant(desktop.clock, ttl_s=900, max_uses=2)
    data = sign_order(grant, "oncall")

    async def story() -> None:
        book = await desktop.open()
        await book.submit_order(data)
        await book.record_use(grant.id, "call-1")
        await book.close()
        desktop.clock.advance(100)
        book = await desktop.open()
        assert [body["grant"] for body in desktop.heard("resume")] == [grant.id]
        assert opens(desktop, book) == grant.id
        entries = book.entries
        assert await code_of(book, data) == "known" and book.entries == entries
        await book.record_use(grant.id, "call-2")
        assert opens(desktop, book) is None
        assert await code_of(book, data) == "known"
        assert opens(desktop, book) is None  # no new uses either
        await book.close()
        book = await desktop.open()
        assert opens(desktop, book) is None
        with pytest.raises(OrderRefused):
            book.record_use(grant.id, "call-3")
        desktop.clock.advance(800)
        assert await code_of(book, data) == "expired"
        await book.close()

    run_on(factory, story())


def test_bg_11_sending_it_again_lengthens_nothing(desktop):
    grant = make_grant(desktop.clock, ttl_s=900)
    data = sign_order(grant, "oncall")

    async def story() -> None:
        book = await desktop.open()
        await book.submit_order(data)
        for _ in range(9):
            desktop.clock.advance(99)
            assert await code_of(book, data) == "known"
        desktop.clock.advance(8.9)
        assert opens(desktop, book) == grant.id
        desktop.clock.advance(0.1)
        assert opens(desktop, book) is None
        await book.close()

    asyncio.run(story())


def test_bg_11_the_same_id_with_other_bytes_is_refused(desktop):
    data = sign_order(make_grant(desktop.clock, ttl_s=60), "oncall")
    longer = sign_order(make_grant(desktop.clock, ttl_s=3600), "oncall")

    async def story() -> None:
        book = await desktop.open()
        answers = await asyncio.gather(*(code_of(book, each) for each in (data, longer, data)))
        assert answers == ["accepted", "changed", "known"]
        assert await code_of(book, longer) == "changed"
        more = sign_order(make_grant(desktop.clock, ttl_s=60), "oncall", "lead")
        assert await code_of(book, more) == "known"  # the same payload, one approval more
        assert book.entries == 2
        await book.close()

    asyncio.run(story())


def test_bg_07_a_journal_that_was_copied_to_another_sidecar_opens_nothing_there(desktop):
    grant = make_grant(desktop.clock)

    async def story() -> None:
        book = await desktop.open()
        await book.submit_order(sign_order(grant, "oncall"))
        await book.close()
        book = await desktop.open(own_id=OTHER)
        assert opens(desktop, book) is None
        assert [each["doubt"] for each in book.listing()] == ["audience"]
        assert await code_of(book, sign_order(grant, "oncall")) == "audience"
        await book.close()

    asyncio.run(story())


def test_bg_09_without_its_journal_nothing_that_was_signed_before_counts(desktop):
    data = sign_order(make_grant(desktop.clock, ttl_s=900), "oncall")

    async def story() -> None:
        book = await desktop.open()
        await book.submit_order(data)
        entries = book.entries
        await book.close()
        desktop.path.unlink()
        desktop.clock.advance(10)
        book = await desktop.open(at_least_entries=entries)
        assert len(desktop.heard("void")) == 1 and book.void_before_s == desktop.clock.wall_s()
        assert await code_of(book, data) == "void"
        fresh = make_grant(desktop.clock, id="f" * 32)
        assert await code_of(book, sign_order(fresh, "oncall")) == "accepted"
        entries = book.entries
        await book.close()
        book = await desktop.open(at_least_entries=entries)
        assert await code_of(book, data) == "void"  # and so it stays
        assert opens(desktop, book) == fresh.id
        await book.close()

    asyncio.run(story())


def test_rel_23_a_new_journal_knows_nothing_so_what_was_signed_before_it_is_void(desktop):
    """With the whole state gone not even the log says that there was one; a used-up grant must not come back."""
    grant = make_grant(desktop.clock, max_uses=1)
    data = sign_order(grant, "oncall")

    async def story() -> None:
        book = await desktop.open()
        assert [body["signed_before"] for body in desktop.heard("begin")] == ["2026-11-24T12:00:00Z"]
        assert await code_of(book, data) == "accepted"  # signed in the very second of the start
        await book.record_use(grant.id, "call-1")
        await book.close()
        desktop.path.unlink()
        desktop.clock.advance(1)
        book = await desktop.open()
        assert await code_of(book, data) == "void" and opens(desktop, book) is None
        await book.close()
        book = await desktop.open()
        assert await code_of(book, data) == "void" and len(desktop.heard("begin")) == 2
        await book.close()

    asyncio.run(story())


def test_rel_23_a_journal_that_is_older_than_the_log_is_void_as_a_whole(desktop):
    first, second = (make_grant(desktop.clock, id=letter * 32) for letter in "ab")

    async def story() -> None:
        book = await desktop.open()
        await book.submit_order(sign_order(first, "oncall"))
        await book.close()
        shutil.copy(desktop.path, desktop.path.with_name("old"))
        book = await desktop.open()
        await book.submit_order(sign_order(second, "oncall"))
        await book.submit_order(sign_order(make_revocation(desktop.clock, first.id), "lead"))
        entries = book.entries
        await book.close()
        shutil.copy(desktop.path.with_name("old"), desktop.path)
        desktop.clock.advance(1)
        book = await desktop.open(at_least_entries=entries)
        assert opens(desktop, book) is None
        assert [each["state"] for each in book.listing()] == ["void"]
        assert await code_of(book, sign_order(first, "oncall")) == "void"
        assert await code_of(book, sign_order(second, "oncall")) == "void"
        await book.close()
        book = await desktop.open(at_least_entries=entries)
        assert opens(desktop, book) is None
        await book.close()

    asyncio.run(story())


@pytest.mark.parametrize("less", [0, 1])
def test_rel_23_a_journal_that_is_as_long_as_the_log_says_is_not_void(less, desktop):
    grant = make_grant(desktop.clock)

    async def story() -> None:
        book = await desktop.open()
        await book.submit_order(sign_order(grant, "oncall"))
        entries = book.entries
        await book.close()
        book = await desktop.open(at_least_entries=entries - less)
        assert opens(desktop, book) == grant.id and not desktop.heard("void")
        await book.close()

    asyncio.run(story())


def test_bg_10_a_clock_that_went_back_opens_nothing_again(desktop):
    old, never_sent = (make_grant(desktop.clock, id=letter * 32, ttl_s=900) for letter in "ab")
    data = sign_order(old, "oncall")

    async def story() -> None:
        book = await desktop.open()
        await book.submit_order(data)
        desktop.clock.advance(1000)
        book.settle()
        await book.close()
        desktop.clock.step_wall(-990)  # within the grant's life
        book = await desktop.open()
        assert opens(desktop, book) is None and len(desktop.heard("clock")) == 1
        assert await code_of(book, data) == "expired"
        assert await code_of(book, sign_order(never_sent, "oncall")) == "clock"
        fresh = make_grant(desktop.clock, id="f" * 32)
        assert await code_of(book, sign_order(fresh, "oncall")) == "clock"
        desktop.clock.advance(960)  # the clock is where it was, but for the skew
        fresh = make_grant(desktop.clock, id="f" * 32)
        assert await code_of(book, sign_order(fresh, "oncall")) == "accepted"
        await book.close()

    asyncio.run(story())


def test_bg_10_a_grant_that_was_in_force_waits_until_the_clock_is_back(desktop):
    grant = make_grant(desktop.clock, ttl_s=900)

    async def story() -> None:
        book = await desktop.open()
        desktop.clock.advance(100)
        grant_later = make_grant(desktop.clock, ttl_s=900, id=grant.id)
        await book.submit_order(sign_order(grant_later, "oncall"))
        await book.close()
        desktop.clock.step_wall(-60)
        book = await desktop.open()
        assert opens(desktop, book) is None
        assert [each["state"] for each in book.listing()] == ["waiting"]
        desktop.clock.advance(30)
        before = book.generation
        assert opens(desktop, book) == grant.id and before > 1
        desktop.clock.advance(899)
        assert opens(desktop, book) == grant.id
        desktop.clock.advance(1)  # as long as was left at the highest time seen, though the wall says 930 s
        assert opens(desktop, book) is None
        await book.close()

    asyncio.run(story())


def test_bg_10_time_goes_into_the_journal_while_a_grant_is_in_force(desktop):
    """So that a restart with the clock set back to just after the last entry gains a minute at most."""
    grant = make_grant(desktop.clock, ttl_s=900)

    async def story() -> None:
        book = await desktop.open()
        await book.submit_order(sign_order(grant, "oncall"))
        for _ in range(300):
            desktop.clock.advance(1)
            book.settle()
        await asyncio.gather(*book._using.values())
        await book._holdings.journal.close()  # killed: no last entry
        desktop.clock.step_wall(-200)
        book = await desktop.open()
        assert opens(desktop, book) is None
        await book.close()

    asyncio.run(story())


@pytest.mark.parametrize("first", ["grant", "revocation"])
def test_bg_13_a_revocation_counts_in_any_order_and_for_ever(first, desktop):
    grant = make_grant(desktop.clock, ttl_s=900)
    data = sign_order(grant, "oncall")
    revocation = sign_order(make_revocation(desktop.clock, grant.id), "lead")

    async def story() -> None:
        book = await desktop.open()
        if first == "grant":
            assert await code_of(book, data) == "accepted"
            before = book.generation
            assert await code_of(book, revocation) == "accepted"
            assert book.generation != before
            assert not book.is_in_force(grant.id, desktop.clock.wall_s())
        else:
            assert await code_of(book, revocation) == "accepted"
        assert opens(desktop, book) is None
        assert await code_of(book, data) == "revoked"
        assert await code_of(book, revocation) == "known"
        with pytest.raises(OrderRefused):
            book.record_use(grant.id, "call")
        await book.close()
        desktop.signers = signers_of("oncall")  # the one who revoked may sign no more
        book = await desktop.open()
        assert opens(desktop, book) is None
        assert await code_of(book, data) == "revoked"
        await book.close()

    asyncio.run(story())


def test_bg_13_a_revocation_counts_before_the_disk_has_it_and_says_so_if_it_never_does(desktop, monkeypatch):
    grant = make_grant(desktop.clock)
    revocation = sign_order(make_revocation(desktop.clock, grant.id), "lead")

    async def story() -> None:
        book = await desktop.open()
        await book.submit_order(sign_order(grant, "oncall"))
        with monkeypatch.context() as planted:
            planted.setattr(os, "fdatasync", lambda fd: (_ for _ in ()).throw(OSError(errno.EIO, "gone")))
            handing_in = asyncio.ensure_future(book.submit_order(revocation))
            await asyncio.sleep(0)
            assert opens(desktop, book) is None
            with pytest.raises(UnavailableError):
                await handing_in
        with pytest.raises(UnavailableError):
            await book.submit_order(revocation)  # again: not "known", since no disk has it
        assert opens(desktop, book) is None
        await book.close()

    asyncio.run(story())


def test_bg_14_ten_thousand_grants_and_not_one_more(desktop, monkeypatch):
    monkeypatch.setattr("sidecar.breakglass.holdings.MAX_GRANTS", 20)
    assert ledger_module.MAX_GRANTS == 10_000

    async def story() -> None:
        book = await desktop.open()
        for number in range(20):
            grant = make_grant(desktop.clock, id=f"{number:032x}", ttl_s=60)
            assert await code_of(book, sign_order(grant, "oncall")) == "accepted"
        one_more = make_grant(desktop.clock, id="f" * 32, ttl_s=3600)
        assert await code_of(book, sign_order(one_more, "oncall")) == "capacity"
        assert await code_of(book, sign_order(make_revocation(desktop.clock, "0" * 32), "lead")) == "accepted"
        desktop.clock.advance(60 + 86_401)  # a day after their end they are forgotten
        one_more = make_grant(desktop.clock, id="f" * 32, ttl_s=3600)
        assert await code_of(book, sign_order(one_more, "oncall")) == "accepted"
        assert len(book.listing()) == 1
        await book.close()

    asyncio.run(story())


def test_bg_14_huge_orders_are_refused_unread(desktop):
    async def story() -> None:
        book = await desktop.open()
        assert await code_of(book, bytes(16_385)) == "too-large"
        assert await code_of(book, b"") == "malformed"
        assert [body["code"] for body in desktop.heard("submit")] == ["too-large", "malformed"]
        await book.close()

    asyncio.run(story())


def test_bg_15_ids_that_look_alike_open_nothing_for_each_other(desktop):
    grant = make_grant(desktop.clock, subject=parse_workload_id("spiffe://demo.test/Web"))

    async def story() -> None:
        book = await desktop.open()
        await book.submit_order(sign_order(grant, "oncall"))
        assert opens(desktop, book, "spiffe://demo.test/Web") == grant.id
        for caller in (
            "spiffe://demo.test/web",
            "spiffe://demo.test/Web.",
            "spiffe://demo.test/Web/",
            "spiffe://demo.test/Wеb",
        ):
            assert opens(desktop, book, caller) is None
        await book.close()

    asyncio.run(story())


@both_loops
def test_bg_18_parallel_calls_get_no_use_too_many(factory, desktop):
    grant = make_grant(desktop.clock, max_uses=5)

    async def story() -> None:
        book = await desktop.open()
        await book.submit_order(sign_order(grant, "oncall"))

        async def call(number: int) -> bool:
            # All of them were told yes before the first one took its use.
            assert book.find(str(WEB), "DELETE", ORDER_42, desktop.clock.wall_s()) is not None
            await asyncio.sleep(0)
            try:
                await book.record_use(grant.id, f"call-{number}")
            except OrderRefused as exc:
                assert exc.code == "used-up"
                return False
            return True

        passed = await asyncio.gather(*(call(number) for number in range(50)))
        assert sum(passed) == 5 and opens(desktop, book) is None
        assert len(desktop.heard("use")) == 5
        assert [body["first"] for body in desktop.heard("use")] == [True] + [False] * 4
        await book.close()

    run_on(factory, story())


@pytest.mark.parametrize("max_uses", [3, None])
def test_bg_18_one_call_counts_once(max_uses, desktop):
    grant = make_grant(desktop.clock, max_uses=max_uses)

    async def story() -> None:
        book = await desktop.open()
        await book.submit_order(sign_order(grant, "oncall"))
        first = book.record_use(grant.id, "call-1")
        again = book.record_use(grant.id, "call-1")  # before the first is on disk
        await asyncio.gather(first, again)
        if max_uses is not None:
            await book.record_use(grant.id, "call-1")  # and after
        assert book.listing()[0]["uses"] == 1
        await book.close()
        book = await desktop.open()
        assert book.listing()[0]["uses"] == 1
        await book.close()

    asyncio.run(story())


def test_bg_18_a_use_that_no_disk_has_is_no_use_and_stays_taken(desktop, monkeypatch):
    grant = make_grant(desktop.clock, max_uses=1)

    async def story() -> None:
        book = await desktop.open()
        await book.submit_order(sign_order(grant, "oncall"))
        with monkeypatch.context() as planted:
            planted.setattr(os, "fdatasync", lambda fd: (_ for _ in ()).throw(OSError(errno.EIO, "gone")))
            with pytest.raises(UnavailableError):
                await book.record_use(grant.id, "call-1")
        assert opens(desktop, book) is None
        assert [body["result"] for body in desktop.heard("use")] == ["ok", "failed"]
        await book.close()

    asyncio.run(story())


def test_bg_20_a_use_that_nobody_can_be_told_of_does_not_pass(desktop):
    grant = make_grant(desktop.clock, max_uses=1)
    data = sign_order(grant, "oncall")

    def deaf(event: str, body: object) -> None:
        raise RuntimeError("the log is gone")

    async def story() -> None:
        book = await desktop.open()
        await book.submit_order(data)
        book._holdings.on_event = deaf
        with pytest.raises(RuntimeError):
            book.record_use(grant.id, "call-1")
        assert book.listing()[0]["uses"] == 0
        book._holdings.on_event = desktop.hear
        await book.record_use(grant.id, "call-1")
        await book.close()

    asyncio.run(story())


def test_bg_22_a_grant_that_was_used_asks_for_its_review(desktop):
    grant = make_grant(desktop.clock, ttl_s=60)

    async def story() -> None:
        book = await desktop.open()
        await book.submit_order(sign_order(grant, "oncall"))
        assert book.listing()[0]["review"] == "none"
        await book.record_use(grant.id, "call-1")
        assert book.listing()[0]["review"] == "due"
        desktop.clock.advance(60 + 72 * 3600)
        book.settle()
        assert not desktop.heard("overdue")
        desktop.clock.advance(2)
        book.settle()
        desktop.clock.advance(2)
        book.settle()
        assert [body["grant"] for body in desktop.heard("overdue")] == [grant.id]
        assert book.listing()[0]["review"] == "overdue"  # remembered beyond the usual day
        review = sign_order(make_review(desktop.clock, grant.id), "lead")
        assert await code_of(book, review) == "accepted"
        assert book.listing()[0]["review"] == "done"
        await book.close()
        book = await desktop.open()
        assert book.listing() == []  # looked at and long over
        await book.close()

    asyncio.run(story())


def test_signers_that_change_take_their_grants_along(desktop):
    grant = make_grant(desktop.clock)

    async def story() -> None:
        book = await desktop.open()
        await book.submit_order(sign_order(grant, "oncall", "lead"))
        before = book.generation
        book.replace_signers(signers_of("oncall", "lead", "new"))
        assert opens(desktop, book) == grant.id and not desktop.heard("unbacked")
        for signers in (signers_of("oncall"), NO_SIGNERS, signers_of("lead")):
            book.replace_signers(signers)
            assert opens(desktop, book) is None and book.generation != before
            assert not book.is_in_force(grant.id, desktop.clock.wall_s())
        assert [body["code"] for body in desktop.heard("unbacked")] == ["unknown-signer"]
        book.replace_signers(signers_of("oncall", "lead"))
        assert opens(desktop, book) == grant.id
        await book.close()
        desktop.signers = signers_of("lead")
        book = await desktop.open()
        assert opens(desktop, book) is None
        await book.close()

    asyncio.run(story())


@pytest.mark.parametrize("rules", [GrantRules(3600, 2), GrantRules(60, 1)])
def test_a_restart_with_stricter_rules_keeps_to_them(rules, desktop):
    async def story() -> None:
        book = await desktop.open()
        await book.submit_order(sign_order(make_grant(desktop.clock), "oncall"))
        await book.close()
        desktop.rules = rules
        book = await desktop.open()
        assert opens(desktop, book) is None and book.active_count == 0
        await book.close()

    asyncio.run(story())


def test_a_torn_end_is_cut_off_and_told(desktop):
    async def story() -> None:
        book = await desktop.open()
        await book.submit_order(sign_order(make_grant(desktop.clock), "oncall"))
        await book.close()
        data = desktop.path.read_bytes()
        desktop.path.write_bytes(data[:-3])
        book = await desktop.open()
        assert book.recovered_bytes > 0
        assert [body["bytes"] for body in desktop.heard("recovered")] == [book.recovered_bytes]
        await book.close()

    asyncio.run(story())


def test_a_damaged_journal_is_no_start(desktop):
    async def story() -> None:
        book = await desktop.open()
        await book.submit_order(sign_order(make_grant(desktop.clock), "oncall"))
        await book.close()
        data = bytearray(desktop.path.read_bytes())
        data[100] ^= 1
        desktop.path.write_bytes(data)
        with pytest.raises(StateError, match="damaged"):
            await desktop.open()

    asyncio.run(story())


def test_two_books_cannot_share_a_journal(desktop):
    async def story() -> None:
        book = await desktop.open()
        with pytest.raises(StateError, match="another process"):
            await desktop.open()
        await book.close()
        await book.close()

    asyncio.run(story())


def test_the_journal_is_compacted_and_nothing_that_counts_is_lost(desktop, monkeypatch):
    monkeypatch.setattr(store_module, "REWRITE_ABOVE_ENTRIES", 10)
    kept = make_grant(desktop.clock, id="a" * 32, ttl_s=3600, max_uses=100)
    unlimited = make_grant(desktop.clock, id="b" * 32, ttl_s=3600)
    revoked = make_grant(desktop.clock, id="c" * 32, ttl_s=3600)

    async def story() -> None:
        book = await desktop.open()
        for grant in (kept, unlimited, revoked):
            await book.submit_order(sign_order(grant, "oncall"))
        await book.submit_order(sign_order(make_revocation(desktop.clock, revoked.id), "lead"))
        await book.submit_order(sign_order(make_revocation(desktop.clock, "d" * 32), "lead"))
        await asyncio.gather(*(book.record_use(kept.id, f"a{number}") for number in range(30)))
        await asyncio.gather(*(book.record_use(unlimited.id, f"b{number}") for number in range(30)))
        entries, before = book.entries, book.listing()
        await book.close()
        size = desktop.path.stat().st_size
        book = await desktop.open(at_least_entries=entries)
        assert desktop.path.stat().st_size < size and book.entries > entries
        assert book.listing() == before and not desktop.heard("void")
        assert await code_of(book, sign_order(make_grant(desktop.clock, id="d" * 32), "oncall")) == "revoked"
        await book.close()
        book = await desktop.open(at_least_entries=entries)
        assert book.listing() == before
        await book.close()

    asyncio.run(story())


def test_a_void_book_stays_void_when_it_is_compacted(desktop, monkeypatch):
    monkeypatch.setattr(store_module, "REWRITE_ABOVE_ENTRIES", -1)  # every time
    grant = make_grant(desktop.clock)

    async def story() -> None:
        book = await desktop.open()
        await book.submit_order(sign_order(grant, "oncall"))
        await book.close()
        desktop.clock.advance(1)
        book = await desktop.open(at_least_entries=1000)
        fresh = make_grant(desktop.clock, id="f" * 32)
        assert await code_of(book, sign_order(fresh, "oncall")) == "accepted"
        await book.close()
        for _ in range(3):
            book = await desktop.open()
            assert opens(desktop, book) == fresh.id
            states = {each["grant"]: each["state"] for each in book.listing()}
            assert states == {grant.id: "void", fresh.id: "active"}
            assert await code_of(book, sign_order(grant, "oncall")) == "void"
            await book.close()

    asyncio.run(story())


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["submit", "revoke", "use", "advance", "back", "restart", "settle"]),
        st.integers(0, 2),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_any_story_keeps_the_promises(tmp_path_factory, steps):
    """No grant opens anything after its end, after its revocation, before it was accepted, or beyond its uses."""
    desktop = Desktop(tmp_path_factory.mktemp("story"))
    grants = [
        make_grant(desktop.clock, id=f"{n:032x}", ttl_s=100 * (n + 1), max_uses=n + 1) for n in range(3)
    ]
    grants = [
        make_grant(
            desktop.clock, id=each.id, max_uses=each.max_uses, not_after_s=each.not_after_s,
            allow=(parse_target(f"DELETE /g{number}"),),
        )
        for number, each in enumerate(grants)
    ]  # fmt: skip

    async def story() -> None:
        book = await desktop.open()
        began_s = desktop.clock.boottime_s()
        accepted: set[int] = set()
        revoked: set[int] = set()
        uses = [0, 0, 0]
        skew_s = 0
        for step, n in steps:
            grant = grants[n]
            match step:
                case "submit":
                    if await code_of(book, sign_order(grant, "oncall")) == "accepted":
                        accepted.add(n)
                case "revoke":
                    await book.submit_order(sign_order(make_revocation(desktop.clock, grant.id), "lead"))
                    revoked.add(n)
                case "use":
                    try:
                        await book.record_use(grant.id, f"call-{len(desktop.events)}")
                        uses[n] += 1
                    except OrderRefused:
                        pass
                case "advance":
                    desktop.clock.advance((0, 40, 100)[n])
                    book.settle()  # as it does once a second
                case "back":
                    desktop.clock.step_wall(-(1, 20, 500)[n])
                    skew_s = SKEW_S
                case "settle":
                    book.settle()
                case "restart":
                    await book.close()
                    book = await desktop.open(at_least_entries=book.entries)
            for number in range(3):
                found = opens(desktop, book, path=(f"g{number}",)) is not None
                elapsed_s = desktop.clock.boottime_s() - began_s
                if found:
                    assert number in accepted and number not in revoked
                    # By real time, whatever the wall clock says; what it may be behind is all there is to gain.
                    assert elapsed_s < 100 * (number + 1) + skew_s
                    assert uses[number] < number + 1
                assert uses[number] <= number + 1
        await book.close()

    asyncio.run(story())
