"""The pool: who gets a connection, when, and what becomes of those that are not used."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path

import pytest

from sidecar.authz.reasons import Reason
from sidecar.proxy.errors import UpstreamError
from sidecar.proxy.limits import ProxyLimits
from sidecar.proxy.upstream import RETRY_BURST, UpstreamPool, build_connect
from sidecar.proxy.upstream_connection import UpstreamConnection
from sidecar.settings.values import Upstream
from tests.fakes.clock import FakeClock
from tests.fakes.data_plane import Service, in_memory, turn
from tests.fakes.loops import both_loops, run_on

LIMITS = ProxyLimits(max_upstream_connections=2)


class User:
    """A call that only takes note."""

    def __init__(self) -> None:
        self.connection: UpstreamConnection | None = None
        self.error: UpstreamError | None = None
        self.data = b""
        self.lost = 0
        self.told = asyncio.Event()

    def take(self, pool: UpstreamPool, *, fresh: bool = False) -> UpstreamConnection | None:
        self.connection = pool.acquire(self, fresh=fresh)
        return self.connection

    def upstream_ready(self, connection: UpstreamConnection) -> None:
        self.connection = connection
        self.told.set()

    def upstream_refused(self, error: UpstreamError) -> None:
        self.error = error
        self.told.set()

    def upstream_data(self, data: bytes) -> None:
        self.data += data
        self.told.set()

    def upstream_lost(self, exc: Exception | None) -> None:
        self.lost += 1
        self.told.set()

    def upstream_writable(self, writable: bool) -> None: ...


def make_pool(limits: ProxyLimits = LIMITS) -> tuple[UpstreamPool, Service, FakeClock]:
    service, clock = Service(), FakeClock()
    return UpstreamPool(service.connect, limits, clock), service, clock


async def connected(pool: UpstreamPool) -> User:
    user = User()
    if user.take(pool) is None:
        await turn()
    assert user.connection is not None
    return user


@in_memory
async def test_the_connection_used_last_is_used_next():
    pool, service, _ = make_pool()
    first, second = await connected(pool), await connected(pool)
    assert len(service.links) == 2
    first.connection.release(1000.0)
    second.connection.release(1000.0)
    assert User().take(pool) is second.connection
    assert User().take(pool) is first.connection
    assert first.connection.uses == 2


@in_memory
async def test_calls_beyond_the_limit_wait_in_order_for_one_that_is_given_back():
    pool, service, _ = make_pool()
    holders = [await connected(pool), await connected(pool)]
    waiting = [User(), User()]
    for user in waiting:
        assert user.take(pool) is None
    await turn()
    assert len(service.links) == 2
    holders[1].connection.release(1000.0)
    assert waiting[0].connection is holders[1].connection
    assert waiting[1].connection is None
    holders[0].connection.discard()
    await turn()
    assert waiting[1].connection is not None
    assert len(service.links) == 3


@in_memory
async def test_as_many_may_wait_as_there_may_be_connections():
    pool, _, _ = make_pool()
    await connected(pool), await connected(pool)
    for _ in range(2):
        assert not pool.is_exhausted
        User().take(pool)
    assert pool.is_exhausted
    with pytest.raises(UpstreamError) as refused:
        User().take(pool)
    assert (refused.value.status, refused.value.reason) == (503, Reason.OVERLOADED)
    assert refused.value.limit == "upstream_connections"


@in_memory
async def test_those_for_whom_a_connection_is_being_made_do_not_count_as_waiting():
    pool, service, _ = make_pool()
    users = [User() for _ in range(5)]
    for user in users[:4]:
        assert user.take(pool) is None
    assert pool.is_exhausted
    with pytest.raises(UpstreamError):
        users[4].take(pool)
    await turn()
    assert [user.connection is not None for user in users[:4]] == [True, True, False, False]
    assert len(service.links) == 2


@in_memory
async def test_who_waits_too_long_is_refused():
    pool, _, clock = make_pool()
    await connected(pool), await connected(pool)
    user = User()
    user.take(pool)
    clock.advance(14.9)
    pool.sweep(clock.monotonic_s())
    assert user.error is None
    clock.advance(0.1)
    pool.sweep(clock.monotonic_s())
    assert user.error is not None
    assert user.error.reason is Reason.OVERLOADED


@in_memory
async def test_who_left_is_handed_nothing():
    pool, _, _ = make_pool()
    holder, _ = await connected(pool), await connected(pool)
    user = User()
    user.take(pool)
    pool.cancel(user)
    holder.connection.release(1000.0)
    assert user.connection is None
    assert pool.idle_count == 1


@in_memory
async def test_a_connection_that_nobody_waits_for_any_more_is_kept():
    pool, service, _ = make_pool()
    service.gate = asyncio.Event()
    user = User()
    user.take(pool)
    await turn()
    pool.cancel(user)
    service.gate.set()
    await turn()
    assert (pool.idle_count, pool.size) == (1, 1)


@in_memory
async def test_idle_connections_are_closed_after_their_time():
    pool, service, clock = make_pool()
    first, second = await connected(pool), await connected(pool)
    first.connection.release(1000.0)
    clock.advance(30)
    second.connection.release(1030.0)
    clock.advance(30)
    pool.sweep(clock.monotonic_s())
    assert [link.is_closed for link in service.links] == [True, False]
    assert (pool.idle_count, pool.size) == (1, 1)


@pytest.mark.parametrize("event", ["bytes", "end", "lost"])
@in_memory
async def test_an_idle_connection_on_which_something_comes_is_thrown_away(event: str):
    pool, service, _ = make_pool()
    user = await connected(pool)
    user.connection.release(1000.0)
    link = service.link
    {"bytes": lambda: link.feed(b"HTTP/1.1 200 OK\r\n"), "end": link.feed_end, "lost": link.lose}[event]()
    assert (pool.idle_count, pool.size, link.is_closed) == (0, 0, True)
    assert (user.data, user.lost) == (b"", 0)


@in_memory
async def test_a_failure_to_connect_is_told_to_the_one_who_waits_longest_and_logged_once(
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level(logging.INFO)
    pool, service, _ = make_pool()
    service.error = ConnectionRefusedError(111, "Connection refused")
    users = [User(), User(), User()]
    for user in users[:2]:
        user.take(pool)
    await turn()
    for user in users[:2]:
        assert user.error is not None
        assert (user.error.status, user.error.reason) == (503, Reason.UPSTREAM_UNREACHABLE)
    service.error = None
    users[2].take(pool)
    await turn()
    assert users[2].connection is not None
    assert [record.message for record in caplog.records] == [
        "the upstream cannot be reached: Connection refused",
        "the upstream can be reached again",
    ]


@pytest.mark.parametrize("error", [ValueError("odd"), UnicodeError("odd"), OSError()])
@in_memory
async def test_whatever_connecting_raises_is_unreachable(error: Exception):
    pool, service, _ = make_pool()
    service.error = error
    user = User()
    user.take(pool)
    await turn()
    assert user.error is not None


@in_memory
async def test_connecting_has_a_deadline():
    limits = ProxyLimits(upstream_connect_timeout_s=0.01)
    pool, service, _ = make_pool(limits)
    service.gate = asyncio.Event()
    user = User()
    user.take(pool)
    await user.told.wait()
    assert user.error is not None
    assert user.error.reason is Reason.UPSTREAM_UNREACHABLE
    assert pool.size == 0


@in_memory
async def test_a_retry_gets_a_new_connection_even_if_the_pool_is_full():
    pool, service, _ = make_pool()
    first, second = await connected(pool), await connected(pool)
    second.connection.release(1000.0)
    retry = User()
    assert retry.take(pool, fresh=True) is None
    assert service.links[1].is_closed
    first.connection.release(1000.0)
    assert retry.connection is None
    await turn()
    assert retry.connection is not None
    assert retry.connection.uses == 1
    assert len(service.links) == 3


@in_memory
async def test_rel32_retries_are_a_fifth_of_the_calls_at_most():
    pool, _, _ = make_pool(ProxyLimits(max_upstream_connections=10_000))
    for _ in range(RETRY_BURST):
        assert pool.may_retry()
        pool.acquire(User(), fresh=True)
    count = 0
    for _ in range(1000):
        pool.acquire(User())
        if pool.may_retry():
            pool.acquire(User(), fresh=True)
            count += 1
    assert 200 <= count <= 1010 // 4
    await pool.close()


@in_memory
async def test_closing_ends_every_connection_and_every_attempt():
    pool, service, _ = make_pool()
    held = await connected(pool)
    service.gate = asyncio.Event()
    waiting = User()
    waiting.take(pool)
    await turn()
    await pool.close()
    assert service.links[0].is_aborted
    assert pool.size == 0
    held.connection.write(b"dropped")
    assert service.links[0].take() == b""


# Over real sockets


def build(url: str, clock: FakeClock) -> UpstreamPool:
    if url.startswith("unix:"):
        upstream = Upstream("unix", path=url.removeprefix("unix:"))
    else:
        upstream = Upstream("http", "127.0.0.1", int(url))
    return UpstreamPool(build_connect(upstream), LIMITS, clock)


class Listener:
    """A service of the test's own, on a port or a path."""

    def __init__(self, path: str | None) -> None:
        if path is None:
            self.socket = socket.create_server(("127.0.0.1", 0))
            self.url = str(self.socket.getsockname()[1])
        else:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.bind(path)
            self.socket.listen()
            self.url = f"unix:{path}"
        self.socket.setblocking(False)

    async def accept(self) -> socket.socket:
        link, _ = await asyncio.get_running_loop().sock_accept(self.socket)
        link.setblocking(False)
        return link


@both_loops
@pytest.mark.parametrize("kind", ["port", "path"])
def test_a_connection_carries_bytes_both_ways(factory, kind: str, tmp_path: Path):
    async def story() -> None:
        listener = Listener(str(tmp_path / "s") if kind == "path" else None)
        pool = build(listener.url, FakeClock())
        user = User()
        user.take(pool)
        link = await listener.accept()
        await user.told.wait()
        loop = asyncio.get_running_loop()
        user.connection.write(b"ping")
        assert await loop.sock_recv(link, 100) == b"ping"
        user.told.clear()
        await loop.sock_sendall(link, b"pong")
        await user.told.wait()
        assert user.data == b"pong"
        if kind == "port":
            raw = user.connection._transport.get_extra_info("socket")
            assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await pool.close()
        link.close()
        listener.socket.close()

    run_on(factory, story())


@both_loops
def test_nobody_listening_is_unreachable(factory, tmp_path: Path):
    async def story() -> None:
        pool = build(f"unix:{tmp_path / 'nobody'}", FakeClock())
        user = User()
        user.take(pool)
        await user.told.wait()
        assert user.error is not None
        assert user.error.reason is Reason.UPSTREAM_UNREACHABLE
        await pool.close()

    run_on(factory, story())


@both_loops
@pytest.mark.parametrize("event", ["bytes", "end", "reset"])
def test_rel31_what_has_come_unread_is_seen_before_the_loop_tells(factory, event: str):
    async def story() -> None:
        listener = Listener(None)
        pool = build(listener.url, FakeClock())
        user = User()
        user.take(pool)
        link = await listener.accept()
        await user.told.wait()
        user.connection.release(1000.0)
        assert User().take(pool) is user.connection
        user.connection.release(1000.0)
        if event == "bytes":
            link.send(b"HTTP/1.1 200 OK\r\n")
        elif event == "end":
            link.close()
        else:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            link.close()
        # No turn of the loop in between: loopback delivers at once.
        again = User()
        assert again.take(pool) is None
        other = await listener.accept()
        await again.told.wait()
        assert again.connection is not user.connection
        await pool.close()
        link.close()
        other.close()
        listener.socket.close()

    run_on(factory, story())


@both_loops
def test_the_end_of_a_held_connection_is_told_once(factory):
    async def story() -> None:
        listener = Listener(None)
        pool = build(listener.url, FakeClock())
        user = User()
        user.take(pool)
        link = await listener.accept()
        await user.told.wait()
        user.told.clear()
        link.close()
        await user.told.wait()
        await turn(20)
        assert user.lost == 1
        assert pool.size == 0
        await pool.close()
        listener.socket.close()

    run_on(factory, story())
