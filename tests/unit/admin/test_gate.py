from __future__ import annotations

import asyncio

import pytest

from sidecar.admin.gate import Gate
from tests.fakes.loops import both_loops, run_on


class Handler(asyncio.Protocol):
    """Stands for aiohttp's handler of one connection: notes what reaches it, echoes it."""

    def __init__(self, made: list[Handler]) -> None:
        made.append(self)
        self.seen = b""
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.seen += data
        self.transport.write(data)

    def connection_lost(self, exc):
        self.ended.set_result(exc)


def with_gate(factory, story, **options):
    """Plays ``story(connect, made, gate)`` at a listening gate; ``connect()`` gives reader and writer."""

    async def play():
        made: list[Handler] = []
        gate = Gate(lambda: Handler(made), **options)
        server = await asyncio.get_running_loop().create_server(gate, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        writers = []

        async def connect():
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writers.append(writer)
            return reader, writer

        try:
            return await story(connect, made, gate)
        finally:
            for writer in writers:
                writer.close()
            server.close()
            for entrance in list(gate.entered):
                entrance.cut()
            await asyncio.sleep(0)

    return run_on(factory, play())


async def echo(reader, writer) -> bytes:
    """What comes back for ``x``: the same, or nothing where the connection is cut."""
    try:
        writer.write(b"x")
        return await reader.read(1)
    except ConnectionError:
        return b""


@both_loops
def test_who_is_not_admitted_is_cut_before_the_handler_sees_a_byte(factory):
    async def story(connect, made, gate):
        assert await echo(*await connect()) == b""
        return made, len(gate.entered)

    made, entered = with_gate(factory, story, limit=5, admit=lambda transport, handler: False)
    assert entered == 0
    assert [handler.seen for handler in made] == [b""]
    assert not hasattr(made[0], "transport")


@both_loops
def test_above_the_limit_the_oldest_connection_goes(factory):
    async def story(connect, made, gate):
        first, second = await connect(), await connect()
        assert [await echo(*first), await echo(*second)] == [b"x", b"x"]
        third = await connect()
        assert await echo(*third) == b"x"
        assert [await echo(*first), await echo(*second)] == [b"", b"x"]
        return len(gate.entered)

    assert with_gate(factory, story, limit=2) == 2


@both_loops
def test_a_connection_ends_after_its_life(factory):
    async def story(connect, made, gate):
        reader, writer = await connect()
        assert await echo(reader, writer) == b"x"
        return await reader.read(1)

    assert with_gate(factory, story, limit=2, life_s=0.05) == b""


@both_loops
def test_leaving_is_told_once_and_makes_room(factory):
    left = []

    async def story(connect, made, gate):
        reader, writer = await connect()
        assert await echo(reader, writer) == b"x"
        writer.close()
        await made[0].ended
        assert await echo(*await connect()) == b"x"
        return made[0], len(gate.entered)

    first, entered = with_gate(factory, story, limit=1, left=left.append)
    assert left[0] is first and left.count(first) == 1
    assert entered == 1


@pytest.mark.parametrize("limit", [1, 3])
def test_the_limit_holds_whatever_comes(limit):
    async def story(connect, made, gate):
        most = 0
        for _ in range(limit + 3):
            await echo(*await connect())
            most = max(most, len(gate.entered))
        return most

    assert with_gate(asyncio.new_event_loop, story, limit=limit) == limit
