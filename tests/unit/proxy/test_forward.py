"""The upstream's head is written from the canonical request alone; what we own is in it once, and ours."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.proxy.fields import fold_name
from sidecar.proxy.forward import write_request_head
from sidecar.proxy.request import HeadLimits, parse_request

LIMITS = HeadLimits(line_bytes=8 * 1024, header_bytes=32 * 1024, fields=100)
XFCC = b"By=spiffe://demo.test/orders;Hash=" + b"ab" * 32 + b";URI=spiffe://demo.test/web"
ID = "01JD0000000000000000000000"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
OURS = (
    b"x-forwarded-client-cert: "
    + XFCC
    + b"\r\nx-request-id: "
    + ID.encode()
    + b"\r\ntraceparent: "
    + TRACEPARENT.encode()
)


def forward(*lines: bytes, line: bytes = b"GET /orders HTTP/1.1") -> bytes:
    request = parse_request(b"\r\n".join([line, b"Host: Shop.test:443", *lines, b"", b""]), LIMITS)
    return write_request_head(request, XFCC, ID, TRACEPARENT)


def test_a_head_without_body() -> None:
    assert forward(
        b"User-Agent: curl", b"COOKIE: a", b"Cookie: b  ", line=b"GET /a/%2e%2e/b?c=%2e HTTP/1.0"
    ) == (
        b"GET /b?c=%2e HTTP/1.1\r\nhost: shop.test\r\nuser-agent: curl\r\ncookie: a\r\ncookie: b\r\n"
        + OURS
        + b"\r\n\r\n"
    )


def test_f11_an_absolute_target_goes_on_as_a_path() -> None:
    assert forward(line=b"GET https://shop.test/a?b HTTP/1.1") == (
        b"GET /a?b HTTP/1.1\r\nhost: shop.test\r\n" + OURS + b"\r\n\r\n"
    )


@pytest.mark.parametrize("method", [b"GET", b"POST", b"DELETE", b"OPTIONS"])
def test_a34_a_body_is_framed_anew(method: bytes) -> None:
    line = method + b" / HTTP/1.1"
    assert forward(b"Content-Length: 7", line=line).endswith(OURS + b"\r\ncontent-length: 7\r\n\r\n")
    assert forward(b"Transfer-Encoding: CHUNKED", line=line).endswith(
        OURS + b"\r\ntransfer-encoding: chunked\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("method", "end"),
    [(b"POST", True), (b"PUT", True), (b"PATCH", True), (b"GET", False), (b"DELETE", False)],
)
def test_methods_that_expect_a_body_say_when_there_is_none(method: bytes, end: bool) -> None:
    for lines in ([], [b"Content-Length: 0"]):
        head = forward(*lines, line=method + b" / HTTP/1.1")
        assert head.endswith(b"\r\ncontent-length: 0\r\n\r\n") == end
        assert head.count(b"content-length") == end


def test_the_callers_trace_keeps_its_state() -> None:
    head = forward(b"traceparent: " + TRACEPARENT.encode(), b"Tracestate: a=b", b"tracestate: c=d")
    assert head.endswith(OURS + b"\r\ntracestate: a=b,c=d\r\n\r\n")
    assert b"tracestate" not in forward(b"Tracestate: a=b")


def test_no_hop_by_hop_field_goes_on() -> None:
    head = forward(
        *(
            b"Connection: keep-alive, X-Hop, upgrade",
            b"X-Hop: 1",
            b"Upgrade: websocket",
            b"Keep-Alive: timeout=5",
        ),
        *(
            b"TE: trailers",
            b"Trailer: X",
            b"Proxy-Connection: close",
            b"Expect: 100-continue",
            b"HTTP2-Settings: AA",
        ),
        *(b"Proxy-Authorization: Basic eA==", b"Txn-Token: e30.e30.c2ln", b"Call-Purpose: checkout"),
    )
    assert head == b"GET /orders HTTP/1.1\r\nhost: shop.test\r\n" + OURS + b"\r\n\r\n"


OWNED = [
    b"x-forwarded-client-cert",
    b"x-request-id",
    b"traceparent",
    b"tracestate",
    b"sidecar-reason",
    b"call-purpose",
]


@st.composite
def owned_fields(draw: st.DrawFn) -> bytes:
    name = draw(st.sampled_from([*OWNED, b"txn-token", b"content-length", b"transfer-encoding", b"host"]))
    marks = st.sampled_from(list(b"_.-"))
    spelt = bytes(
        draw(marks) if byte == ord("-") else draw(st.sampled_from([byte, ord(chr(byte).upper())]))
        for byte in name
    )
    return (
        b""
        if spelt.lower() in (b"host", b"content-length", b"transfer-encoding", b"txn-token", b"call-purpose")
        else spelt
    )


@given(st.lists(owned_fields(), max_size=12))
@settings(max_examples=400, deadline=None)
def test_r3_nothing_that_the_caller_sends_looks_like_ours(spellings: list[bytes]) -> None:
    head = forward(*[name + b": spoofed" for name in spellings if name])
    lines = head.split(b"\r\n")[1:-2]
    folded = [fold_name(line.partition(b":")[0]) for line in lines]
    assert folded == [b"host", b"x-forwarded-client-cert", b"x-request-id", b"traceparent"]
    assert b"spoofed" not in head


def test_h11_reads_what_is_written() -> None:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(forward(b"Content-Length: 3", b"X: y", line=b"POST /a?b HTTP/1.1") + b"abc")
    request, data, end = connection.next_event(), connection.next_event(), connection.next_event()
    assert (
        isinstance(request, h11.Request) and isinstance(data, h11.Data) and isinstance(end, h11.EndOfMessage)
    )
    assert (request.method, request.target, bytes(data.data)) == (b"POST", b"/a?b", b"abc")
    assert dict(request.headers)[b"x-forwarded-client-cert"] == XFCC
