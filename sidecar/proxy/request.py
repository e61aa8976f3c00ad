"""One request as it is judged, recorded and sent on: what a head says, all ambiguity refused. Pure.

Nothing received is ever passed on. A head gives a :class:`Request` or a refusal, the verdict is about the
request, and :mod:`sidecar.proxy.forward` writes the upstream's bytes from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from httptools import HttpRequestParser

from sidecar.authz.reasons import Reason
from sidecar.proxy.body import CHUNKED, NO_BODY, Framing, parse_content_length
from sidecar.proxy.errors import MessageError, malformed, too_large
from sidecar.proxy.fields import (
    Fate,
    Field,
    canonical_host,
    fold_name,
    parse_connection,
    request_fate,
    request_memo,
)
from sidecar.proxy.head import (
    HeadBuffer,
    HeadLimits,
    ReceivedFields,
    check_size,
    parse_request_line,
    read_fields,
    unknown_coding,
)
from sidecar.proxy.request_id import parse_traceparent, parse_tracestate
from sidecar.proxy.target import Target, parse_target

__all__ = ["HeadBuffer", "HeadLimits", "Request", "parse_request"]

MAX_PURPOSE_BYTES: Final = 128

_PURPOSE = re.compile(rb"[\x21-\x2b\x2d-\x7e](?:[\x20-\x2b\x2d-\x7e]{0,126}[\x21-\x2b\x2d-\x7e])?")

# Bound once: CPython 3.11 takes 0.2 us to look a member up in its enum.
_known = request_memo.get
_FORWARD: Final = Fate.FORWARD
_STRIP: Final = Fate.STRIP
_HOST: Final = Fate.HOST
_CONTENT_LENGTH: Final = Fate.CONTENT_LENGTH
_TRANSFER_ENCODING: Final = Fate.TRANSFER_ENCODING
_CONNECTION: Final = Fate.CONNECTION
_EXPECT: Final = Fate.EXPECT
_CALL_PURPOSE: Final = Fate.PURPOSE
_TRACEPARENT: Final = Fate.TRACEPARENT
_TRACESTATE: Final = Fate.TRACESTATE
_TASK: Final = Fate.TASK
_TOO_LONG: Final = Fate.TOO_LONG
_UPGRADE: Final = Fate.UPGRADE

# INVARIANT: only fields that RFC 9110 defines as lists, and those that a comma makes invalid, may come
# several times.
_MAY_REPEAT: Final = frozenset([Fate.CONNECTION, Fate.UPGRADE, Fate.TRACEPARENT, Fate.TRACESTATE])
_TWICE: Final = {
    Fate.HOST: "the request has more than one Host field",
    Fate.CONTENT_LENGTH: "the request has more than one Content-Length",
    Fate.TRANSFER_ENCODING: "the request has more than one Transfer-Encoding",
    Fate.PURPOSE: "the request has more than one Call-Purpose",
    Fate.TASK: "the request has more than one Txn-Token",
    Fate.TOO_LONG: "header names are too long",
}


@dataclass(slots=True)
class Request:
    """The canonical request. Never changed once it is made.

    ``fields`` are those that go upstream, in their order: neither hop-by-hop nor framing fields, nor any that
    the sidecar reads or owns. ``host`` is canonical. ``close``: this connection ends after the answer.
    ``expects_continue``: the caller waits for ``100 Continue`` before it sends the body. ``purpose`` is the
    declared one. ``trace`` is (trace id, flags) of the one valid ``traceparent``, and only with it there may
    be a ``tracestate``. ``upgrade`` is what the caller would like to speak; it is not forwarded and the
    request is served as HTTP/1.1.
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

    Raises :class:`~sidecar.proxy.errors.MessageError` for whatever has no single meaning; the connection must
    close then. About 8 us for ten fields.
    """
    line = head.find(b"\r\n")
    if len(head) > limits.small_bytes:
        check_size(head, line, limits, complete=True)
    method, raw_target, is_http10 = parse_request_line(head[:line])
    received = _RequestFields()
    read_fields(head, HttpRequestParser, received)
    fields = received.forward
    if len(fields) + len(received.others) > limits.fields:
        raise too_large(431, "the request has too many header fields", "header_fields")
    read = _gather(received.others)
    get = read.get
    target = parse_target(raw_target)
    host = _read_host(get(_HOST), target)
    framing = _read_framing(get(_CONTENT_LENGTH), get(_TRANSFER_ENCODING), is_http10)
    close = is_http10
    if (connection := get(_CONNECTION)) is not None:
        asks_close, nominated = parse_connection(connection)
        close = close or asks_close
        if nominated:
            fields = [field for field in fields if fold_name(field[0]) not in nominated]
    if (upgrade := get(_UPGRADE)) is not None and framing is not NO_BODY:
        _check_upgrade_with_body(upgrade)
    expects_continue = (expect := get(_EXPECT)) is not None and _read_expect(expect, framing, is_http10)
    trace = tracestate = None
    if (traceparent := get(_TRACEPARENT)) is not None:
        trace = parse_traceparent(traceparent)
        if trace is not None and (state := get(_TRACESTATE)) is not None:
            tracestate = parse_tracestate(state)
    purpose = None if (declared := get(_CALL_PURPOSE)) is None else _read_purpose(declared)
    has_task = _TASK in read
    return Request(
        method, target, host, fields, framing, close, is_http10, expects_continue, purpose, has_task, trace,
        tracestate, upgrade,
    )  # fmt: skip


class _RequestFields(ReceivedFields):
    __slots__ = ()

    def on_header(self, name: bytes, value: bytes) -> None:
        lower, fate = _known(name) or request_fate(name)
        # llhttp leaves white space at a value's end, and only spaces and tabs can be there.
        if fate is _FORWARD:
            self.forward.append((lower, value.rstrip()))
        else:
            self.others.append((fate, value.rstrip()))


def _gather(received: list[tuple[Fate, bytes]]) -> dict[Fate, bytes]:
    """The fields that are read, by fate; repeated ones are joined by commas if that is sound."""
    read: dict[Fate, bytes] = {}
    for fate, value in received:
        if fate is _STRIP:
            continue
        if fate not in read:
            read[fate] = value
        elif fate in _MAY_REPEAT:
            read[fate] += b"," + value
        elif fate is _EXPECT:
            raise _expectation()
        else:
            raise malformed(_TWICE[fate])
    if _TOO_LONG in read:
        raise too_large(431, "a header name is too long", "header_name")
    return read


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
    return NO_BODY if length is None else parse_content_length(length)


def _read_expect(value: bytes, framing: Framing, is_http10: bool) -> bool:
    if value.lower() != b"100-continue":
        raise _expectation()
    return framing is not NO_BODY and not is_http10  # RFC 9110 10.1.1: HTTP/1.0 cannot mean it


def _expectation() -> MessageError:
    return MessageError(417, Reason.EXPECTATION, "the only expectation that can be met is 100-continue")


@lru_cache(maxsize=1024)
def _read_purpose(value: bytes) -> str:
    if _PURPOSE.fullmatch(value) is None:
        raise malformed("Call-Purpose is not one purpose: 1 to 128 visible ASCII characters without a comma")
    return value.decode("ascii")


def _check_upgrade_with_body(upgrade: bytes) -> None:
    """Refuses an upgrade with a body, where two servers may disagree about whether the body is one (F3).

    ``h2c`` is let pass: Java's HTTP client asks for it with every request, a body follows as HTTP/1.1 if it
    is not granted (RFC 7540 3.2), and it is never granted here.
    """
    if upgrade.lower() != b"h2c":
        raise malformed("a request that asks for an upgrade must not have a body")
