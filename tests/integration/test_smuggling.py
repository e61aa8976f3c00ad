"""Ambiguous messages through the real program: refused, closed, and the service saw no byte."""

from __future__ import annotations

import pytest

from tests.fakes.program import Identity, Program, request
from tests.fakes.service import RecordingService

pytestmark = pytest.mark.integration

GET = b"GET /orders/42 HTTP/1.1\r\nHost: orders.test\r\n"
POST = b"POST /orders HTTP/1.1\r\nHost: orders.test\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: orders.test\r\n\r\n"
CHUNKS = b"3\r\nabc\r\n0\r\n\r\n"

# id, bytes sent, acceptable statuses. What follows a refused message must never be served.
CASES = [
    ("a1-length-then-chunked", POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS + HIDDEN, {400}),
    ("a1-chunked-then-length", POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n" + CHUNKS + HIDDEN, {400}),
    ("a1-with-connection-close", POST + b"Connection: close\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, {400}),
    ("a2-two-lengths", POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd" + HIDDEN, {400}),
    ("a2-two-equal-lengths", POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc" + HIDDEN, {400}),
    *[
        (f"a4-length-{number}", POST + b"Content-Length: " + value + b"\r\n\r\nabc" + HIDDEN, {400})
        for number, value in enumerate(
            [b"+3", b"-0", b"-48", b"0x3", b"0_3", b"3 3", b"3;", b"003", b"\xd9\xa3", b"3,3", b"1e1", b"9" * 30]
        )
    ],
    ("a5-empty-length", POST + b"Content-Length:\r\n\r\n" + HIDDEN, {400}),
    ("a5-empty-beside-a-valid-one", POST + b"Content-Length:\r\nContent-Length: 3\r\n\r\nabc", {400}),
    *[
        (f"a7-coding-{value.decode()}", POST + b"Transfer-Encoding: " + value + b"\r\n\r\n" + CHUNKS, {400, 501})
        for value in (b"identity", b"gzip", b"xchunked", b"chunked;q=1", b"junk")
    ],
    ("a8-chunked-twice", POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + CHUNKS, {400, 501}),
    ("a8-two-lines", POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS, {400, 501}),
    ("a8-then-identity", POST + b"Transfer-Encoding: chunked, identity\r\n\r\n" + CHUNKS, {400, 501}),
    ("a13-folded-coding", POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + CHUNKS, {400}),
    ("a13-folded-length", POST + b"Content-Length:\r\n 3\r\n\r\nabc", {400}),
    ("a14-folded-field", GET + b"X-A: b\r\n c\r\n\r\n", {400}),
    ("a15-space-before-colon", POST + b"Content-Length : 3\r\n\r\nabc", {400}),
    ("a18-empty-name", GET + b": x\r\n\r\n", {400}),
    ("a20-bare-lf-in-head", b"GET /orders/42 HTTP/1.1\nHost: orders.test\n\n", {400}),
    ("a20-bare-lf-in-a-field", GET + b"X-A: b\n\r\n", {400}),
    ("a20-bare-lf-in-chunks", POST + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", {400}),
    ("a21-bare-cr", GET + b"V: :/\rSmuggled: x\r\n\r\n", {400}),
    ("a23-nul-in-host", b"GET /orders/42 HTTP/1.1\r\nHost: a\x00.b\r\n\r\n", {400}),
    *[
        (f"a25-chunk-size-{number}", POST + b"Transfer-Encoding: chunked\r\n\r\n" + size + b"\r\nabc\r\n0\r\n\r\n", {400})
        for number, size in enumerate([b"0x3", b"+3", b"-0", b"3_0", b" 3", b"3 ", b"1zzz", b"", b"f" * 17])
    ],
    ("a28-lf-in-extension", POST + b"Transfer-Encoding: chunked\r\n\r\n3;\nabc\r\n0\r\n\r\n", {400}),
    ("a30-long-extension", POST + b"Transfer-Encoding: chunked\r\n\r\n3;" + b"x" * 65536 + b"\r\nabc\r\n0\r\n\r\n", {400}),
    ("a31-longer-than-its-size", POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", {400}),
    ("a31-other-bytes-after-data", POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcXX0\r\n\r\n", {400}),
    *[
        (f"a36-nominates-{name.decode()}", POST + b"Connection: " + name + b"\r\nContent-Length: 3\r\n\r\nabc", {400})
        for name in (b"content-length", b"transfer-encoding", b"host", b"close, content_length")
    ],
    *[
        (f"a37-version-{number}", b"GET /orders/42 " + version + b"\r\nHost: orders.test\r\n\r\n", {400, 505})
        for number, version in enumerate([b"HTTP/1.2", b"HTTP/2.0", b"HTTP/01.1", b"http/1.1", b"HTTP/1.1x", b"HTTP/3", b"ICE/1.0"])
    ],
    ("a37-http-0.9", b"GET /orders/42\r\n\r\n", {400, 505}),
    ("a38-http2-preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 405, 505}),
    *[
        (f"a40-request-line-{number}", line + b"\r\nHost: orders.test\r\n\r\n", {400, 501, 505})
        for number, line in enumerate(
            [
                b"GET  /orders/42 HTTP/1.1",
                b"GET\t/orders/42 HTTP/1.1",
                b"GET HTTP/1.1",
                b"GET /orders/4 2 HTTP/1.1",
                b"GET /orders/42  HTTP/1.1",
                b" GET /orders/42 HTTP/1.1",
                b"get /orders/42 HTTP/1.1",
            ]
        )
    ],
    ("a41-no-host", b"GET /orders/42 HTTP/1.1\r\n\r\n", {400}),
    ("a41-two-hosts", GET + b"Host: orders.test\r\n\r\n", {400}),
    *[
        (f"a41-host-{number}", b"GET /orders/42 HTTP/1.1\r\nHost: " + host + b"\r\n\r\n", {400})
        for number, host in enumerate([b"a.test, b.test", b"", b"user@a.test", b"a.test/x", b"a.test:port", b"a b"])
    ],
    ("a44-name-of-270-bytes", GET + b"x" * 270 + b": y\r\n\r\n", {431}),
    ("a44-name-of-64-kib", GET + b"x" * 65536 + b": y\r\n\r\n", {431}),
    *[
        (f"b-path-{number}", b"GET " + path + b" HTTP/1.1\r\nHost: orders.test\r\n\r\n", {400})
        for number, path in enumerate(
            [
                b"/orders/..%2f..%2fadmin",
                b"/orders//42",
                b"/orders/../../admin",
                b"/orders%2f42",
                b"/orders/%5c42",
                b"/orders/42;x=1",
                b"/orders/..;/admin",
                b"/orders/%00",
                b"/orders/%0d%0aX: y",
                b"/orders/42#fragment",
                b"/orders/%zz",
                b"orders/42",
                b"*",
                b"/orders/\xc3\xa9",
            ]
        )
    ],
    ("f3-websocket-with-a-body", POST + b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\nContent-Length: 3\r\n\r\nabc", {400}),
]  # fmt: skip


@pytest.fixture(scope="module")
def program(tmp_path_factory, domain, service):
    directory = tmp_path_factory.mktemp("smuggling")
    policy = domain.policy(everything=("web",))
    with Program(directory, domain.identity("orders"), policy, service.url) as program:
        yield program


@pytest.mark.parametrize(("data", "statuses"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_an_ambiguous_message_is_refused_and_nothing_goes_on(
    program: Program, service: RecordingService, domain, data: bytes, statuses: set[int]
):
    web: Identity = domain.identity("web")
    before = len(service.received)
    with program.link(web) as link:
        answer = link.ask(data)
        assert answer.status in statuses, answer
        assert answer.reason in ("malformed", "too-large", "method")
        assert answer.headers["x-request-id"]
        assert link.is_closed_by_peer()
    record = program.record_of(answer)
    assert service.received[before:] == b""
    assert b"/hidden" not in service.received
    assert record["caller"]["id"] == str(domain.id("web"))
    assert (record["decision"]["effect"], record["decision"]["reason"]) == ("deny", answer.reason)
    assert record["outcome"]["status"] == answer.status
    assert program.ask(web, request()).status == 200


def test_a_second_request_in_the_same_bytes_is_answered_second(program: Program, service, domain):
    with program.link(domain.identity("web")) as link:
        link.send(request("/orders/1") + request("/orders/2") + request("/orders/3"))
        assert [link.read_answer().status for _ in range(3)] == [200, 200, 200]
    order = [head.split(b" ")[1] for head in service.heads()[-3:]]
    assert order == [b"/orders/1", b"/orders/2", b"/orders/3"]


def test_a39_garbage_after_a_good_request_does_not_touch_its_answer(program: Program, domain):
    with program.link(domain.identity("web")) as link:
        link.send(request() + b"\x00\x01garbage\r\n\r\n")
        assert link.read_answer().status == 200
        assert link.read_answer().status == 400
        assert link.is_closed_by_peer()


def test_a39_what_follows_connection_close_is_not_served(program: Program, service, domain):
    with program.link(domain.identity("web")) as link:
        link.send(request("/orders/42", "GET", "Connection: close") + HIDDEN)
        answer = link.read_answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert link.is_closed_by_peer()
    assert b"/hidden" not in service.received


def test_a_body_is_framed_anew_and_arrives_whole(program: Program, service, domain):
    body = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
    with program.link(domain.identity("web")) as link:
        answer = link.ask(request("/orders", "POST", body=body))
        assert answer.status == 200
        chunked = request("/orders", "POST", "Transfer-Encoding: chunked")
        link.send(chunked + b"%x;ext=1\r\n" % len(body) + body + b"\r\n0\r\nTrailer-Field: dropped\r\n\r\n")
        assert link.read_answer().status == 200
    assert b"ext=1" not in service.received and b"Trailer-Field" not in service.received
