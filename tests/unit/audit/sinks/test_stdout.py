from __future__ import annotations

import os
import threading

import pytest

from sidecar.audit.sinks.stdout import StdoutSink
from tests.fakes.clock import FakeClock

WAIT_S = 10.0
LINES = b"one\ntwo\n"


@pytest.fixture
def pipe():
    ends = list(os.pipe())
    yield ends
    for fd in ends:
        if fd >= 0:
            os.close(fd)


def read_all(fd: int) -> bytes:
    data = b""
    while more := os.read(fd, 65536):
        data += more
    return data


def test_lines_come_out_as_they_went_in(pipe):
    sink = StdoutSink(FakeClock(), pipe[1])
    sink.start()
    for _ in range(3):
        sink.take(LINES)
    sink.close(WAIT_S)
    os.close(pipe[1])
    pipe[1] = -1
    assert read_all(pipe[0]) == LINES * 3
    assert (sink.written, sink.dropped) == (6, 0)


def test_a_reader_that_does_not_read_costs_lines_and_blocks_nobody(pipe, caplog):
    sink = StdoutSink(FakeClock(), pipe[1], max_bytes=1 << 20)
    sink.start()
    big = (b"x" * 1023 + b"\n") * 256
    for _ in range(50):
        sink.take(big)  # far more than the pipe and the bound hold; returns all the same
    assert sink.dropped > 0 and sink.dropped % 256 == 0
    assert caplog.text.count("lacks lines") == 1
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(read_all(pipe[0])))
    reader.start()
    sink.close(WAIT_S)
    os.close(pipe[1])
    pipe[1] = -1
    reader.join(WAIT_S)
    assert sink.written + sink.dropped == 50 * 256
    assert read[0] == big * (sink.written // 256), "whole batches, nothing torn"


def test_closing_does_not_wait_for_a_blocked_reader(pipe):
    sink = StdoutSink(FakeClock(), pipe[1])
    sink.start()
    sink.take(b"x" * (1 << 20) + b"\n")
    sink.close(0.01)
    assert sink.written == 0
    os.close(pipe[0])  # lets the thread go
    pipe[0] = -1
    sink.close(WAIT_S)


def test_a_reader_that_is_gone_costs_lines_only(pipe, caplog):
    os.close(pipe[0])
    pipe[0] = -1
    clock = FakeClock()
    sink = StdoutSink(clock, pipe[1])
    sink.start()
    for _ in range(5):
        sink.take(LINES)
    sink.close(WAIT_S)
    assert (sink.written, sink.dropped) == (0, 10)
    assert caplog.text.count("Broken pipe") <= 1 and "lacks lines" in caplog.text


def test_a_descriptor_that_somebody_made_non_blocking_is_waited_for(pipe):
    os.set_blocking(pipe[1], False)
    sink = StdoutSink(FakeClock(), pipe[1])
    sink.start()
    sink.take(b"y" * (1 << 19) + b"\n")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(read_all(pipe[0])))
    reader.start()
    sink.close(WAIT_S)
    os.close(pipe[1])
    pipe[1] = -1
    reader.join(WAIT_S)
    assert read[0] == b"y" * (1 << 19) + b"\n" and sink.dropped == 0


def test_after_half_a_line_a_new_one_begins(pipe, monkeypatch):
    write, calls = os.write, []

    def flaky(fd: int, data: bytes) -> int:
        calls.append(bytes(data))
        if len(calls) == 2:
            raise OSError(28, "full")
        return write(fd, data[:3] if len(calls) == 1 else data)

    monkeypatch.setattr("sidecar.audit.sinks.stdout.os.write", flaky)
    sink = StdoutSink(FakeClock(), pipe[1])
    sink.start()
    sink.take(b"first\n")
    sink.take(b"second\n")
    sink.close(WAIT_S)
    monkeypatch.undo()
    os.close(pipe[1])
    pipe[1] = -1
    assert read_all(pipe[0]) == b"fir\nsecond\n"
    assert (sink.written, sink.dropped) == (1, 1)
