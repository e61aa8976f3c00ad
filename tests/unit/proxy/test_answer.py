"""Answers of the upstream: read as strictly as requests (A50, F15, F16), and written anew."""

from __future__ import annotations

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.authz.reasons import Reason
from sidecar.proxy.answer import (
    MAX_ANSWER_FIELDS,
    Answer,
    AnswerBuffer,
    _gather,
    parse_answer,
    write_answer_head,
)
from sidecar.proxy.body import CHUNKED, NO_BODY, UNTIL_CLOSE, Framing
from sidecar.proxy.errors import UpstreamError
from sidecar.proxy.fields import Fate

ID = "01JD0000000000000000000000"


def answer(*lines: bytes, line: bytes = b"HTTP/1.1 200 OK", method: str = "GET") -> Answer:
    return parse_answer(b"\r\n".join([line, *lines, b"", b""]), method)


def refuse(*lines: bytes, line: bytes = b"HTTP/1.1 200 OK", method: str = "GET") -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        answer(*lines, line=line, method=method)
    assert (caught.value.status, caught.value.reason, caught.value.outcome) == (
        502,
        Reason.UPSTREAM_INVALID,
        "invalid",
    )
    return caught.value


# What is understood


def test_a_plain_answer() -> None:
    found = answer(
        b"Server: nginx", b"Date: now", b"Content-Length: 3", b"Set-Cookie: a", b"Set-Cookie: b ", b"X-Empty:"
    )
    assert (found.status, found.phrase) == (200, b"OK") and not found.close
    assert found.fields == [
        (b"server", b"nginx"),
        (b"date", b"now"),
        (b"set-cookie", b"a"),
        (b"set-cookie", b"b"),
        (b"x-empty", b""),
    ]
    assert found.framing == Framing(length=3) and found.told_length == 3


def test_the_three_framings() -> None:
    assert answer(b"Content-Length: 0").framing is NO_BODY
    assert answer(b"Transfer-Encoding: Chunked").framing is CHUNKED
    until_close = answer()
    assert until_close.framing is UNTIL_CLOSE and until_close.close


@pytest.mark.parametrize(
    ("line", "status", "phrase"),
    [
        (b"HTTP/1.1 404 Not Found", 404, b"Not Found"),
        (b"HTTP/1.1 200 ", 200, b""),
        (b"HTTP/1.1 200", 200, b""),
        (b"HTTP/1.1 599 caf\xe9\tx", 599, b"caf\xe9\tx"),
        (b"HTTP/1.0 200 OK", 200, b"OK"),
    ],
)
def test_status_lines(line: bytes, status: int, phrase: bytes) -> None:
    found = answer(b"Content-Length: 1", line=line)
    assert (found.status, found.phrase) == (status, phrase)


def test_when_the_connection_may_not_be_used_again() -> None:
    assert not answer(b"Content-Length: 1", b"Connection: keep-alive").close
    assert answer(b"Content-Length: 1", b"Connection: X, close").close
    assert answer(b"Content-Length: 1", b"Connection: X", b"connection: Close").close
    assert answer(b"Content-Length: 1", b"Connection: keep-alive", line=b"HTTP/1.0 200 OK").close


# A50: what is refused


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: 3", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"Content-Length: 3"],
        [b"Content-Length: 3", b"Content-Length: 4"],
        [b"Content-Length: 3", b"Content-Length: 3"],
        [b"Content-Length: 3, 3"],
        [b"Content-Length: +3"],
        [b"Content-Length: 007"],
        [b"Content-Length:"],
        [b"Content-Length: 9223372036854775808"],
        [b"Transfer-Encoding: gzip"],
        [b"Transfer-Encoding: identity"],
        [b"Transfer-Encoding: gzip, chunked"],
        [b"Transfer-Encoding: chunked, chunked"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding:"],
        [b"Transfer-Encoding: chunked;q=1"],
    ],
)
@pytest.mark.parametrize(
    "line", [b"HTTP/1.1 200 OK", b"HTTP/1.1 204 No Content", b"HTTP/1.1 103 Early Hints"]
)
def test_a50_ambiguous_framing(lines: list[bytes], line: bytes) -> None:
    refuse(*lines, line=line)
    refuse(*lines, line=line, method="HEAD")


def test_a50_chunks_in_http_1_0() -> None:
    refuse(b"Transfer-Encoding: chunked", line=b"HTTP/1.0 200 OK")


@pytest.mark.parametrize(
    "line",
    [
        *(b"HTTP/1.1 200 O\x01K", b"HTTP/1.1 200 O\x00", b"HTTP/1.1 200 \x7f", b"HTTP/1.1  200 OK"),
        *(b"HTTP/1.1 20 OK", b"HTTP/1.1", b"HTTP/1.1 2000 OK", b"HTTP/1.1 000 No", b"HTTP/1.1 099 No"),
        *(b"HTTP/1.1 600 No", b"HTTP/1.1 999 No", b"HTTP/2.0 200 OK", b"HTTP/0.9 200 OK"),
        *(b"HTTP/1.2 200 OK", b"http/1.1 200 OK", b"ICY 200 OK", b"", b"\r\nHTTP/1.1 200 OK"),
        *(b"HTTP/1.1 2x0 O", b" HTTP/1.1 200 OK", b"HTTP/1.1\t200 OK", b"HTTP/1.1 200\tOK"),
        *(b"HTTP/1.1 200 OK\rX", b"HTTP/1.1 200 OK\nX: y", b"GET / HTTP/1.1"),
    ],
)
def test_a50_bad_status_lines(line: bytes) -> None:
    refuse(b"Content-Length: 1", line=line)


@pytest.mark.parametrize(
    "field",
    [
        *(b"a : b", b": b", b"a\x00: b", b"a b: c", b"a: b\x00", b"a: b\x01c", b"a: \x7f"),
        *(b"a: b\rX: y", b"a: b\nX: y", b" folded", b"no colon", b"a\x80: b"),
    ],
)
def test_a50_bad_fields(field: bytes) -> None:
    refuse(b"Content-Length: 1", field)
    refuse(b"X: y", field, b"Content-Length: 1")


def test_a50_a_switch_of_protocols_that_nobody_asked_for() -> None:
    refuse(line=b"HTTP/1.1 101 Switching Protocols")
    refuse(b"Connection: upgrade", b"Upgrade: websocket", line=b"HTTP/1.1 101 Switching Protocols")


def test_an_offer_to_upgrade_is_no_upgrade() -> None:
    found = answer(b"Upgrade: h2,h2c", b"Connection: Upgrade", b"Content-Length: 3")
    assert found.fields == [] and found.framing == Framing(length=3) and not found.close


def test_d30_too_many_fields_and_too_long_names() -> None:
    assert len(answer(*[b"a: b"] * MAX_ANSWER_FIELDS).fields) == MAX_ANSWER_FIELDS
    assert refuse(*[b"a: b"] * (MAX_ANSWER_FIELDS + 1)).limit == "answer_header_fields"
    assert refuse(*[b"te: b"] * (MAX_ANSWER_FIELDS + 1)).limit == "answer_header_fields"
    assert len(answer(b"a" * 256 + b": b").fields) == 1
    assert refuse(b"a" * 257 + b": b").limit == "answer_header_name"


def test_d30_a_long_head() -> None:
    head = b"HTTP/1.1 200 OK\r\na: bcd\r\n\r\n"
    assert AnswerBuffer(len(head)).feed(head) == head
    exact = AnswerBuffer(len(head))
    assert exact.feed(head[:-1]) is None and exact.feed(head[-1:]) == head
    assert AnswerBuffer(8).feed(b"HTTP/1.1") is None
    for pieces in ([head], [head[:5], head[5:]], [head[:-1], head[-1:]], [head[:-1]], [head[:8], b"x" * 30]):
        buffer = AnswerBuffer(len(head) - 2)
        with pytest.raises(UpstreamError) as caught:
            for piece in pieces:
                assert buffer.feed(piece) is None
        assert (caught.value.status, caught.value.limit) == (502, "answer_head_bytes")


@pytest.mark.parametrize(
    "raw",
    [b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", b"HTTP/1.1 200 OK\r\nA: b\n\n", b"HTTP/1.1 200 OK\rA: b"],
)
def test_a50_stray_line_ends_do_not_wait_for_the_deadline(raw: bytes) -> None:
    for pieces in ([raw], [raw[place : place + 1] for place in range(len(raw))]):
        buffer = AnswerBuffer()
        with pytest.raises(UpstreamError) as caught:
            for piece in pieces:
                assert buffer.feed(piece) is None
        assert caught.value.status == 502


@given(st.data(), st.binary(max_size=30))
def test_any_slicing_gives_head_and_rest(data: st.DataObject, rest: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
    stream = head + rest
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    buffer = AnswerBuffer()
    assert buffer.is_empty
    found, after = None, b""
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        if found is None:
            found = buffer.feed(stream[start:end])
        else:
            after += stream[start:end]
    assert found == head and buffer.is_empty and buffer.take_rest() + after == rest


@pytest.mark.parametrize("fate", [Fate.CONTENT_LENGTH, Fate.TRANSFER_ENCODING])
def test_a50_framing_twice_is_refused_here_too(fate: Fate) -> None:
    """Llhttp refuses it already; the check of our own does not rest on that."""
    with pytest.raises(UpstreamError):
        _gather([(fate, b"chunked"), (Fate.STRIP, b""), (fate, b"chunked")])
    assert _gather([(Fate.CONNECTION, b"a"), (Fate.CONNECTION, b"b")]) == {Fate.CONNECTION: b"a,b"}


# F15, F16: answers without a body


@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_f15_answers_that_have_no_body(framing: bytes) -> None:
    for line in (b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified", b"HTTP/1.1 103 Early Hints"):
        found = answer(framing, line=line)
        assert found.framing is NO_BODY and found.told_length is None
        written = write_answer_head(found, ID, False)
        assert b"content-length" not in written and b"transfer-encoding" not in written
    assert answer(framing, line=b"HTTP/1.1 204 No Content").close  # whatever follows is nobody's answer
    assert not answer(
        framing, line=b"HTTP/1.1 304 Not Modified"
    ).close  # RFC 9110 8.6: it speaks of another answer
    assert not answer(line=b"HTTP/1.1 204 No Content").close
    assert not answer(b"Content-Length: 0", line=b"HTTP/1.1 204 No Content").close


def test_f15_an_answer_to_head_tells_a_length_and_has_no_body() -> None:
    found = answer(b"Content-Length: 5", method="HEAD")
    assert found.framing is NO_BODY and found.told_length == 5 and not found.close
    assert write_answer_head(found, ID, False).endswith(b"\r\ncontent-length: 5\r\n\r\n")
    for lines in ([b"Transfer-Encoding: chunked"], []):
        found = answer(*lines, method="HEAD")
        assert found.framing is NO_BODY and found.told_length is None and not found.close
        assert b"content-length" not in write_answer_head(found, ID, False)
        assert b"transfer-encoding" not in write_answer_head(found, ID, False)


def test_f16_interim_answers() -> None:
    found = answer(
        b"Link: </a>; rel=preload", b"Connection: x-hop", b"X-Hop: 1", line=b"HTTP/1.1 103 Early Hints"
    )
    assert found.framing is NO_BODY and not found.close
    assert write_answer_head(found, ID, True) == (
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\nx-request-id: " + ID.encode() + b"\r\n\r\n"
    )
    assert answer(line=b"HTTP/1.1 100 Continue").status == 100


# What the caller gets


def test_what_is_ours_or_of_the_hop_is_removed() -> None:
    found = answer(
        *(
            b"Sidecar-Reason: scope",
            b"sidecar_reason: x",
            b"X-Request-Id: 1",
            b"X_Request.ID: 2",
            b"Keep-Alive: timeout=5",
        ),
        *(
            b"Connection: keep-alive, X-Hop",
            b"X-Hop: 1",
            b"x_hop: 2",
            b"Proxy-Authenticate: Basic",
            b"Trailer: X",
            b"TE: x",
        ),
        *(
            b"X-Forwarded-Client-Cert: x",
            b"Transfer_Encoding: chunked",
            b"Content-Length: 1",
            b"X-Own: stays",
        ),
    )
    assert found.fields == [(b"x-own", b"stays")]


@pytest.mark.parametrize("name", [b"Content-Length", b"transfer-encoding", b"X-Request-Id", b"a b"])
def test_the_service_may_not_nominate_protected_names(name: bytes) -> None:
    refuse(b"Content-Length: 1", b"Connection: " + name)


def test_heads_for_the_caller() -> None:
    plain = answer(b"Content-Length: 3", b"A: b")
    own = b"x-request-id: " + ID.encode()
    assert (
        write_answer_head(plain, ID, False)
        == b"HTTP/1.1 200 OK\r\na: b\r\n" + own + b"\r\ncontent-length: 3\r\n\r\n"
    )
    assert write_answer_head(plain, ID, True).endswith(
        own + b"\r\ncontent-length: 3\r\nconnection: close\r\n\r\n"
    )
    for found in (answer(b"Transfer-Encoding: chunked"), answer()):
        assert write_answer_head(found, ID, False).endswith(own + b"\r\ntransfer-encoding: chunked\r\n\r\n")
        assert write_answer_head(found, ID, False, is_http10=True).endswith(
            own + b"\r\nconnection: close\r\n\r\n"
        )
    assert write_answer_head(answer(b"Content-Length: 0"), ID, False).endswith(
        b"\r\ncontent-length: 0\r\n\r\n"
    )


# Whatever comes

LINES = st.sampled_from(
    [
        *(b"HTTP/1.1 200 OK", b"HTTP/1.0 404 No", b"HTTP/1.1 204 No Content", b"Content-Length: 3"),
        *(b"Content-Length: 0", b"X: y", b"Transfer-Encoding: chunked", b"Connection: close"),
        *(b"Connection: x, y", b" fold", b"a: \x00", b": x", b"Upgrade: h2c"),
    ]
)


@given(
    st.one_of(
        st.binary(max_size=150), st.lists(LINES, max_size=6).map(lambda all: b"\r\n".join([*all, b"", b""]))
    )
)
@example(b"")
@example(b"\r\n\r\n")
@settings(max_examples=500, deadline=None)
def test_any_bytes_give_an_answer_or_a_502(raw: bytes) -> None:
    try:
        found = parse_answer(raw, "GET")
    except UpstreamError as error:
        assert error.status == 502
        return
    for close in (False, True):
        written = write_answer_head(found, ID, close)
        if found.status >= 200:
            connection = h11.Connection(h11.CLIENT)
            connection.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
            connection.send(h11.EndOfMessage())
            connection.receive_data(written)
            event = connection.next_event()
            assert isinstance(event, h11.Response) and event.status_code == found.status
