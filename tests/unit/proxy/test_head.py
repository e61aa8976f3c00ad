"""Gathering a head: any slicing gives the same, every limit strikes while the head is still coming."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.authz.reasons import Reason
from sidecar.proxy.errors import MessageError
from sidecar.proxy.head import (
    METHODS,
    HeadBuffer,
    HeadLimits,
    ReceivedFields,
    parse_request_line,
    read_fields,
)

LIMITS = HeadLimits(line_bytes=100, header_bytes=400, fields=5)
HEAD = b"GET /orders HTTP/1.1\r\nHost: shop.test\r\nX: y\r\n\r\n"


def refuse(*pieces: bytes, limits: HeadLimits = LIMITS) -> MessageError:
    buffer = HeadBuffer(limits)
    for piece in pieces[:-1]:
        assert buffer.feed(piece) is None
    with pytest.raises(MessageError) as caught:
        buffer.feed(pieces[-1])
    return caught.value


@given(st.data(), st.binary(max_size=30))
def test_any_slicing_gives_head_and_rest(data: st.DataObject, rest: bytes) -> None:
    stream = HEAD + rest
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    buffer = HeadBuffer(LIMITS)
    found, after = None, b""
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        piece = stream[start:end]
        if found is None:
            found = buffer.feed(piece)
            assert found is not None or buffer.is_empty == (end == 0)
        else:
            after += piece
    assert found == HEAD and buffer.is_empty
    assert buffer.take_rest() + after == rest
    assert buffer.take_rest() == b""


def test_one_buffer_serves_one_head_after_the_other() -> None:
    buffer = HeadBuffer(LIMITS)
    assert buffer.feed(HEAD + HEAD[:-1]) == HEAD
    assert buffer.feed(buffer.take_rest()) is None and not buffer.is_empty
    assert buffer.feed(b"\nrest") == HEAD
    assert buffer.take_rest() == b"rest" and buffer.is_empty


def test_nothing_is_fed() -> None:
    buffer = HeadBuffer(LIMITS)
    assert buffer.feed(b"") is None and buffer.is_empty


def test_d4_limits_strike_before_the_head_is_complete() -> None:
    assert HeadBuffer(LIMITS).feed(b"a" * 100) is None
    error = refuse(b"a" * 100, b"a")
    assert (error.status, error.reason, error.limit) == (414, Reason.TOO_LARGE, "request_line")
    line = b"GET / HTTP/1.1\r\n"
    error = refuse(line, *[b"a: b\r\n"] * 6)
    assert (error.status, error.limit) == (431, "header_fields")
    assert HeadBuffer(LIMITS).feed(line + b"a: b\r\n" * 5) is None
    error = refuse(line, b"a" * 400, b"a")
    assert (error.status, error.limit) == (431, "header_bytes")
    error = refuse(line, b"a: b\r\n", b"a" * (400 - 32 - 6), b"a")
    assert (error.status, error.limit) == (431, "header_bytes")


@pytest.mark.parametrize(
    "pieces",
    [
        *((b"GET / HTTP/1.1\nHost",), (b"GET / HTTP/1.1", b"\n"), (b"GET / HTTP/1.1\r\nHost: a\n\n",)),
        *((b"GET / HTTP/1.1\r\nHost: a", b"\n"), (b"GET / HTTP/1.1\r\nHost: a\r", b"X")),
        *((b"GET / HTTP/1.1\rHost",), (b"\n",), (b"\r\r",)),
    ],
)
def test_a20_a21_stray_line_ends_do_not_wait_for_the_deadline(pieces: tuple[bytes, ...]) -> None:
    error = refuse(*pieces)
    assert (error.status, error.reason) == (400, Reason.MALFORMED)


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ((b"GET /\r\n",), 400),
        ((b"GET /", b"\r", b"\n"), 400),
        ((b"\r\n",), 400),
        ((b"GET / HTTP/2.0\r\nHost: a",), 505),
        ((b"TRACE / HTTP/1.1\r\n",), 405),
        ((b"BREW / HTTP/1.1\r\nHost", b": a\r\n"), 501),
    ],
)
def test_a37_a_bad_request_line_does_not_wait_for_the_deadline(
    pieces: tuple[bytes, ...], status: int
) -> None:
    buffer = HeadBuffer(LIMITS)
    with pytest.raises(MessageError) as caught:
        for piece in pieces:
            assert buffer.feed(piece) is None
    assert caught.value.status == status


@given(st.lists(st.binary(max_size=120), max_size=6))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_held_within_the_limits_or_refused(pieces: list[bytes]) -> None:
    buffer = HeadBuffer(LIMITS)
    held = 0
    try:
        for piece in pieces:
            found = buffer.feed(piece)
            held = 0 if found is not None else held + len(piece)
            assert held <= LIMITS.line_bytes + LIMITS.header_bytes + 4
            buffer.take_rest()
    except MessageError as error:
        assert error.status in (400, 405, 414, 431, 501, 505)


@pytest.mark.parametrize("name", [*METHODS, b"CONNECT", b"TRACE"])
def test_llhttp_knows_every_method_that_is_known_here(name: bytes) -> None:
    parser = httptools.HttpRequestParser(ReceivedFields())
    try:
        parser.feed_data(
            name + b" " + (b"a:1" if name == b"CONNECT" else b"/") + b" HTTP/1.1\r\nHost: a\r\n\r\n"
        )
    except httptools.HttpParserUpgrade:
        assert name == b"CONNECT"
    assert parser.get_method() == name


class Fields(ReceivedFields):
    def on_header(self, name: bytes, value: bytes) -> None:
        self.forward.append((name, value))


def test_the_fields_of_a_whole_head() -> None:
    received = Fields()
    read_fields(HEAD, httptools.HttpRequestParser, received)
    assert received.forward == [(b"Host", b"shop.test"), (b"X", b"y")]
    read_fields(
        HEAD.replace(b"X: y", b"Connection: upgrade\r\nUpgrade: x"), httptools.HttpRequestParser, received
    )
    assert received.forward[-1] == (b"Upgrade", b"x")


@pytest.mark.parametrize("cut", [HEAD[:-1], HEAD[:-2], HEAD[:30], b"", b"\r\n\r\n"])
def test_the_fields_of_a_part_of_a_head_are_refused(cut: bytes) -> None:
    with pytest.raises(MessageError) as caught:
        read_fields(cut, httptools.HttpRequestParser, Fields())
    assert caught.value.status == 400


def test_a_request_line() -> None:
    assert parse_request_line(b"GET /a?b HTTP/1.1") == ("GET", b"/a?b", False)
    assert parse_request_line(b"PROPFIND / HTTP/1.0") == ("PROPFIND", b"/", True)


@given(st.binary(max_size=60))
@settings(max_examples=300)
def test_any_other_line_is_refused(line: bytes) -> None:
    with pytest.raises(MessageError):
        parse_request_line(line + b" ")
