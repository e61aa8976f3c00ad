"""What becomes of each header field: forwarded, stripped, or read by the sidecar itself. Pure.

Names are compared after folding case and ``_``, ``-``, ``.``, because application servers fold them too (CGI, WSGI,
PHP): ``X_Forwarded.Client-Cert`` reaches the application as the same variable as ours. A name that folds to one that
the sidecar owns, or to a framing or hop-by-hop name, without being spelled exactly so, is stripped.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import IntEnum
from typing import Final

from sidecar.proxy.errors import malformed

Field = tuple[bytes, bytes]
"""One header field: lower-case name, value without surrounding white space."""


class Fate(IntEnum):
    """What becomes of a field. ``FORWARD`` and ``STRIP`` are the common ones; the rest are read by name."""

    FORWARD = 0
    STRIP = 1
    HOST = 2
    CONTENT_LENGTH = 3
    TRANSFER_ENCODING = 4
    CONNECTION = 5
    EXPECT = 6
    PURPOSE = 7
    TASK = 8
    TRACEPARENT = 9
    TRACESTATE = 10


_FOLD: Final = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ_.", b"abcdefghijklmnopqrstuvwxyz--")

# Read in exactly this spelling (any case); stripped in every other.
_READ: Final = {
    b"host": Fate.HOST,
    b"content-length": Fate.CONTENT_LENGTH,
    b"transfer-encoding": Fate.TRANSFER_ENCODING,
    b"connection": Fate.CONNECTION,
    b"expect": Fate.EXPECT,
    b"call-purpose": Fate.PURPOSE,
    b"txn-token": Fate.TASK,
    b"traceparent": Fate.TRACEPARENT,
    b"tracestate": Fate.TRACESTATE,
}

_HOP_BY_HOP: Final = frozenset(
    [b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer"]
    + [b"trailers", b"upgrade", b"http2-settings"]
)
# Names that an application may believe to speak of the caller or of the request, and that only a proxy may set.
_SPOOFABLE: Final = frozenset(
    [b"x-request-id", b"forwarded", b"x-real-ip", b"client-cert", b"client-cert-chain", b"proxy"]
    + [b"x-original-url", b"x-rewrite-url", b"x-http-method", b"x-http-method-override", b"x-method-override"]
    + [b"remote-user", b"x-remote-user", b"x-client-cert", b"x-client-dn", b"x-ssl-cert", b"x-original-method"]
    + [b"true-client-ip", b"x-client-ip", b"x-cluster-client-ip", b"x-original-uri", b"x-original-host", b"x-host"]
)
_SPOOFABLE_PREFIXES: Final = (
    *(b"sidecar-", b"x-sidecar-", b"x-forwarded-", b"x-envoy-", b"l5d-", b"x-auth-request-", b"x-pomerium-"),
    *(b"ssl-client-", b"x-ssl-client-", b"x-amzn-mtls-"),
)
# What an upstream's answer may not carry to the caller, hop-by-hop and framing names aside.
_OWN_IN_ANSWERS: Final = frozenset([b"x-request-id", b"traceparent", b"tracestate", b"call-purpose", b"txn-token"])
_OWN_PREFIXES_IN_ANSWERS: Final = (b"sidecar-", b"x-sidecar-", b"x-forwarded-client-cert")

# A Connection header may not nominate these: their removal would change what was judged, or who is believed to call.
_NOT_NOMINABLE: Final = frozenset([*_READ, b"trailer"]) - {b"connection"}

_MAX_MEMO: Final = 4096
_MAX_MEMO_NAME_BYTES: Final = 64
MAX_NAME_BYTES: Final = 256

_request_memo: dict[bytes, tuple[bytes, Fate]] = {}
_answer_memo: dict[bytes, tuple[bytes, Fate]] = {}

_HOST = re.compile(
    rb"(?P<name>[A-Za-z0-9_~!$&'()*+=-](?:[A-Za-z0-9._~!$&'()*+=-]*)|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?"
)
_DEFAULT_PORT: Final = 443


def fold_name(name: bytes) -> bytes:
    """``name`` in lower case with ``_`` and ``.`` as ``-``: equal for names that an application may take as one."""
    return name.translate(_FOLD)


def is_spoofable(folded: bytes) -> bool:
    """Whether a caller's field of this folded name could be believed to be a proxy's."""
    return folded in _SPOOFABLE or folded.startswith(_SPOOFABLE_PREFIXES)


def request_fate(name: bytes) -> tuple[bytes, Fate]:
    """(lower-case name, fate) of a request field as received; remembered, since names repeat."""
    known = _request_memo.get(name)
    if known is None:
        known = _classify(name, is_spoofable)
        if len(name) <= _MAX_MEMO_NAME_BYTES and len(_request_memo) < _MAX_MEMO:
            _request_memo[name] = known
    return known


def answer_fate(name: bytes) -> tuple[bytes, Fate]:
    """(lower-case name, fate) of a field of an upstream's answer; only framing, FORWARD and STRIP matter there."""
    known = _answer_memo.get(name)
    if known is None:
        known = _classify(name, _is_own_in_answers)
        if len(name) <= _MAX_MEMO_NAME_BYTES and len(_answer_memo) < _MAX_MEMO:
            _answer_memo[name] = known
    return known


def _is_own_in_answers(folded: bytes) -> bool:
    return folded in _OWN_IN_ANSWERS or folded.startswith(_OWN_PREFIXES_IN_ANSWERS)


def _classify(name: bytes, is_ours: Callable[[bytes], bool]) -> tuple[bytes, Fate]:
    lower = name.lower()
    folded = fold_name(name)
    if lower in _READ:
        return lower, _READ[lower]
    if folded in _READ or folded in _HOP_BY_HOP or is_ours(folded):
        return lower, Fate.STRIP
    return lower, Fate.FORWARD


def parse_connection(values: list[bytes]) -> tuple[bool, frozenset[bytes]]:
    """(whether ``close`` is asked for, the folded names to strip) of all Connection fields (RFC 9110 7.6.1).

    Raises 400 when a field is nominated whose removal would change framing, target or identity.
    """
    close = False
    nominated: set[bytes] = set()
    for value in values:
        for token in value.lower().split(b","):
            token = token.strip(b" \t")
            if token == b"close":
                close = True
            elif token and token != b"keep-alive":
                folded = fold_name(token)
                if folded in _NOT_NOMINABLE or is_spoofable(folded):
                    raise malformed("a Connection field nominates a name that may not be removed")
                nominated.add(folded)
    return close, frozenset(nominated)


def canonical_host(value: bytes) -> bytes:
    """Host in lower case, without one trailing dot and without the port 443; anything but ``name[:port]`` is 400."""
    found = _HOST.fullmatch(value)
    if found is None:
        raise malformed("the Host field is not a host name with an optional port")
    name = found["name"].lower()
    if name.endswith(b"."):
        name = name[:-1]
    if not name or b".." in name:
        raise malformed("the Host field is not a host name with an optional port")
    if found["port"] is None:
        return name
    port = int(found["port"])
    if not 0 < port < 65536:
        raise malformed("the port of the Host field is out of range")
    return name if port == _DEFAULT_PORT else b"%b:%d" % (name, port)
