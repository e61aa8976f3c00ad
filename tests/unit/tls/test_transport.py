"""The secured connection: first over a real socket, then piece by piece over a fake one."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import ssl
import struct
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import UnavailableError
from sidecar.tls import linger as linger_module
from sidecar.tls import records as records_module
from sidecar.tls.transport import (
    BUFFER_HIGH_BYTES,
    REPLY_BYTES,
    SILENT_BYTES,
    WRITE_PIECE_BYTES,
    TlsTransport,
)
from tests.fakes.loops import both_loops, run_on
from tests.fakes.secure import (
    BioCaller,
    Counts,
    RawTransport,
    Recorder,
    World,
    caller_context,
    connect,
    echo,
    in_thread,
    pem_file,
    read_exactly,
    serve,
)

WORLD = World()
CONTEXT = WORLD.context()
CALLER = caller_context(WORLD.web)

both_kinds = pytest.mark.parametrize("kind", ["direct", "public"])


def choose(monkeypatch, kind):
    monkeypatch.setattr(records_module, "IS_DIRECT", kind == "direct")


def pattern(size: int) -> bytes:
    return b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(size // 32 + 1))[:size]


def flow(recorder: Recorder, data: bytes) -> None:
    """An echo that stops reading while its own bytes pile up."""
    recorder.transport.write(data)
    recorder.most = max(getattr(recorder, "most", 0), recorder.transport.get_write_buffer_size())


class FlowingRecorder(Recorder):
    def __init__(self) -> None:
        super().__init__(flow)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.transport.resume_reading()


@both_kinds
@both_loops
def test_ten_mebibytes_go_both_ways_at_once_and_never_pile_up(factory, kind, monkeypatch):
    choose(monkeypatch, kind)
    size = 10 << 20
    data = pattern(size)

    async def story():
        async with serve(CONTEXT, FlowingRecorder) as served:
            link = socket.socket()
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # the kernel could hold most of it
            link.connect(("127.0.0.1", served.port))
            link.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=link, ssl=CALLER, server_hostname="")

            async def send():
                for place in range(0, size, 100_000):
                    writer.write(data[place : place + 100_000])
                    await writer.drain()

            sending = asyncio.create_task(send())
            recorder = await served.secured()
            await recorder.until_event("pause")
            got = await reader.readexactly(size)
            await sending
            assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
            assert recorder.events.count("pause") == recorder.events.count("resume") > 0
            assert recorder.most < BUFFER_HIGH_BYTES + 300_000  # one read of the loop's
            writer.close()
            await recorder.until_event("lost")

    run_on(factory, story())


@both_kinds
@both_loops
def test_a_large_write_arrives_whole_and_in_order(factory, kind, monkeypatch):
    choose(monkeypatch, kind)
    data = pattern(3 * WRITE_PIECE_BYTES + 17)

    def pour(recorder: Recorder) -> None:
        recorder.transport.write(b"first")
        recorder.transport.write(data)
        recorder.transport.write(b"last")
        recorder.transport.close()

    async def story():
        async with serve(CONTEXT, lambda: Recorder(on_secured=pour)) as served:

            def call():
                with connect(served.port, CALLER) as link:
                    got = read_exactly(link, len(data) + 9)
                    return got, link.recv(1)

            got, end = await in_thread(call)
            assert got == b"first" + data + b"last"
            assert end == b"", "close_notify comes behind everything"
            await served.protocol.until_event("lost")
            assert served.protocol.lost_by is None

    run_on(factory, story())


@both_loops
def test_many_tiny_writes_arrive_in_order(factory):
    def trickle(recorder: Recorder) -> None:
        for number in range(2000):
            recorder.transport.write(b"%d," % (number % 10))
            recorder.transport.write(b"")

    async def story():
        async with serve(CONTEXT, lambda: Recorder(on_secured=trickle)) as served:

            def call():
                with connect(served.port, CALLER) as link:
                    return read_exactly(link, 4000)

            assert await in_thread(call) == b"0,1,2,3,4,5,6,7,8,9," * 200

    run_on(factory, story())


@both_kinds
@both_loops
def test_rel_33_after_the_peers_close_notify_we_can_still_answer(factory, kind, monkeypatch):
    choose(monkeypatch, kind)

    def answer(recorder: Recorder) -> None:
        recorder.transport.write(b"the answer")
        recorder.transport.close()

    async def story():
        async with serve(CONTEXT, lambda: Recorder(on_eof=answer)) as served:

            def call():
                with BioCaller(served.port, CALLER) as caller:
                    caller.shake_hands()
                    caller.send(b"question")
                    caller.end()
                    got = caller.read()
                    with pytest.raises(ssl.SSLZeroReturnError):
                        caller.read()
                    return got

            assert await in_thread(call) == b"the answer"
            await served.protocol.until_event("lost")
            assert served.protocol.events == ["secured", "data", "eof", "lost"]
            assert served.protocol.transport.eof_is_clean is True

    run_on(factory, story())


@both_loops
def test_a_bare_fin_ends_the_peers_side_too_but_not_cleanly(factory):
    def answer(recorder: Recorder) -> None:
        recorder.transport.write(b"the answer")
        recorder.transport.close()

    async def story():
        async with serve(CONTEXT, lambda: Recorder(on_eof=answer)) as served:

            def call():
                with BioCaller(served.port, CALLER) as caller:
                    caller.shake_hands()
                    caller.send(b"question")
                    caller.raw.shutdown(socket.SHUT_WR)
                    return caller.read()

            assert await in_thread(call) == b"the answer"
            await served.protocol.until_event("lost")
            assert served.protocol.events == ["secured", "data", "eof", "lost"]
            assert served.protocol.transport.eof_is_clean is False

    run_on(factory, story())


@both_kinds
@both_loops
def test_what_comes_after_close_notify_does_not_count(factory, kind, monkeypatch):
    choose(monkeypatch, kind)

    async def story():
        done = asyncio.get_running_loop().create_future()
        async with serve(CONTEXT, lambda: Recorder(on_eof=lambda recorder: done.set_result(None))) as served:

            def call():
                with BioCaller(served.port, CALLER) as caller:
                    caller.shake_hands()
                    caller.send(b"counts")
                    caller.end()
                    caller.raw.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)
                    caller.raw.shutdown(socket.SHUT_WR)
                    caller.raw.recv(1000)

            calling = asyncio.create_task(in_thread(call))
            await done
            recorder = served.protocol
            assert bytes(recorder.data) == b"counts" and recorder.events == ["secured", "data", "eof"]
            recorder.transport.close()
            await calling
            await recorder.until_event("lost")
            assert recorder.events == ["secured", "data", "eof", "lost"] and recorder.lost_by is None

    run_on(factory, story())


@both_loops
def test_a_reset_is_told(factory):
    async def story():
        async with serve(CONTEXT, Recorder) as served:

            def call():
                link = connect(served.port, CALLER)
                link.sendall(b"x")
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return link

            link = await in_thread(call)
            await (await served.secured()).until_event("data")
            link.close()
            await served.protocol.until_event("lost")
            assert served.protocol.events == ["secured", "data", "lost"]
            assert isinstance(served.protocol.lost_by, ConnectionResetError)
            served.protocol.transport.write(b"too late")
            served.protocol.transport.close()
            served.protocol.transport.abort()
            assert served.counts.closed == 1

    run_on(factory, story())


@both_kinds
@both_loops
def test_a_broken_record_ends_the_connection_with_an_alert(factory, kind, monkeypatch):
    choose(monkeypatch, kind)

    async def story():
        async with serve(CONTEXT, Recorder) as served:

            def call():
                with BioCaller(served.port, CALLER) as caller:
                    caller.shake_hands()
                    caller.send(b"good")
                    caller.raw.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)
                    with pytest.raises((ssl.SSLError, ConnectionResetError)):
                        caller.read()

            await in_thread(call)
            await served.protocol.until_event("lost")
            assert bytes(served.protocol.data) == b"good"
            assert isinstance(served.protocol.lost_by, UnavailableError)
            assert "bad record mac" in str(served.protocol.lost_by)

    run_on(factory, story())


def fail(*arguments: object) -> None:
    raise ZeroDivisionError("a fault of ours")


@pytest.mark.parametrize("where", ["on_secured", "on_data", "on_eof"])
@both_loops
def test_a_protocol_that_raises_loses_its_connection_and_nothing_else(factory, where, caplog):
    faulty = [lambda: Recorder(**{where: fail}), lambda: Recorder(echo)]

    async def story():
        async with serve(CONTEXT, lambda: faulty.pop(0)()) as served:

            def call():
                with connect(served.port, CALLER) as link:
                    link.sendall(b"x")
                    link.shutdown(socket.SHUT_WR)

            def call_well():
                with connect(served.port, CALLER) as link:
                    link.sendall(b"x")
                    return read_exactly(link, 1)

            with contextlib.suppress(OSError):
                await in_thread(call)
            await (await served.secured()).until_event("lost")
            assert isinstance(served.protocols[0].lost_by, ZeroDivisionError)
            assert await in_thread(call_well) == b"x"

    run_on(factory, story())
    assert "a fault of ours" in caplog.text


@both_loops
def test_after_abort_nothing_more_happens(factory):
    def give_up(recorder: Recorder, data: bytes) -> None:
        recorder.transport.abort()
        assert recorder.transport.is_closing()
        recorder.transport.write(b"not sent")
        recorder.transport.close()

    async def story():
        async with serve(CONTEXT, lambda: Recorder(give_up)) as served:

            def call():
                with connect(served.port, CALLER) as link:
                    link.sendall(b"x")
                    with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
                        link.recv(10)

            await in_thread(call)
            await served.protocol.until_event("lost")
            assert served.protocol.events == ["secured", "data", "lost"]

    run_on(factory, story())


@both_loops
def test_last_words_reach_a_peer_that_is_still_sending(factory):
    """Without a lingering close the unread bytes would be answered by a reset, which discards the answer."""

    def refuse(recorder: Recorder, data: bytes) -> None:
        recorder.transport.write(b"413" + b"." * 200_000)
        recorder.transport.close()

    async def story():
        async with serve(CONTEXT, lambda: Recorder(refuse)) as served:

            def call():
                with connect(served.port, CALLER) as link:
                    for _ in range(8):
                        link.sendall(b"x" * 4096)
                    return read_exactly(link, 200_003), link.recv(1)

            got, end = await in_thread(call)
            assert got[:3] == b"413" and end == b""
            assert served.protocol.events[:2] == ["secured", "data"]
            assert "eof" not in served.protocol.events

    run_on(factory, story())


@both_loops
def test_a_peer_that_never_closes_is_not_waited_for_long(factory, monkeypatch):
    monkeypatch.setattr(linger_module, "LINGER_S", 0.02)

    async def story():
        async with serve(CONTEXT, lambda: Recorder(on_secured=lambda r: r.transport.close())) as served:
            link = await in_thread(connect, served.port, CALLER)
            with link:
                await (await served.secured()).until_event("lost")
                assert served.protocol.events == ["secured", "lost"]

    run_on(factory, story())


@pytest.mark.peer("openssl")
@both_loops
def test_key_updates_are_answered(factory):
    async def story():
        async with serve(CONTEXT, lambda: Recorder(echo)) as served:

            def call():
                argv = ["openssl", "s_client", "-connect", f"127.0.0.1:{served.port}", "-tls1_3"]
                with (
                    pem_file(WORLD.web) as name,
                    subprocess.Popen(
                        [*argv, "-cert", name, "-key", name],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT,
                    ) as process,
                ):
                    assert process.stdin is not None and process.stdout is not None
                    for line in (
                        b"one 1\n",
                        b"K\n",
                        b"two 2\n",
                        b"k\n",
                        b"three 3\n",
                        b"K\n",
                        b"four 4\n",
                    ):
                        process.stdin.write(line)
                        process.stdin.flush()
                        wanted = b"KEYUPDATE" if len(line) == 2 else line
                        while wanted not in (got := process.stdout.readline()):
                            assert got, "the connection ended"
                    process.terminate()
                    process.communicate()

            await in_thread(call)
            await served.protocol.until_event("lost")
            assert bytes(served.protocol.data) == b"one 1\ntwo 2\nthree 3\nfour 4\n"

    run_on(factory, story())


class Records:
    """No encryption: what is fed comes out; ``!`` is broken, ``.`` the end, ``?`` asks for a reply, ``-`` nothing."""

    def __init__(self) -> None:
        self.has_news = self.is_ended = False
        self._reply = b""

    def decrypt(self, data: bytes) -> bytes:
        if b"!" in data:
            raise UnavailableError("broken")
        self.is_ended = b"." in data
        self._reply += b"r" * data.count(b"?")
        self.has_news = self.is_ended or bool(self._reply)
        return data.partition(b".")[0].translate(None, b"?-")

    def encrypt(self, data: bytes) -> bytes:
        if b"!" in data:
            raise UnavailableError("cannot be encrypted")
        return b"<" + data + b">"

    def take_reply(self) -> bytes:
        reply, self._reply = self._reply, b""
        self.has_news = self.is_ended
        return reply

    def close(self) -> bytes:
        return b"<end>"


class Bench:
    """A transport on a raw one in memory; the test plays the loop."""

    def __init__(self, recorder: Recorder | None = None) -> None:
        self.raw, self.watch = RawTransport(), Counts()
        self.recorder = recorder or Recorder(on_eof=lambda recorder: None)
        self.tls = TlsTransport(self.raw, Records(), self.recorder, self.watch)
        self.tls.start(None, b"")

    def feed(self, data: bytes) -> None:
        """Unlike a loop this does not care whether reading is paused."""
        if not self.raw.is_closed:
            self.tls.data_received(data)

    async def turn(self) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def on_bench(story):
    async def play():
        bench = Bench()
        try:
            await story(bench)
        finally:
            bench.tls.connection_lost(None)

    asyncio.run(play())


def test_while_paused_nothing_is_delivered_and_nothing_is_lost():
    async def story(bench):
        bench.feed(b"a")
        bench.tls.pause_reading()
        bench.feed(b"b")
        bench.feed(b"c.")
        await bench.turn()
        assert bytes(bench.recorder.data) == b"a" and not bench.raw.is_reading
        bench.tls.resume_reading()
        assert bytes(bench.recorder.data) == b"a", "not within the call"
        bench.feed(b"d")
        await bench.turn()
        assert bench.recorder.events == ["secured", "data", "eof"]
        assert bytes(bench.recorder.data) == b"abc"

    on_bench(story)


def test_a_pause_inside_data_received_holds_back_the_end():
    async def story(bench):
        bench.recorder._on_data = lambda recorder, data: recorder.transport.pause_reading()
        bench.feed(b"a.")
        assert bench.recorder.events == ["secured", "data"]
        bench.tls.resume_reading()
        await bench.turn()
        assert bench.recorder.events == ["secured", "data", "eof"]

    on_bench(story)


def test_a_pause_from_the_start_holds_back_what_came_with_the_handshake():
    async def play():
        bench = Bench.__new__(Bench)
        bench.raw, bench.watch = RawTransport(), Counts()
        bench.recorder = Recorder(on_secured=lambda recorder: recorder.transport.pause_reading())
        bench.tls = TlsTransport(bench.raw, Records(), bench.recorder, bench.watch)
        bench.tls.start(None, b"rest")
        await bench.turn()
        assert bench.recorder.events == ["secured"]
        bench.tls.resume_reading()
        await bench.turn()
        assert bytes(bench.recorder.data) == b"rest" and bench.raw.is_reading
        bench.tls.connection_lost(None)

    asyncio.run(play())


def test_a_second_pause_before_the_first_is_over_holds_on():
    async def story(bench):
        bench.tls.pause_reading()
        bench.tls.pause_reading()
        bench.feed(b"a")
        bench.tls.resume_reading()
        bench.tls.resume_reading()
        bench.tls.pause_reading()
        await bench.turn()
        assert bytes(bench.recorder.data) == b"" and not bench.raw.is_reading
        bench.tls.resume_reading()
        await bench.turn()
        assert bytes(bench.recorder.data) == b"a" and bench.raw.is_reading

    on_bench(story)


STEPS = st.lists(st.sampled_from(["data", "data", "pause", "resume", "turn", "end"]), max_size=30)


@given(steps=STEPS, pauses_inside=st.booleans())
@settings(max_examples=300, deadline=None)
def test_however_reading_is_paused_everything_arrives_once_and_in_order(steps, pauses_inside):
    async def play():
        bench = Bench()
        paused = False
        sent = b""

        def check(recorder, data):
            assert not paused, "delivered while paused"
            if pauses_inside and data[-1] % 2:
                recorder.transport.pause_reading()
                recorder.transport.resume_reading()

        bench.recorder._on_data = check
        bench.recorder._on_eof = lambda recorder: check(recorder, b"\x00")
        has_ended = False
        for number, step in enumerate([*steps, "resume", "turn"]):
            if step == "data" and not has_ended:
                sent += bytes([65 + number])
                bench.feed(bytes([65 + number]))
            elif step == "end" and not has_ended:
                has_ended = True
                bench.feed(b".")
            elif step == "pause":
                paused = True
                bench.tls.pause_reading()
            elif step == "resume":
                paused = False
                bench.tls.resume_reading()
            elif step == "turn":
                await bench.turn()
        assert bytes(bench.recorder.data) == sent
        assert bench.recorder.events.count("eof") == has_ended
        assert bench.raw.is_reading and bench.recorder.lost_by is None and not bench.tls.is_closing()
        bench.tls.connection_lost(None)

    asyncio.run(play())


def test_close_sends_the_end_once_and_drops_what_comes():
    async def story(bench):
        bench.tls.write(b"a")
        bench.tls.close()
        bench.tls.close()
        bench.tls.write(b"late")
        bench.feed(b"ignored")
        bench.feed(b"!")
        assert bench.raw.written == [b"<a>", b"<end>"] and bench.raw.has_ended
        assert bench.recorder.events == ["secured"]
        assert bench.tls.eof_received() is False, "the loop may close now"

    on_bench(story)


def test_close_while_paused_reads_on_to_see_the_peer_end():
    async def story(bench):
        bench.tls.pause_reading()
        bench.feed(b"held")
        bench.tls.close()
        assert bench.raw.is_reading
        bench.tls.resume_reading()
        bench.tls.pause_reading()
        await bench.turn()
        assert bench.recorder.events == ["secured"]

    on_bench(story)


def test_close_after_the_peers_fin_waits_for_nobody():
    async def story(bench):
        assert bench.tls.eof_received() is True
        assert bench.recorder.events == ["secured", "eof"]
        bench.tls.close()
        assert bench.raw.is_closed and not bench.raw.is_aborted and not bench.raw.has_ended

    on_bench(story)


def test_the_end_is_told_once_however_it_comes():
    async def story(bench):
        bench.feed(b"a.")
        bench.feed(b"b")
        bench.tls.eof_received()
        assert bench.recorder.events == ["secured", "data", "eof"]
        assert bench.tls.eof_is_clean is True and bytes(bench.recorder.data) == b"a"

    on_bench(story)


def test_bytes_after_the_end_are_not_kept():
    async def story(bench):
        bench.feed(b"a.")
        bench.feed(b"b" * 100_000)
        assert not bench.tls._held

    on_bench(story)


def test_an_empty_write_sends_nothing():
    async def story(bench):
        bench.tls.write(b"")
        assert bench.raw.written == []

    on_bench(story)


@pytest.mark.parametrize("how", ["received", "written"])
def test_a_failure_is_what_connection_lost_tells(how):
    async def story(bench):
        bench.feed(b"!") if how == "received" else bench.tls.write(b"!")
        assert bench.raw.is_aborted and bench.tls.is_closing()
        assert bench.raw.written == [b"<end>"], "the alert"
        assert bench.recorder.events == ["secured"], "not told from within a call"
        bench.tls.connection_lost(None)
        assert isinstance(bench.recorder.lost_by, UnavailableError)
        assert bench.watch.closed == 1
        bench.recorder.lost_by = None

    on_bench(story)


def test_replies_of_openssls_own_are_sent():
    async def story(bench):
        bench.feed(b"?")
        bench.feed(b"a?")
        assert bench.raw.written == [b"r", b"r"] and bytes(bench.recorder.data) == b"a"

    on_bench(story)


@pytest.mark.parametrize(("unsent", "is_cut"), [(REPLY_BYTES, False), (REPLY_BYTES + 1, True)])
def test_a_peer_that_asks_for_replies_and_reads_none_is_cut(unsent, is_cut):
    async def story(bench):
        bench.raw.unsent = unsent
        bench.feed(b"a?")
        assert bench.raw.is_aborted is is_cut

    on_bench(story)


@pytest.mark.parametrize(("size", "is_cut"), [(SILENT_BYTES, False), (SILENT_BYTES + 1, True)])
def test_records_without_data_end_the_connection_at_last(size, is_cut):
    async def story(bench):
        bench.feed(b"-" * 1000)
        bench.feed(b"data")
        bench.feed(b"-" * size)
        assert bench.raw.is_aborted is is_cut

    on_bench(story)


def test_a_protocol_that_fails_at_its_end_is_counted_all_the_same(caplog):
    async def play():
        bench = Bench()
        bench.recorder.connection_lost = fail
        bench.tls.connection_lost(None)
        assert bench.watch.closed == 1 and "not taken well" in caplog.text

    asyncio.run(play())


def test_flow_control_is_passed_on():
    async def story(bench):
        bench.raw.unsent = 5
        bench.tls.pause_writing()
        bench.tls.resume_writing()
        assert bench.recorder.events == ["secured", "pause", "resume"]
        assert bench.tls.get_write_buffer_size() == 5

    on_bench(story)
