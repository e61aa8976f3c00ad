"""What a request head may say and what it is refused for: the attack catalogue, groups A, B, C and F."""

from __future__ import annotations

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.authz.reasons import Reason
from sidecar.proxy.body import CHUNKED, NO_BODY, Framing
from sidecar.proxy.errors import MessageError
from sidecar.proxy.fields import Fate
from sidecar.proxy.request import MAX_PURPOSE_BYTES, HeadLimits, Request, _gather, parse_request

LIMITS = HeadLimits(line_bytes=8 * 1024, header_bytes=32 * 1024, fields=100)
TRACE = b"4bf92f3577b34da6a3ce929d0e0e4736"


def head(
    *lines: bytes, line: bytes = b"POST /orders HTTP/1.1", host: bytes | None = b"Host: shop.test"
) -> bytes:
    return b"\r\n".join([line, *([] if host is None else [host]), *lines, b"", b""])


def accept(
    *lines: bytes, line: bytes = b"POST /orders HTTP/1.1", host: bytes | None = b"Host: shop.test"
) -> Request:
    return parse_request(head(*lines, line=line, host=host), LIMITS)


def refuse(raw: bytes, limits: HeadLimits = LIMITS) -> MessageError:
    with pytest.raises(MessageError) as caught:
        parse_request(raw, limits)
    return caught.value


def refuse_400(
    *lines: bytes, line: bytes = b"POST /orders HTTP/1.1", host: bytes | None = b"Host: shop.test"
) -> None:
    error = refuse(head(*lines, line=line, host=host))
    assert (error.status, error.reason) == (400, Reason.MALFORMED)


def names(request: Request) -> list[bytes]:
    return [name for name, _ in request.fields]


# What is understood


def test_a_plain_request() -> None:
    request = accept(
        b"User-Agent: curl",
        b"Accept: */*  \t",
        b"Cookie: a=1",
        b"X-Empty:",
        b"Cookie: b=2",
        b"Connection: keep-alive",
        b"Call-Purpose: checkout",
        line=b"GET /orders/42?full=yes HTTP/1.1",
        host=b"Host: Shop.test:443",
    )
    assert (request.method, request.target.path, request.target.query) == ("GET", "/orders/42", b"full=yes")
    assert request.host == b"shop.test"
    assert request.fields == [
        (b"user-agent", b"curl"),
        (b"accept", b"*/*"),
        (b"cookie", b"a=1"),
        (b"x-empty", b""),
        (b"cookie", b"b=2"),
    ]
    assert request.framing is NO_BODY and not request.close and not request.is_http10
    assert not request.expects_continue and request.purpose == "checkout" and not request.has_task
    assert request.trace is None and request.tracestate is None and request.upgrade is None


def test_a_body_of_known_length_and_one_in_chunks() -> None:
    assert accept(b"Content-Length: 12").framing == Framing(length=12)
    assert accept(b"Content-Length: 0").framing is NO_BODY
    assert accept(b"content-length:9223372036854775807").framing == Framing(length=(1 << 63) - 1)
    assert accept(b"Transfer-Encoding: Chunked ").framing is CHUNKED


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
def test_a34_methods_that_need_no_body_keep_its_framing(method: str) -> None:
    assert accept(b"Content-Length: 5", line=method.encode() + b" / HTTP/1.1").framing == Framing(length=5)
    assert accept(b"Transfer-Encoding: chunked", line=method.encode() + b" / HTTP/1.1").framing is CHUNKED


@pytest.mark.parametrize("value", [b"close", b"Close", b"keep-alive, close", b"close,keep-alive", b" ,close"])
def test_close_is_understood(value: bytes) -> None:
    assert accept(b"Connection: " + value).close
    assert accept(b"Connection: keep-alive", b"Connection: " + value).close


def test_http_1_0_is_served_and_closes() -> None:
    request = accept(b"Connection: keep-alive", line=b"GET / HTTP/1.0")
    assert request.is_http10 and request.close


@pytest.mark.parametrize("value", [b"\xc3\xa9", b"\xff\xfe", b"a\tb"])
def test_b23_bytes_beyond_ascii_pass_as_they_are(value: bytes) -> None:
    assert accept(b"X-Name: " + value).fields == [(b"x-name", value)]


# A. Framing and smuggling


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"Content-Length: 5"],
        [b"Transfer-Encoding: chunked", b"Content-Length: 0"],
        [b"Content-Length: 5", b"Connection: close", b"Transfer-Encoding: chunked"],
        [b"Content-Length: 5", b"Transfer-Encoding: identity"],
    ],
)
def test_a1_content_length_and_chunked(lines: list[bytes]) -> None:
    refuse_400(*lines)


@pytest.mark.parametrize("second", [b"6", b"5", b"", b"5, 5"])
def test_a2_two_content_lengths(second: bytes) -> None:
    refuse_400(b"Content-Length: 5", b"X: y", b"Content-Length: " + second)


@pytest.mark.parametrize(
    "value",
    [
        *(b"+5", b"-0", b"-48", b"0x10", b"1_0", b"5 5", b"5;", b"007", b"00", b"5, 5", b"5,", b"5.0"),
        *(b"5e1", b"\xb2", "٥".encode(), "５".encode(), b"9223372036854775808"),
        *(b"99999999999999999999999", b"ten", b"0,0", b'"5"'),
    ],
)
def test_a4_content_length_that_is_no_plain_number(value: bytes) -> None:
    refuse_400(b"Content-Length: " + value)


def test_a5_empty_content_length() -> None:
    refuse_400(b"Content-Length:")
    refuse_400(b"Content-Length:", b"Content-Length: 5")
    refuse_400(b"Content-Length: 5", b"Content-Length: ")


@pytest.mark.parametrize(
    ("value", "status"),
    [
        *((b"identity", 501), (b"gzip", 501), (b"xchunked", 501), (b"chunked;q=1", 400)),
        *((b"\x0bchunked", 400), (b'"chunked"', 400), (b"", 400), (b"chunked.", 501)),
        *((b"gzip, chunked", 501), (b"identity, chunked", 501)),
    ],
)
def test_a7_transfer_codings_other_than_chunked(value: bytes, status: int) -> None:
    assert refuse(head(b"Transfer-Encoding: " + value)).status == status


@pytest.mark.parametrize(
    "lines",
    [
        [b"Transfer-Encoding: chunked, chunked"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"],
        [b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked, identity"],
    ],
)
def test_a8_several_transfer_codings(lines: list[bytes]) -> None:
    refuse_400(*lines)


def test_a8_http_1_0_knows_no_chunks() -> None:
    refuse_400(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0")


@pytest.mark.parametrize(
    "fate", [Fate.HOST, Fate.CONTENT_LENGTH, Fate.TRANSFER_ENCODING, Fate.PURPOSE, Fate.TASK, Fate.TOO_LONG]
)
def test_what_frames_or_decides_may_not_come_twice(fate: Fate) -> None:
    """Llhttp refuses two lengths and codings already; the check of our own does not rest on that."""
    with pytest.raises(MessageError) as caught:
        _gather([(fate, b"5"), (Fate.STRIP, b""), (fate, b"5")])
    assert caught.value.status == 400


@pytest.mark.parametrize("fold", [b" ", b"\t"])
@pytest.mark.parametrize("method", [b"POST", b"OPTIONS"])
def test_a13_folded_framing_lines(fold: bytes, method: bytes) -> None:
    line = method + b" / HTTP/1.1"
    refuse_400(b"Transfer-Encoding:", fold + b"chunked", line=line)
    refuse_400(b"Content-Length:", fold + b"5", line=line)
    refuse_400(b"Content-Length: 5", fold + b"5", b"Expect: 100-continue", line=line)


def test_a14_a_folded_line_in_any_field() -> None:
    refuse_400(b"X-A: b", b" c")
    refuse_400(b"X-A: b", b"\tTransfer-Encoding: chunked")
    refuse_400(b" X-A: b", host=None, line=b"GET / HTTP/1.1")
    refuse_400(b" Host: shop.test", host=None, line=b"GET / HTTP/1.1")


@pytest.mark.parametrize("space", [b" ", b"\t"])
def test_a15_space_before_the_colon(space: bytes) -> None:
    refuse_400(b"Content-Length" + space + b": 5")
    refuse_400(b"X-A" + space + b": 5")


def test_a18_empty_or_odd_header_name() -> None:
    refuse_400(b": x")
    for name in (b"a b", b"a/b", b"a\x80", b"a\x00", b"(a)", b"a@b", b"[a]"):
        refuse_400(name + b": x")
    refuse_400(b"no colon")


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\nHost: shop.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: shop.test\nX: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: shop.test\n\r\n\r\n",
        b"GET / HTTP/1.1\nHost: shop.test\n\nGET /x HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: a\n\nGET /x HTTP/1.1\r\nHost: shop.test\r\n\r\n",
    ],
)
def test_a20_bare_line_feeds(raw: bytes) -> None:
    assert refuse(raw).status == 400


@pytest.mark.parametrize("value", [b":/\rSmuggled: x", b"a\r", b"\ra", b"a\rTransfer-Encoding: chunked"])
def test_a21_bare_carriage_return(value: bytes) -> None:
    refuse_400(b"V: " + value)


@pytest.mark.parametrize("byte", [*range(0x09), *range(0x0B, 0x0D), *range(0x0E, 0x20), 0x7F])
def test_a23_control_characters_in_a_value(byte: int) -> None:
    refuse_400(b"V: a" + bytes([byte]) + b"b")
    refuse_400(b"V: a" + bytes([byte]))
    refuse_400(b"V: " + bytes([byte]) + b"a")
    refuse_400(host=b"Host: a" + bytes([byte]) + b".b")


@pytest.mark.parametrize("value", [b"100-Continue", b"100-continue "])
def test_a35_an_expectation_that_can_be_met(value: bytes) -> None:
    assert accept(b"Expect: " + value, b"Content-Length: 5").expects_continue
    assert accept(b"Expect: " + value, b"Transfer-Encoding: chunked").expects_continue
    assert not accept(b"Expect: " + value).expects_continue
    assert not accept(b"Expect: " + value, b"Content-Length: 5", line=b"POST / HTTP/1.0").expects_continue
    assert b"expect" not in names(accept(b"Expect: " + value, b"Content-Length: 5"))


@pytest.mark.parametrize(
    "value", [b"", b"100-continues", b"100 continue", b"100-continue, x", b"x", b"100-continue;a=b"]
)
def test_a35_mangled_expectations(value: bytes) -> None:
    error = refuse(head(b"Expect: " + value, b"Content-Length: 5"))
    assert (error.status, error.reason) == (417, Reason.EXPECTATION)


def test_a35_two_expectations() -> None:
    assert refuse(head(b"Expect: 100-continue", b"Expect: 100-continue", b"Content-Length: 5")).status == 417


@pytest.mark.parametrize(
    "name", [b"Transfer-Encoding", b"content-length", b"Host", b"Expect", b"transfer_encoding"]
)
def test_a36_framing_names_may_not_be_nominated(name: bytes) -> None:
    refuse_400(b"Connection: close, " + name)
    refuse_400(b"Connection: close", b"Connection: " + name)


@pytest.mark.parametrize(
    ("version", "status"),
    [
        *((b"HTTP/1.2", 505), (b"HTTP/2.0", 505), (b"HTTP/0.9", 505), (b"HTTP/3.0", 505)),
        *((b"HTTP/01.1", 400), (b"http/1.1", 400), (b"HTTP/1.1x", 400), (b"HTTP/1.10", 400)),
        *((b"HTTP/1", 400), (b"HTTP/", 400), (b"", 400), (b"HTTP/1,1", 400), (b"HTTQ/1.1", 400)),
        *((b"RTSP/1.0", 400), (b"ICE/1.0", 400), (b"HTTP/1.\xb9", 400)),
    ],
)
def test_a37_versions(version: bytes, status: int) -> None:
    assert refuse(head(line=b"GET / " + version)).status == status


def test_a37_http_0_9() -> None:
    assert refuse(b"GET /\r\n\r\n").status == 400


def test_a38_the_preface_of_http_2() -> None:
    assert refuse(b"PRI * HTTP/2.0\r\n\r\n").status == 400
    assert refuse(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").status == 400


@pytest.mark.parametrize(
    "line",
    [
        *(b"GET  / HTTP/1.1", b"GET /  HTTP/1.1", b"GET\t/ HTTP/1.1", b"GET /\tHTTP/1.1"),
        *(b"GET HTTP/1.1", b"GET  HTTP/1.1", b"GET /a b HTTP/1.1", b" GET / HTTP/1.1"),
        *(b"GET / HTTP/1.1 ", b"GET / HTTP/1.1\t", b"GET /\x00 HTTP/1.1", b"GET"),
        *(b"GET /\xc3\xa9 HTTP/1.1", b"GET /a\x0bb HTTP/1.1", b"", b"G\xc3T / HTTP/1.1"),
        *(b"\r\nGET / HTTP/1.1", b"G(T / HTTP/1.1", b"GET /\n HTTP/1.1", b"GET /\r HTTP/1.1"),
        *(b"GET /\x7f HTTP/1.1", b"\x16\x03\x01\x02 / HTTP/1.1"),
    ],
)
def test_a40_request_lines(line: bytes) -> None:
    refuse_400(line=line)


@pytest.mark.parametrize(
    "host", [None, b"Host:", b"Host: ", b"Host: a, b", b"Host: u@a", b"Host: a/b", b"Host: a b"]
)
def test_a41_host(host: bytes | None) -> None:
    refuse_400(host=host)
    refuse_400(host=host, line=b"GET / HTTP/1.0")


@pytest.mark.parametrize("second", [b"shop.test", b"other.test", b""])
def test_a41_two_hosts(second: bytes) -> None:
    refuse_400(b"Host: " + second)
    refuse_400(b"host: " + second)


def test_a44_a_long_name_is_refused_and_never_cut() -> None:
    assert accept(b"x" * 256 + b": y").fields == [(b"x" * 256, b"y")]
    for size in (257, 270, 8000, 30_000):
        error = refuse(head(b"x" * size + b": y"))
        assert (error.status, error.reason, error.limit) == (431, Reason.TOO_LARGE, "header_name")
    error = refuse(head(b"x" * 65_536 + b": y"))
    assert (error.status, error.limit) == (431, "header_bytes")
    assert refuse(head(b"x" * 300 + b": y", b"z" * 300 + b": y")).status in (400, 431)


# Limits: at the value and one beyond


def test_the_limit_of_the_request_line() -> None:
    room = LIMITS.line_bytes - len(b"GET / HTTP/1.1")
    assert accept(line=b"GET /" + b"a" * room + b" HTTP/1.1").target.path == "/" + "a" * room
    error = refuse(head(line=b"GET /" + b"a" * (room + 1) + b" HTTP/1.1"))
    assert (error.status, error.reason, error.limit) == (414, Reason.TOO_LARGE, "request_line")


def test_the_limit_of_the_number_of_fields() -> None:
    assert len(accept(*[b"a: b"] * 99).fields) == 99
    for name in (b"a", b"keep-alive"):  # what is stripped counts too
        error = refuse(head(*[name + b": b"] * 100))
        assert (error.status, error.limit) == (431, "header_fields")


def test_the_limit_of_the_header_block_counts_32_bytes_a_field() -> None:
    empty = len(b"Host: shop.test\r\n") + len(b"a: \r\n") + 2 * 32
    room = LIMITS.header_bytes - empty
    assert accept(b"a: " + b"x" * room).fields == [(b"a", b"x" * room)]
    error = refuse(head(b"a: " + b"x" * (room + 1)))
    assert (error.status, error.limit) == (431, "header_bytes")


def test_small_limits_hold_for_small_heads() -> None:
    limits = HeadLimits(line_bytes=20, header_bytes=100, fields=2)
    parse_request(head(b"a: b", line=b"GET / HTTP/1.1"), limits)
    assert refuse(head(b"a: b", b"c: d", line=b"GET / HTTP/1.1"), limits).limit == "header_fields"
    assert refuse(head(line=b"GET /aaaaaaa HTTP/1.1"), limits).limit == "request_line"
    assert refuse(head(b"a: 0123456789012345", line=b"GET / HTTP/1.1"), limits).limit == "header_bytes"


# B. Method, target and host


@pytest.mark.parametrize("method", [b"TRACE", b"CONNECT"])
def test_b30_methods_that_are_never_served(method: bytes) -> None:
    error = refuse(head(line=method + b" / HTTP/1.1"))
    assert (error.status, error.reason) == (405, Reason.METHOD)


@pytest.mark.parametrize(
    "method", [b"get", b"Get", b"GE", b"GETS", b"SOURCE", b"DESCRIBE", b"PRI", b"FLUSH", b"M-SEARCH", b"X"]
)
def test_methods_that_nobody_here_knows(method: bytes) -> None:
    error = refuse(head(line=method + b" / HTTP/1.1"))
    assert (error.status, error.reason) == (501, Reason.METHOD)


@pytest.mark.parametrize(
    "target", [b"Service/Method", b"*", b"shop.test", b"shop.test:443", b"ftp://shop.test/", b"?a"]
)
def test_b17_targets_without_a_leading_slash(target: bytes) -> None:
    refuse_400(line=b"GET " + target + b" HTTP/1.1")
    refuse_400(line=b"OPTIONS " + target + b" HTTP/1.1")


@pytest.mark.parametrize("host", [b"SHOP.test", b"shop.test.", b"shop.test:443", b"Shop.Test.:443"])
def test_b15_hosts_are_compared_in_one_form(host: bytes) -> None:
    assert accept(host=b"Host: " + host).host == b"shop.test"
    assert accept(host=b"Host: " + host, line=b"GET https://shop.TEST/a HTTP/1.1").target.path == "/a"


@pytest.mark.parametrize(
    "authority", [b"other.test", b"shop.test:8443", b"", b"u@shop.test", b"shop.test@other.test"]
)
def test_f11_the_absolute_form_of_another_host(authority: bytes) -> None:
    refuse_400(line=b"GET http://" + authority + b"/a HTTP/1.1")
    refuse_400(line=b"GET https://" + authority + b" HTTP/1.1")


@pytest.mark.parametrize("name", [b"Call-Purpose", b"Txn-Token"])
def test_b22_what_decides_may_not_come_twice(name: bytes) -> None:
    refuse_400(name + b": checkout", name + b": checkout")
    refuse_400(name.lower() + b": checkout", b"X: y", name.upper() + b": refund")


@pytest.mark.parametrize(
    "value", [b"checkout, refund", b"checkout,", b",", b"", b"  ", b"caf\xc3\xa9", b"a\tb", b"x" * 129]
)
def test_b22_b23_a_purpose_that_is_not_one(value: bytes) -> None:
    refuse_400(b"Call-Purpose: " + value)


@pytest.mark.parametrize(
    "value", [b"checkout", b"x", b"INC-4711 stuck order", b"a;b=c", b"x" * MAX_PURPOSE_BYTES]
)
def test_a_purpose(value: bytes) -> None:
    request = accept(b"Call-Purpose:  " + value + b" ")
    assert request.purpose == value.decode() and request.fields == []


def test_a_task_token_is_noticed_and_kept_back() -> None:
    request = accept(b"Txn-Token: eyJ0eXAiOiJ0eG4ifQ.e30.c2ln")
    assert request.has_task and request.fields == []


# C. Spoofing

SPOOFED = {
    "b18": [
        b"X-HTTP-Method-Override",
        b"X-Method-Override",
        b"X-HTTP-Method",
        b"_method",
        b"X_Method_Override",
    ],
    "b19": [
        *(
            b"X-Original-URL",
            b"X-Rewrite-URL",
            b"X-Forwarded-Uri",
            b"X-Forwarded-Prefix",
            b"X-Forwarded-Method",
        ),
        *(b"x-envoy-original-path", b"X.Original.Url"),
    ],
    "c1": [b"x-forwarded-client-cert", b"X-Forwarded-Client-Cert"],
    "c2": [
        *(b"x-request-id", b"X-Request-ID", b"sidecar-reason", b"Sidecar-Anything", b"x-sidecar-identity"),
        *(b"sidecar-grant", b"x!request~id"),
    ],
    "c3": [
        b"X_Forwarded_Client_Cert",
        b"x_request_id",
        b"Call_Purpose",
        b"Content_Length",
        b"sidecar_reason",
    ],
    "c4": [b"X.Forwarded.Client.Cert", b"x-forwarded_client.cert", b"txn.token", b"Transfer.Encoding"],
    "c10": [
        b"X-Forwarded-For",
        b"X-Forwarded-Proto",
        b"X-Forwarded-Host",
        b"Forwarded",
        b"X-Real-IP",
        b"x-envoy-internal",
    ],
    "c12": [b"client-cert", b"Client-Cert-Chain", b"Client_Cert"],
    "c13": [b"proxy", b"Proxy", b"Proxy-Authorization", b"X-Remote-User"],
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, id=f"{case}-{name.decode()}") for case, names in SPOOFED.items() for name in names],
)
def test_names_that_only_a_proxy_may_set(name: bytes) -> None:
    request = accept(name + b": 5", b"X-Own: stays")
    assert request.fields == [(b"x-own", b"stays")]
    assert request.purpose is None and not request.has_task and request.framing is NO_BODY


@pytest.mark.parametrize(
    "name", [b"trace_parent", b"traceparent_", b"ho_st", b"x-forward", b"my-sidecar-x", b"reproxy"]
)
def test_names_that_only_look_alike_go_on(name: bytes) -> None:
    assert accept(name + b": 5").fields == [(name, b"5")]


def test_c2_exactly_one_valid_traceparent_is_continued() -> None:
    good = b"traceparent: 00-" + TRACE + b"-00f067aa0ba902b7-01"
    state = b"tracestate: vendor=1"
    request = accept(good, state, b"Tracestate: other=2")
    assert request.trace == (TRACE.decode(), "01") and request.tracestate == b"vendor=1,other=2"
    assert request.fields == []
    for lines in (
        [good, good],
        [good.replace(b"-01", b"-0g"), state],
        [state],
        [good + b"x", state],
        [b"traceparent:", state],
    ):
        request = accept(*lines)
        assert request.trace is None and request.tracestate is None and request.fields == []
    assert accept(good, b"tracestate: " + b"x" * 513).tracestate is None


def test_c6_nominated_fields_are_removed() -> None:
    request = accept(b"X-Hop: 1", b"X_Hop: 2", b"X-Stays: 3", b"Connection: x-hop, TE", b"TE: trailers")
    assert request.fields == [(b"x-stays", b"3")]


@pytest.mark.parametrize(
    "name",
    [
        *(b"x-forwarded-client-cert", b"X_Forwarded_Client_Cert", b"x-request-id", b"traceparent"),
        *(b"call-purpose", b"Txn-Token", b"sidecar-reason", b"client-cert"),
    ],
)
def test_c6_protected_names_may_not_be_nominated(name: bytes) -> None:
    refuse_400(b"Connection: " + name)


@pytest.mark.parametrize("value", [b"a b", b"close; x", b"x/y", b"\x80", b'"close"'])
def test_c6_a_connection_field_that_is_no_list_of_names(value: bytes) -> None:
    refuse_400(b"Connection: " + value)


@pytest.mark.parametrize(
    "raw",
    [
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\nHost: shop.test\r\n\r\n",
        b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c",
        b"\r\n\r\n",
    ],
)
def test_c14_a_proxy_protocol_preface(raw: bytes) -> None:
    assert refuse(raw).status == 400


# F. Upgrades


def test_f1_h2c_is_served_as_http_1_1() -> None:
    asks = [
        b"Connection: Upgrade, HTTP2-Settings",
        b"Upgrade: h2c",
        b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
    ]
    request = accept(*asks, b"X-A: b", line=b"GET / HTTP/1.1")
    assert request.fields == [(b"x-a", b"b")] and request.upgrade == b"h2c" and request.framing is NO_BODY
    assert accept(*asks, b"Transfer-Encoding: chunked").framing is CHUNKED
    assert accept(*asks, b"Content-Length: 7").framing == Framing(length=7)
    assert accept(b"Connection: HTTP2-Settings", b"HTTP2-Settings: AAM").fields == []


def test_f1_a_websocket_is_not_opened() -> None:
    request = accept(
        b"Connection: upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: x", line=b"GET / HTTP/1.1"
    )
    assert request.upgrade == b"websocket" and names(request) == [b"sec-websocket-key"]


@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("upgrade", [b"websocket", b"x", b"h2c, websocket", b"TLS/1.0", b""])
def test_f3_an_upgrade_with_a_body(framing: bytes, upgrade: bytes) -> None:
    refuse_400(b"Connection: upgrade", b"Upgrade: " + upgrade, framing)
    refuse_400(framing, b"Upgrade: h2c", b"Upgrade: " + (upgrade or b"x"), b"Connection: upgrade")


@pytest.mark.parametrize(
    "line", [b"CONNECT shop.test:443 HTTP/1.1", b"CONNECT / HTTP/1.1", b"CONNECT * HTTP/1.0"]
)
def test_f10_connect(line: bytes) -> None:
    assert refuse(head(line=line)).status == 405


# Whatever comes

LINES = [
    *(b"Host: shop.test", b"Host: a", b"Content-Length: 5", b"Content-Length: 0"),
    *(b"Transfer-Encoding: chunked", b"X: y", b"Connection: close", b"Connection: upgrade"),
    *(b"Upgrade: h2c", b"Expect: 100-continue", b"Cookie: a=b", b"TE: trailers"),
    *(b"transfer-encoding: gzip", b" folded", b": empty", b"Call-Purpose: p", b"traceparent: 00-x"),
    *(b"x\x00: y", b"v: \x80\r"),
]
REQUEST_LINES = [
    b"GET / HTTP/1.1",
    b"POST /a?b=c HTTP/1.1",
    b"PUT //x HTTP/1.1",
    b"GET / HTTP/1.0",
    b"OPTIONS * HTTP/1.1",
]
HEADS = st.builds(
    lambda line, lines, end: end.join([line, *lines]) + end + end,
    st.sampled_from(REQUEST_LINES),
    st.lists(st.sampled_from(LINES), max_size=6),
    st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n"]),
)
PIECES = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b",", b"\x00", b"\x80", b"chunked", b"0", b"5", b"%2e", b"/"]
)


@st.composite
def broken_heads(draw: st.DrawFn) -> bytes:
    raw = draw(HEADS)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(raw)))
        raw = raw[:place] + draw(PIECES) + raw[place + draw(st.integers(0, 2)) :]
    return raw


@given(st.one_of(st.binary(max_size=200), broken_heads()))
@example(b"")
@example(b"\r\n\r\n")
@settings(max_examples=500, deadline=None)
def test_any_bytes_give_a_request_or_a_refusal(raw: bytes) -> None:
    try:
        request = parse_request(raw, LIMITS)
    except MessageError as error:
        assert error.status in (400, 405, 414, 417, 431, 501, 505) and error.detail
    else:
        for name, value in request.fields:
            assert name == name.lower() and value == value.strip()
            assert not set(value) & {*range(0x09), *range(0x0A, 0x20), 0x7F}


def h11_reads(raw: bytes) -> h11.Request | None:
    """What h11 makes of a whole head; None if it refuses or does not see a whole one."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(raw)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    return event if isinstance(event, h11.Request) else None


@given(broken_heads())
@settings(max_examples=700, deadline=None)
def test_what_h11_refuses_is_refused(raw: bytes) -> None:
    """No exceptions are known: where h11 and we differ, we are the stricter one."""
    end = raw.find(b"\r\n\r\n")
    if end < 0:
        return
    raw = raw[: end + 4]
    theirs = h11_reads(raw)
    try:
        ours = parse_request(raw, LIMITS)
    except MessageError:
        return
    assert theirs is not None
    assert theirs.method.decode() == ours.method
    lengths = [value for name, value in theirs.headers if name == b"content-length"]
    codings = [value for name, value in theirs.headers if name == b"transfer-encoding"]
    expected = CHUNKED if codings else Framing(length=int(lengths[0])) if lengths else NO_BODY
    assert ours.framing == expected


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    ],
)
def test_the_second_opinion_is_one(raw: bytes) -> None:
    assert h11_reads(raw) is None
    assert h11_reads(head()) is not None
