"""What becomes of each header field: forwarded, stripped, or read by the sidecar itself. Pure.

Names are compared after folding case and all punctuation, because application servers fold them too (CGI,
WSGI, PHP): ``X_Forwarded.Client-Cert`` reaches the application as the same variable as ours. A name that
folds to one that the sidecar owns, or to a framing or hop-by-hop name, without being spelled exactly so, is
stripped.
"""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache
from ipaddress import IPv6Address
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
    UPGRADE = 11
    TOO_LONG = 12


# DESIGN's rule folds case, "_" and "."; the other marks that a name may hold go with them, because old CGI
# gateways turn every one of them into "_". Folding more only strips more.
_MARKS: Final = b"!#$%&'*+.^_`|~"
_FOLD: Final = bytes.maketrans(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZ" + _MARKS, b"abcdefghijklmnopqrstuvwxyz" + b"-" * len(_MARKS)
)

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
    b"upgrade": Fate.UPGRADE,
}
_READ_IN_ANSWERS: Final = frozenset([b"content-length", b"transfer-encoding", b"connection"])

# fmt: off
_HOP_BY_HOP: Final = frozenset([
    b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer",
    b"trailers", b"http2-settings",
])
# Names that an application may believe to speak of the caller or of the request, and that only a proxy may
# set.
_SPOOFABLE: Final = frozenset([
    b"x-request-id", b"forwarded", b"x-forwarded", b"x-real-ip", b"client-cert", b"client-cert-chain",
    b"proxy", b"x-original-url", b"x-original-uri", b"x-original-host", b"x-original-method",
    b"x-rewrite-url", b"x-host", b"x-http-method", b"x-http-method-override", b"x-method-override",
    b"-method", b"remote-user", b"x-client-cert", b"x-client-dn", b"x-ssl-cert", b"true-client-ip",
    b"x-client-ip", b"x-cluster-client-ip",
])
# fmt: on
_SPOOFABLE_PREFIXES: Final = (
    *(b"sidecar-", b"x-sidecar-", b"x-forwarded-", b"x-envoy-", b"l5d-", b"x-auth-request-", b"x-pomerium-"),
    *(b"ssl-client-", b"x-ssl-client-", b"x-amzn-mtls-", b"x-remote-", b"x-spiffe-"),
)
# What an upstream's answer may not carry to the caller, hop-by-hop and framing names aside.
_OWN_IN_ANSWERS: Final = frozenset([b"x-request-id"])
_OWN_PREFIXES_IN_ANSWERS: Final = (b"sidecar-", b"x-sidecar-", b"x-forwarded-client-cert")

# A Connection header may not nominate these: their removal would change what was judged, or who is believed
# to call.
_NOT_NOMINABLE: Final = frozenset(_READ) - {b"connection", b"upgrade"}

MAX_NAME_BYTES: Final = 256
MAX_HOST_BYTES: Final = 262
_MEMO: Final = 2048
_NAMED = {b"keep-alive": (False, frozenset[bytes]()), b"close": (True, frozenset[bytes]())}

Memo = dict[bytes, tuple[bytes, Fate]]
request_memo: Final[Memo] = {}
answer_memo: Final[Memo] = {}

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HOST = re.compile(
    rb"(?P<name>[A-Za-z0-9_~!$&'()*+=-][A-Za-z0-9._~!$&'()*+=-]*|\[(?P<v6>[0-9A-Fa-f:.]{2,45})\])"
    rb"(?::(?P<port>[0-9]{1,5}))?"
)
_DEFAULT_PORT: Final = 443


def fold_name(name: bytes) -> bytes:
    """``name`` in lower case, every mark as ``-``: equal for names that an application may take as one."""
    return name.translate(_FOLD)


def is_spoofable(folded: bytes) -> bool:
    """Whether a caller's field of this folded name could be believed to be a proxy's."""
    return folded in _SPOOFABLE or folded.startswith(_SPOOFABLE_PREFIXES)


def is_framing(folded: bytes) -> bool:
    """Whether a field of this folded name would say where a message ends or whom it is for."""
    return folded in (b"content-length", b"transfer-encoding", b"host")


def request_fate(name: bytes) -> tuple[bytes, Fate]:
    """(lower-case name, fate) of a request field as received; never raises. Kept in :data:`request_memo`."""
    lower, folded = name.lower(), fold_name(name)
    fate = Fate.FORWARD
    if len(name) > MAX_NAME_BYTES:
        return lower, Fate.TOO_LONG
    if lower in _READ:
        fate = _READ[lower]
    elif folded in _READ or folded in _HOP_BY_HOP or is_spoofable(folded):
        fate = Fate.STRIP
    return _remember(request_memo, name, (lower, fate))


def answer_fate(name: bytes) -> tuple[bytes, Fate]:
    """(lower-case name, fate) of a field of an upstream's answer; never raises. Kept in :data:`answer_memo`.

    The fate is one of FORWARD, STRIP, TOO_LONG, CONNECTION and the two of framing.
    """
    lower, folded = name.lower(), fold_name(name)
    fate = Fate.FORWARD
    if len(name) > MAX_NAME_BYTES:
        return lower, Fate.TOO_LONG
    if lower in _READ_IN_ANSWERS:
        fate = _READ[lower]
    elif folded in _READ or folded in _HOP_BY_HOP or _is_own_in_answers(folded):
        fate = Fate.STRIP
    return _remember(answer_memo, name, (lower, fate))


def _is_own_in_answers(folded: bytes) -> bool:
    return folded in _OWN_IN_ANSWERS or folded.startswith(_OWN_PREFIXES_IN_ANSWERS)


def _remember(memo: Memo, name: bytes, fate: tuple[bytes, Fate]) -> tuple[bytes, Fate]:
    # A dict that begins anew when it is full: a look-up in it costs a third of one in an LRU cache, and all
    # that a caller can win by filling it is that names are classified again, 2 us each.
    if len(memo) >= _MEMO:
        memo.clear()
    memo[name] = fate
    return fate


def parse_connection(value: bytes) -> tuple[bool, frozenset[bytes]]:
    """(whether ``close`` is asked for, the folded names to strip) of all Connection fields, joined by commas.

    RFC 9110 7.6.1. Raises 400 for what is no list of tokens, and when a field is nominated whose removal
    would change framing, target or identity.
    """
    known = _NAMED.get(value)
    if known is not None:
        return known
    close = False
    nominated: set[bytes] = set()
    for part in value.lower().split(b","):
        token = part.strip(b" \t")
        if token == b"close":
            close = True
        elif token and token != b"keep-alive":
            if _TOKEN.fullmatch(token) is None:
                raise malformed("a Connection field is not a list of names")
            folded = fold_name(token)
            if folded in _NOT_NOMINABLE or is_spoofable(folded):
                raise malformed("a Connection field nominates a name that may not be removed")
            nominated.add(folded)
    return close, frozenset(nominated)


@lru_cache(maxsize=_MEMO)
def canonical_host(value: bytes) -> bytes:
    """Host in lower case, without one trailing dot and the port 443; 400 for all but ``name[:port]``."""
    found = _HOST.fullmatch(value) if len(value) <= MAX_HOST_BYTES else None
    if found is None:
        raise malformed("the Host field is not a host name with an optional port")
    if found["v6"] is not None:
        name = _canonical_v6(found["v6"])
    else:
        name = found["name"].lower().removesuffix(b".")
        if name.endswith(b".") or b".." in name:
            raise malformed("the Host field is not a host name with an optional port")
    if found["port"] is None:
        return name
    port = int(found["port"])
    if not 0 < port < 65536:
        raise malformed("the port of the Host field is out of range")
    return name if port == _DEFAULT_PORT else b"%b:%d" % (name, port)


def _canonical_v6(text: bytes) -> bytes:
    try:
        return b"[%b]" % IPv6Address(text.decode("ascii")).compressed.encode("ascii")
    except ValueError:
        raise malformed("the Host field is not a host name with an optional port") from None
