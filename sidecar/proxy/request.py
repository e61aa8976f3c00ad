"""One request as it is judged, recorded and sent on: what a head says, after every ambiguity has been refused. Pure.

Nothing received is ever passed on. A head gives a :class:`Request` or a refusal, the verdict is about the request, and
:mod:`sidecar.proxy.forward` writes the upstream's bytes from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import httptools

from sidecar.authz.reasons import Reason
from sidecar.proxy.body import CHUNKED, NO_BODY, Framing
from sidecar.proxy.errors import MessageError, malformed
from sidecar.proxy.fields import Fate, Field, canonical_host, fold_name, parse_connection, request_fate
from sidecar.proxy.head import (
    HeadBuffer,
    HeadLimits,
    check_size,
    parse_request_line,
    read_fields,
    unknown_coding,
)
from sidecar.proxy.request_id import parse_traceparent, parse_tracestate
from sidecar.proxy.target import Target, parse_target

__all__ = ["HeadBuffer", "HeadLimits", "Request", "parse_request"]

MAX_PURPOSE_BYTES: Final = 128

_LENGTH = re.compile(rb"0|[1-9][0-9]{0,18}")
_PURPOSE = re.compile(rb"[\x21-\x2b\x2d-\x7e](?:[\x20-\x2b\x2d-\x7e]{0,126}[\x21-\x2b\x2d-\x7e])?")

# INVARIANT: only fields that RFC 9110 defines as lists, and those that a comma makes invalid, may come several times.
_MAY_REPEAT: Final = frozenset([Fate.CONNECTION, Fate.UPGRADE, Fate.TRACEPARENT, Fate.TRACESTATE])
_TWICE: Final = {
    Fate.HOST: "the request has more than one Host field",
    Fate.CONTENT_LENGTH: "the request has more than one Content-Length",
    Fate.TRANSFER_ENCODING: "the request has more than one Transfer-Encoding",
    Fate.PURPOSE: "the request has more than one Call-Purpose",
    Fate.TASK: "the request has more than one Txn-Token",
}


@dataclass(slots=True)
class Request:
    """The canonical request. Never changed once it is made.

    ``fields`` are those that go upstream, in their order: neither hop-by-hop nor framing fields, nor any that the sidecar
    reads or owns. ``host`` is canonical. ``close``: this connection ends after the answer. ``expects_continue``: the
    caller waits for ``100 Continue`` before it sends the body. ``purpose`` is the declared one. ``trace`` is (trace id,
    flags) of the one valid ``traceparent``, and only with it there may be a ``tracestate``. ``upgrade`` is what the
    caller would like to speak; it is not forwarded and the request is served as HTTP/1.1.
    """

    method: str
    target: Target
    host: bytes
    fields: list[Field]
    framing: Framing
    close: bool
    is_http10: bool
    expects_continue: bool
    purpose: str | None
    has_task: bool
    trace: tuple[str, str] | None
    tracestate: bytes | None
    upgrade: bytes | None


def parse_request(head: bytes, limits: HeadLimits) -> Request:
    """The request that a whole head (with the empty line that ends it) makes.

    Raises :class:`~sidecar.proxy.errors.MessageError` for whatever has no single meaning; the connection must close then.
    About 5 us for ten fields.
    """
    line = head.find(b"\r\n")
    check_size(head, line, limits, complete=True)
    method, raw_target, is_http10 = parse_request_line(head[:line])
    fields, read = _sort_fields(read_fields(head, httptools.HttpRequestParser))
    get = read.get
    target = parse_target(raw_target)
    host = _read_host(get(Fate.HOST), target)
    framing = _read_framing(get(Fate.CONTENT_LENGTH), get(Fate.TRANSFER_ENCODING), is_http10)
    close = is_http10
    connection = get(Fate.CONNECTION)
    if connection is not None:
        asks_close, nominated = parse_connection(connection)
        close = close or asks_close
        if nominated:
            fields = [field for field in fields if fold_name(field[0]) not in nominated]
    upgrade = get(Fate.UPGRADE)
    if upgrade is not None and framing is not NO_BODY:
        _check_upgrade_with_body(upgrade)
    expect, purpose, traceparent = get(Fate.EXPECT), get(Fate.PURPOSE), get(Fate.TRACEPARENT)
    trace = None if traceparent is None else parse_traceparent(traceparent)
    tracestate = None if trace is None else get(Fate.TRACESTATE)
    return Request(
        method,
        target,
        host,
        fields,
        framing,
        close,
        is_http10,
        expect is not None and _read_expect(expect, framing, is_http10),
        None if purpose is None else _read_purpose(purpose),
        Fate.TASK in read,
        trace,
        None if tracestate is None else parse_tracestate(tracestate),
        upgrade,
    )


def _sort_fields(received: list[Field]) -> tuple[list[Field], dict[Fate, bytes]]:
    """(fields to forward, values of those that are read); repeated list fields are joined by commas."""
    forward, strip = Fate.FORWARD, Fate.STRIP
    fields: list[Field] = []
    read: dict[Fate, bytes] = {}
    for name, value in received:
        lower, fate = request_fate(name)
        if fate is forward:
            fields.append((lower, value))
        elif fate is not strip:
            if fate not in read:
                read[fate] = value
            elif fate in _MAY_REPEAT:
                read[fate] += b"," + value
            elif fate is Fate.EXPECT:
                raise _expectation()
            else:
                raise malformed(_TWICE[fate])
    return fields, read


def _read_host(value: bytes | None, target: Target) -> bytes:
    if value is None:
        raise malformed("the request has no Host field")
    host = canonical_host(value)
    if target.authority is not None and canonical_host(target.authority) != host:
        raise malformed("the request target and the Host field name different hosts")
    return host


def _read_framing(length: bytes | None, coding: bytes | None, is_http10: bool) -> Framing:
    if coding is not None:
        if length is not None or is_http10:
            raise malformed("the end of the body is ambiguous")
        if coding.lower() != b"chunked":
            raise unknown_coding()
        return CHUNKED
    if length is None:
        return NO_BODY
    if _LENGTH.fullmatch(length) is None or (size := int(length)) >= 1 << 63:
        raise malformed("Content-Length is not a plain decimal number")
    return Framing(length=size) if size else NO_BODY


def _read_expect(value: bytes, framing: Framing, is_http10: bool) -> bool:
    if value.lower() != b"100-continue":
        raise _expectation()
    return framing is not NO_BODY and not is_http10  # RFC 9110 10.1.1: HTTP/1.0 cannot mean it


def _expectation() -> MessageError:
    return MessageError(417, Reason.EXPECTATION, "the only expectation that can be met is 100-continue")


def _read_purpose(value: bytes) -> str:
    if _PURPOSE.fullmatch(value) is None:
        raise malformed("Call-Purpose is not one purpose: 1 to 128 visible ASCII characters without a comma")
    return value.decode("ascii")


def _check_upgrade_with_body(upgrade: bytes) -> None:
    """Refuses an upgrade with a body, where two servers may disagree about whether the body is one (F3).

    ``h2c`` is let pass: Java's HTTP client asks for it with every request, a body follows as HTTP/1.1 if it is not
    granted (RFC 7540 3.2), and it is never granted here.
    """
    if upgrade.lower() != b"h2c":
        raise malformed("a request that asks for an upgrade must not have a body")
