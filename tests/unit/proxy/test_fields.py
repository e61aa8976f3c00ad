"""Which names are forwarded, stripped and read, in whatever spelling; Connection; Host."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.proxy import fields
from sidecar.proxy.errors import MessageError
from sidecar.proxy.fields import (
    Fate,
    answer_fate,
    answer_memo,
    canonical_host,
    fold_name,
    is_spoofable,
    parse_connection,
    request_fate,
    request_memo,
)

OWNED = [
    *(b"x-forwarded-client-cert", b"x-request-id", b"traceparent", b"tracestate", b"call-purpose"),
    *(b"txn-token", b"sidecar-reason", b"sidecar-grant", b"x-sidecar-identity", b"forwarded"),
    *(b"x-forwarded-for", b"client-cert", b"host", b"content-length", b"transfer-encoding"),
    *(b"connection", b"expect", b"upgrade", b"keep-alive", b"te", b"trailer", b"proxy-connection"),
    *(b"proxy-authorization", b"http2-settings", b"x-http-method-override", b"x-original-url"),
    *(b"x-envoy-internal", b"proxy", b"client-cert-chain", b"x-real-ip"),
]


@st.composite
def spellings(draw: st.DrawFn) -> bytes:
    """An owned name with its marks and its case changed."""
    name = draw(st.sampled_from(OWNED))
    marks = st.sampled_from(list(b"_-.!#$%&'*+^`|~"))
    return bytes(
        draw(marks) if byte == ord("-") else draw(st.sampled_from([byte, ord(chr(byte).upper())]))
        for byte in name
    )


@given(spellings())
@settings(max_examples=1000, deadline=None)
def test_c3_c4_no_spelling_of_an_owned_name_is_forwarded(name: bytes) -> None:
    lower, fate = request_fate(name)
    assert lower == name.lower() and fate is not Fate.FORWARD
    if name.lower() not in OWNED:
        assert fate is Fate.STRIP
    assert request_fate(name) == request_memo[name] == (lower, fate)


@pytest.mark.parametrize(
    ("name", "fate"),
    [
        (b"Host", Fate.HOST),
        (b"CONTENT-LENGTH", Fate.CONTENT_LENGTH),
        (b"Transfer-Encoding", Fate.TRANSFER_ENCODING),
        (b"Connection", Fate.CONNECTION),
        (b"Expect", Fate.EXPECT),
        (b"Call-Purpose", Fate.PURPOSE),
        (b"Txn-Token", Fate.TASK),
        (b"TraceParent", Fate.TRACEPARENT),
        (b"tracestate", Fate.TRACESTATE),
        (b"Upgrade", Fate.UPGRADE),
        (b"Content_Length", Fate.STRIP),
        (b"TE", Fate.STRIP),
        (b"Cookie", Fate.FORWARD),
        (b"Authorization", Fate.FORWARD),
        (b"X-Forward", Fate.FORWARD),
        (b"hostname", Fate.FORWARD),
        (b"n" * fields.MAX_NAME_BYTES, Fate.FORWARD),
        (b"n" * (fields.MAX_NAME_BYTES + 1), Fate.TOO_LONG),
        (b"host" + b"_" * fields.MAX_NAME_BYTES, Fate.TOO_LONG),
    ],
)
def test_fates_in_requests(name: bytes, fate: Fate) -> None:
    assert request_fate(name) == (name.lower(), fate)


@pytest.mark.parametrize(
    ("name", "fate"),
    [
        (b"Content-Length", Fate.CONTENT_LENGTH),
        (b"transfer-encoding", Fate.TRANSFER_ENCODING),
        (b"Connection", Fate.CONNECTION),
        (b"Content.Length", Fate.STRIP),
        (b"Host", Fate.STRIP),
        (b"Upgrade", Fate.STRIP),
        (b"Keep-Alive", Fate.STRIP),
        (b"Trailer", Fate.STRIP),
        (b"Sidecar-Reason", Fate.STRIP),
        (b"sidecar_reason", Fate.STRIP),
        (b"X_Request.Id", Fate.STRIP),
        (b"X-Forwarded-Client-Cert", Fate.STRIP),
        (b"Traceparent", Fate.STRIP),
        (b"Set-Cookie", Fate.FORWARD),
        (b"Server", Fate.FORWARD),
        (b"Date", Fate.FORWARD),
        (b"X-Forwarded-For", Fate.FORWARD),
        (b"n" * (fields.MAX_NAME_BYTES + 1), Fate.TOO_LONG),
    ],
)
def test_fates_in_answers(name: bytes, fate: Fate) -> None:
    assert answer_fate(name) == (name.lower(), fate)


def test_what_is_remembered_is_bounded() -> None:
    for number in range(3 * fields._MEMO):
        request_fate(b"x-%d" % number)
        answer_fate(b"x-%d" % number)
    assert 0 < len(request_memo) <= fields._MEMO
    assert 0 < len(answer_memo) <= fields._MEMO
    request_fate(b"y" * 300)
    assert b"y" * 300 not in request_memo
    assert request_fate(b"X_Request_Id") == (b"x_request_id", Fate.STRIP)


@given(st.binary(max_size=40))
def test_folding_once_is_enough(name: bytes) -> None:
    assert fold_name(fold_name(name)) == fold_name(name)
    assert len(fold_name(name)) == len(name)


def test_what_a_caller_could_be_believed_for() -> None:
    assert is_spoofable(b"x-forwarded-anything") and is_spoofable(b"sidecar-x") and is_spoofable(b"proxy")
    assert (
        not is_spoofable(b"x-forward")
        and not is_spoofable(b"authorization")
        and not is_spoofable(b"side-car")
    )


@pytest.mark.parametrize(
    ("value", "close", "nominated"),
    [
        *((b"close", True, set()), (b"keep-alive", False, set())),
        *((b"Keep-Alive, Upgrade", False, {b"upgrade"}), (b"X-Hop ,\tclose,,", True, {b"x-hop"})),
        *((b"x_hop", False, {b"x-hop"}), (b"TE, trailer", False, {b"te", b"trailer"})),
        *((b"", False, set()), (b" , ", False, set())),
    ],
)
def test_connection(value: bytes, close: bool, nominated: set[bytes]) -> None:
    assert parse_connection(value) == (close, nominated)


@pytest.mark.parametrize(
    "name", [b"host", b"Content_Length", b"transfer.encoding", b"expect", b"X-Request-Id", b"sidecar-x"]
)
def test_a36_c6_protected_names_may_not_be_nominated(name: bytes) -> None:
    with pytest.raises(MessageError) as caught:
        parse_connection(b"keep-alive, " + name)
    assert caught.value.status == 400


@pytest.mark.parametrize("value", [b"a b", b"a;b", b"\xff", b"a/b", b"close\x00"])
def test_a_connection_of_other_things_than_names(value: bytes) -> None:
    with pytest.raises(MessageError):
        parse_connection(value)


@pytest.mark.parametrize(
    ("value", "host"),
    [
        *((b"shop.test", b"shop.test"), (b"SHOP.Test", b"shop.test"), (b"shop.test.", b"shop.test")),
        *((b"shop.test:443", b"shop.test"), (b"shop.test.:0443", b"shop.test")),
        *((b"shop.test:8443", b"shop.test:8443"), (b"shop.test:08443", b"shop.test:8443")),
        *((b"shop.test:65535", b"shop.test:65535"), (b"my_service-1", b"my_service-1")),
        *((b"192.0.2.7:80", b"192.0.2.7:80"), (b"[2001:DB8::0:1]:443", b"[2001:db8::1]")),
        *((b"[::1]:8080", b"[::1]:8080"), (b"a" * 255, b"a" * 255)),
    ],
)
def test_b15_hosts_have_one_form(value: bytes, host: bytes) -> None:
    assert canonical_host(value) == host
    assert canonical_host(host) == host


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b".", b"..", b"a..", b"a..b", b".a", b"a:", b"a:0", b"a:65536", b"a:99999", b"a:123456"),
        *(b"a:x", b"a:-1", b"a:80:80", b"a, b", b"a,b", b"u@a", b"a/b", b"a?b", b"a#b", b"a b"),
        *(b"a\x00", b"a\n", b"\xc3\xa9", b"a%20", b"[::1", b"::1]", b"[::g]", b"[1:2]", b"[:::]"),
        *(b"[::1%eth0]", b"[]", b"[::1]x", b"::1", b"a;b", b"a\\b", b'"a"', b"a" * 263, b"[::1].:80"),
    ],
)
def test_a41_what_is_no_host(value: bytes) -> None:
    with pytest.raises(MessageError) as caught:
        canonical_host(value)
    assert caught.value.status == 400


@given(st.text("aA0.-_:[]@/ %", max_size=12).map(str.encode))
@settings(max_examples=500, deadline=None)
def test_a_canonical_host_is_its_own_canonical_form(value: bytes) -> None:
    try:
        host = canonical_host(value)
    except MessageError:
        return
    assert canonical_host(host) == host and host == host.lower()
