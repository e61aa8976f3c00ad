"""The sweep over all connections, drain, and the end."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.authz.reasons import Reason
from sidecar.proxy import inbound
from sidecar.proxy.connection import Connection
from tests.fakes.data_plane import DENY, GET, GRANTED, OK, DataPlane, in_memory, turn

BEGUN = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n"


async def open_call(plane: DataPlane):
    """A caller with an open call, and the service's end of it."""
    caller = plane.caller()
    caller.feed(GET)
    await turn()
    assert plane.service.link.take()
    return caller, plane.service.link


@in_memory
async def test_connections_and_calls_are_counted():
    plane = DataPlane()
    assert (plane.inbound.connections, plane.inbound.open_calls) == (0, 0)
    caller, service = await open_call(plane)
    other = plane.caller()
    assert (plane.inbound.connections, plane.inbound.open_calls) == (2, 1)
    service.feed(OK)
    assert plane.inbound.open_calls == 0
    caller.lose()
    other.lose()
    assert plane.inbound.connections == 0


@in_memory
async def test_a_refused_call_is_not_an_open_one():
    plane = DataPlane(DENY)
    plane.caller().feed(GET)
    assert plane.inbound.open_calls == 0


@in_memory
async def test_the_sweep_runs_by_itself_and_ends_with_close(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inbound, "SWEEP_S", 0.001)
    plane = DataPlane()
    swept = asyncio.Semaphore(0)
    monkeypatch.setattr(plane.inbound, "sweep", swept.release)
    plane.inbound.start()
    await swept.acquire()
    await swept.acquire()
    await plane.inbound.close()
    pending = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    assert all(handle.cancelled() for handle in pending if handle._callback == plane.inbound._on_timer)


@in_memory
async def test_a_connection_that_cannot_be_checked_is_cut_and_hurts_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    plane = DataPlane()
    bad, other = plane.caller(), plane.caller()
    right = Connection.check

    def check(self: Connection, *args: float, review: bool) -> None:
        if self is bad.protocol:
            raise RuntimeError("broken")
        right(self, *args, review=review)

    monkeypatch.setattr(Connection, "check", check)
    plane.advance(301)
    assert bad.is_aborted
    assert (other.is_closed, other.is_aborted) == (True, False)
    assert "broken" in caplog.text


@in_memory
async def test_drain_closes_idle_connections_and_lets_calls_finish():
    plane = DataPlane()
    caller, service = await open_call(plane)
    idle = plane.caller()
    plane.inbound.begin_drain()
    assert plane.inbound.is_draining
    assert (idle.is_closed, idle.is_aborted) == (True, False)
    assert not caller.is_closed
    service.feed(OK)
    assert b"\r\nconnection: close\r\n" in caller.take()
    assert (caller.is_closed, caller.is_aborted) == (True, False)
    assert plane.line().outcome.upstream == "ok"


@in_memory
async def test_drain_serves_a_new_call_on_an_old_connection_and_closes_it():
    plane = DataPlane()
    caller = plane.caller()
    caller.feed(GET[:10])
    plane.inbound.begin_drain()
    assert not caller.is_closed
    caller.feed(GET[10:])
    await turn()
    plane.service.link.feed(OK)
    assert b"\r\nconnection: close\r\n" in caller.take()
    assert caller.is_closed


@in_memory
async def test_an_answer_begun_before_the_drain_ends_its_connection_too():
    plane = DataPlane()
    caller, service = await open_call(plane)
    service.feed(BEGUN)
    plane.inbound.begin_drain()
    service.feed(b"abc")
    assert caller.take().endswith(b"abc")
    assert caller.is_closed


@in_memory
async def test_a_connection_secured_during_drain_is_served_and_closed():
    plane = DataPlane()
    plane.inbound.begin_drain()
    caller, service = await open_call(plane)
    service.feed(OK)
    assert caller.is_closed


@in_memory
async def test_waiting_for_the_drain_ends_with_the_last_connection():
    plane = DataPlane()
    caller, service = await open_call(plane)
    plane.inbound.begin_drain()
    waiting = asyncio.create_task(plane.inbound.wait_drained(60))
    await turn()
    service.feed(OK)
    await turn()
    assert not waiting.done()
    caller.lose()
    assert await waiting == 0


@in_memory
async def test_without_connections_there_is_nothing_to_wait_for():
    plane = DataPlane()
    plane.inbound.begin_drain()
    assert await plane.inbound.wait_drained(60) == 0


@in_memory
async def test_rel2_what_is_open_at_the_deadline_is_cut_and_recorded_as_cut():
    plane = DataPlane()
    silent, _ = await open_call(plane)
    begun, service = await open_call(plane)
    service.feed(BEGUN)
    plane.caller().feed(GET[:5])
    plane.inbound.begin_drain()
    assert await plane.inbound.wait_drained(0) == 2
    told = silent.take()
    assert told.startswith(b"HTTP/1.1 503 ")
    assert b"sidecar-reason: draining\r\n" in told
    assert begun.take().endswith(b"\r\n\r\n")
    assert (silent.is_closed, begun.is_aborted) == (True, True)
    assert {line.outcome.cut for line in plane.audit.lines} == {"draining"}
    assert len(plane.audit.lines) == 2
    assert plane.inbound.open_calls == 0


@in_memory
async def test_cutting_all_reaches_calls_that_wait_for_the_disk():
    plane = DataPlane(GRANTED)
    caller = plane.caller()
    caller.feed(GET)
    assert plane.inbound.cut_all(Reason.SVID_EXPIRED) == 1
    assert b"sidecar-reason: svid-expired\r\n" in caller.take()
    plane.audit.settle()
    plane.grants.futures[0].set_result(None)
    await turn()
    assert plane.service.links == []
    assert [line.event for line in plane.audit.lines] == ["open", "call"]


@in_memory
async def test_d27_idle_connections_cost_the_sweep_one_comparison():
    plane = DataPlane()
    callers = [plane.caller() for _ in range(100)]
    plane.advance(0.25)
    due_s = plane.clock.monotonic_s() + 1.0
    plane.advance(0.75)
    assert {caller.protocol.next_check_s for caller in callers} == {due_s}
    plane.advance(0.25)
    assert {caller.protocol.next_check_s for caller in callers} == {due_s + 1.0}
