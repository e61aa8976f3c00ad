from __future__ import annotations

import asyncio
import errno
import resource
import socket
import ssl
from contextlib import ExitStack, asynccontextmanager

import pytest

from sidecar.errors import UnavailableError
from sidecar.proxy import listener as module
from sidecar.proxy.listener import RESERVED_DESCRIPTORS, Listener
from sidecar.tls.acceptor import Acceptor
from tests.fakes.loops import both_loops, run_on
from tests.fakes.secure import Recorder, Served, World, caller_context, connect, echo, in_thread, read_exactly

WORLD = World()
CONTEXT = WORLD.context()
CALLER = caller_context(WORLD.web)


class Guarded(Served):
    """A listener, and what comes of its connections."""

    def __init__(self, timeout_s: float, **limits: int) -> None:
        super().__init__(CONTEXT, lambda: Recorder(echo), timeout_s)
        self.listener = Listener(
            "127.0.0.1",
            0,
            self.acceptor,
            limits.get("connections", 100),
            limits.get("handshakes", 100),
            self.metrics,
        )

    @property
    def open(self) -> float:
        return self.metrics.connections.labels("inbound").read()

    async def until(self, holds) -> None:
        while not holds():
            await asyncio.sleep(0.001)


@asynccontextmanager
async def listening(timeout_s: float = 10.0, **limits: int):
    guarded = Guarded(timeout_s, **limits)
    await guarded.listener.start()
    guarded.port = guarded.listener.port
    try:
        yield guarded
    finally:
        await guarded.listener.close()
        for protocol in guarded.protocols:
            if "lost" not in protocol.events:
                protocol.transport.abort()
        await guarded.until(lambda: guarded.listener.connections == 0)
        assert guarded.open == 0 and not guarded.listener._tasks


def ask(port: int) -> bytes:
    with connect(port, CALLER) as link:
        link.sendall(b"hello")
        return read_exactly(link, 5)


def silent(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=5)


@both_loops
def test_it_serves_and_counts(factory):
    async def story():
        async with listening() as guarded:
            link = await in_thread(connect, guarded.port, CALLER)
            with link:
                await in_thread(link.sendall, b"x")
                assert await in_thread(read_exactly, link, 1) == b"x"
                assert guarded.listener.connections == guarded.open == 1
            await guarded.until(lambda: guarded.open == 0)
            assert await in_thread(ask, guarded.port) == b"hello"
            assert guarded.handshakes("ok") == 2

    run_on(factory, story())


@both_loops
def test_many_at_once_are_all_served(factory):
    async def story():
        async with listening() as guarded:
            answers = await asyncio.gather(*(in_thread(ask, guarded.port) for _ in range(30)))
            assert answers == [b"hello"] * 30

    run_on(factory, story())


@both_loops
def test_d21_beyond_so_many_handshakes_the_others_wait_their_turn(factory):
    async def story():
        async with listening(handshakes=2) as guarded:
            with ExitStack() as stack:
                first, second = (stack.enter_context(silent(guarded.port)) for _ in range(2))
                await guarded.until(lambda: guarded.open == 2)
                waiting = asyncio.create_task(in_thread(ask, guarded.port))
                await guarded.until(lambda: guarded.limit("handshakes") > 0)
                assert not waiting.done() and guarded.open == 2, "it is in the backlog"
                first.close()
                assert await waiting == b"hello"
                assert await in_thread(ask, guarded.port) == b"hello"
                assert second.fileno() > 0 and guarded.limit("connections") == 0

    run_on(factory, story())


@both_loops
def test_a_handshake_that_times_out_makes_room(factory):
    async def story():
        async with listening(timeout_s=0.05, handshakes=1) as guarded:
            with silent(guarded.port):
                await guarded.until(lambda: guarded.open == 1)
                assert await in_thread(ask, guarded.port) == b"hello"

    run_on(factory, story())


@both_loops
def test_d21_who_stays_silent_is_given_up_for_who_waits(factory, monkeypatch):
    monkeypatch.setattr(module, "SILENT_S", 0.05)

    async def story():
        async with listening(handshakes=2) as guarded:
            with ExitStack() as stack:
                for _ in range(6):
                    stack.enter_context(silent(guarded.port))
                assert await in_thread(ask, guarded.port) == b"hello"
                assert guarded.handshakes("left", "cancelled") >= 2
                assert guarded.limit("handshakes") > 0

    run_on(factory, story())


@both_loops
def test_d21_who_has_begun_is_given_more_time_than_who_is_silent(factory, monkeypatch):
    monkeypatch.setattr(module, "SILENT_S", 0.02)
    monkeypatch.setattr(module, "SLOW_S", 0.3)

    async def story():
        async with listening(handshakes=1) as guarded:
            with silent(guarded.port) as slow:
                client = CALLER.wrap_bio(incoming := ssl.MemoryBIO(), outgoing := ssl.MemoryBIO())
                with pytest.raises(ssl.SSLWantReadError):
                    client.do_handshake()
                slow.sendall(outgoing.read())
                assert incoming.pending == 0
                began_s = asyncio.get_running_loop().time()
                assert await in_thread(ask, guarded.port) == b"hello"
                assert asyncio.get_running_loop().time() - began_s > 0.2

    run_on(factory, story())


def test_without_a_shortage_nobody_is_given_up_early(monkeypatch):
    monkeypatch.setattr(module, "SILENT_S", 0.0)

    async def story():
        async with listening(handshakes=3) as guarded:
            with silent(guarded.port):
                assert await in_thread(ask, guarded.port) == b"hello"
                assert await in_thread(ask, guarded.port) == b"hello"
                assert guarded.handshakes("left", "cancelled") == 0

    run_on(asyncio.new_event_loop, story())


def is_closed_at_once(port: int) -> bool:
    try:
        with silent(port) as link:
            return link.recv(10) == b""
    except ConnectionResetError:
        return True


@both_loops
def test_d20_beyond_so_many_connections_one_more_is_closed_at_once(factory, caplog):
    async def story():
        async with listening(connections=2) as guarded:
            with ExitStack() as stack:
                links = [
                    stack.enter_context(await in_thread(connect, guarded.port, CALLER)) for _ in range(2)
                ]
                assert await in_thread(is_closed_at_once, guarded.port)
                assert await in_thread(is_closed_at_once, guarded.port)
                assert guarded.limit("connections") == 2 and guarded.open == 2
                for link in links:
                    await in_thread(link.sendall, b"x")
                    assert await in_thread(read_exactly, link, 1) == b"x"
                links[0].close()
                await guarded.until(lambda: guarded.open == 1)
                assert await in_thread(ask, guarded.port) == b"hello"

    run_on(factory, story())
    assert caplog.text.count("a connection was closed at once") == 1, "once, not once for each"


@both_loops
def test_d20_descriptors_are_kept_back_for_the_rest(factory, monkeypatch):
    async def story():
        async with listening() as guarded:
            monkeypatch.setattr(guarded.listener, "_descriptor_limit", RESERVED_DESCRIPTORS + 3)
            assert await in_thread(is_closed_at_once, guarded.port)
            assert guarded.limit("descriptors") == 1 and guarded.open == 0
            monkeypatch.undo()
            assert await in_thread(ask, guarded.port) == b"hello"

    run_on(factory, story())


@pytest.mark.parametrize(("soft", "limit"), [(1024, 1024), (resource.RLIM_INFINITY, 1 << 30)])
def test_the_limit_of_descriptors_is_the_processs(monkeypatch, soft, limit):
    monkeypatch.setattr(module.resource, "getrlimit", lambda kind: (soft, resource.RLIM_INFINITY))
    assert module._descriptor_limit() == limit


class Starved(socket.socket):
    """A listening socket that cannot accept as long as ``number`` is set."""

    number: int | None = None
    calls = 0

    def accept(self):
        self.calls += 1
        if self.number is not None:
            raise OSError(self.number, "Too many open files")
        return super().accept()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
@both_loops
def test_d20_without_descriptors_accepting_rests_instead_of_spinning(factory, monkeypatch, number):
    monkeypatch.setattr(module, "PAUSE_S", 0.05)
    starved = Starved()
    starved.number = number
    starved.bind(("127.0.0.1", 0))
    starved.listen()
    starved.setblocking(False)

    async def give(host, port):
        return [starved]

    monkeypatch.setattr(module, "bind_listeners", give)

    async def story():
        async with listening() as guarded:
            waiting = asyncio.create_task(in_thread(ask, guarded.port))
            await guarded.until(lambda: starved.calls >= 3)
            turns = 0
            until_s = asyncio.get_running_loop().time() + 0.2
            while asyncio.get_running_loop().time() < until_s:
                turns += 1
                await asyncio.sleep(0.001)
            assert starved.calls <= 3 + 5, f"not once in each of {turns} turns"
            counted = guarded.limit("descriptors")
            assert counted == (starved.calls if number in (errno.EMFILE, errno.ENFILE) else 0)
            starved.number = None
            assert await waiting == b"hello"

    run_on(factory, story())


@both_loops
def test_when_accepting_ends_handshakes_end_and_open_connections_stay(factory):
    async def story():
        async with listening() as guarded:
            link = await in_thread(connect, guarded.port, CALLER)
            with link, silent(guarded.port) as half:
                await guarded.until(lambda: guarded.open == 2 and guarded.protocols)
                guarded.listener.stop_accepting()
                guarded.listener.stop_accepting()
                assert await in_thread(half.recv, 10) == b""
                with pytest.raises(ConnectionRefusedError):
                    await in_thread(silent, guarded.port)
                await in_thread(link.sendall, b"x")
                assert await in_thread(read_exactly, link, 1) == b"x"
                assert guarded.handshakes("left", "cancelled") == 1
                assert guarded.refusals == []

    run_on(factory, story())


@both_loops
def test_a_connection_in_the_backlog_at_the_end_is_not_served(factory):
    async def story():
        async with listening(handshakes=1) as guarded:
            with silent(guarded.port):
                await guarded.until(lambda: guarded.open == 1)
                waiting = asyncio.create_task(in_thread(ask, guarded.port))
                await guarded.until(lambda: guarded.limit("handshakes") > 0)
                guarded.listener.stop_accepting()
                with pytest.raises((OSError, ssl.SSLError)):
                    await waiting

    run_on(factory, story())


def test_stopping_while_accepting_rests(monkeypatch):
    async def story():
        async with listening() as guarded:
            guarded.listener._rest(OSError(errno.EMFILE, "Too many open files"))
            await guarded.listener.close()
            await guarded.listener.close()
            assert guarded.listener._pause is None

    run_on(asyncio.new_event_loop, story())


@both_loops
def test_a_handshake_cancelled_before_its_transport_is_there(factory):
    async def story():
        async with listening() as guarded:
            with silent(guarded.port) as link:
                await guarded.until(lambda: guarded.listener._tasks or guarded.open)
                guarded.listener.stop_accepting()
                assert await in_thread(link.recv, 10) == b""
            await guarded.until(lambda: guarded.open == 0)

    run_on(factory, story())


class LosingLoop:
    """A loop for which every accepted socket is dead already."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __getattr__(self, name: str) -> object:
        return getattr(self._loop, name)

    async def connect_accepted_socket(self, factory, link):
        raise OSError(errno.EBADF, "bad file descriptor")


@both_loops
def test_a_socket_that_is_lost_before_its_transport_is_there_counts_no_longer(factory):
    async def story():
        async with listening(handshakes=1) as guarded:
            loop = guarded.listener._loop
            guarded.listener._loop = LosingLoop(loop)
            assert await in_thread(is_closed_at_once, guarded.port)
            await guarded.until(lambda: guarded.handshakes("left", "closed") == 1 and guarded.open == 0)
            guarded.listener._loop = loop
            assert await in_thread(ask, guarded.port) == b"hello"

    run_on(factory, story())


def test_a_port_that_is_taken_is_told():
    async def story():
        async with listening() as guarded:
            acceptor: Acceptor = guarded.acceptor
            other = Listener("127.0.0.1", guarded.port, acceptor, 1, 1, guarded.metrics)
            with pytest.raises(UnavailableError, match="something else does"):
                await other.start()
            await other.close()

    run_on(asyncio.new_event_loop, story())
