"""The upstream's request head, written from the canonical request. Pure.

What the caller sent has been stripped of everything the sidecar owns by now; ours is set here, last (R3).
"""

from __future__ import annotations

from typing import Final

from sidecar.proxy.request import Request
from sidecar.proxy.xfcc import build_xfcc

__all__ = ["build_xfcc", "write_request_head"]

# RFC 9110 8.6: methods that expect content say so when there is none.
_SAYS_EMPTY: Final = frozenset(["POST", "PUT", "PATCH"])
_join_field = b": ".join


def write_request_head(request: Request, xfcc: bytes, request_id: str, traceparent: str) -> bytes:
    """The whole head with the empty line; a body follows as ``request.framing`` says. About 1.5 us."""
    framing = request.framing
    if framing.chunked:
        end = b"\r\ntransfer-encoding: chunked\r\n\r\n"
    elif framing.length:
        end = b"\r\ncontent-length: %d\r\n\r\n" % framing.length
    elif request.method in _SAYS_EMPTY:
        end = b"\r\ncontent-length: 0\r\n\r\n"
    else:
        end = b"\r\n\r\n"
    if request.tracestate is not None:
        end = b"\r\ntracestate: " + request.tracestate + end
    return b"".join(
        (
            request.method.encode("ascii"),
            b" ",
            request.target.wire,
            b" HTTP/1.1\r\nhost: ",
            b"\r\n".join([request.host, *map(_join_field, request.fields)]),
            b"\r\nx-forwarded-client-cert: ",
            xfcc,
            b"\r\nx-request-id: ",
            request_id.encode("ascii"),
            b"\r\ntraceparent: ",
            traceparent.encode("ascii"),
            end,
        )
    )
