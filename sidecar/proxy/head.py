"""The head of a message: gathering its bytes under limits, and its fields as llhttp reads them. Pure.

llhttp decides what is a header field. It is fed exactly the bytes of one head, through a parser that is used
once: what it does with bodies and upgrades (it ends an upgrade with an empty body and takes the body for the
next request) never comes to bear. It has no limits of its own; they are here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

import httptools

from sidecar.authz.reasons import Reason
from sidecar.proxy.errors import MessageError, malformed, too_large
from sidecar.proxy.fields import Fate, Field

FIELD_OVERHEAD_BYTES: Final = 32
"""Added to the size of the header block for each field, as HPACK counts: a small one costs memory too."""

# What a method may be before policy says what it may do: RFC 9110 and 5789, WebDAV (4918, 3253, 3744, 5323),
# RFC 9110's QUERY. A closed set, because it labels metrics. CONNECT and TRACE are known and never served.
METHODS: Final = {
    name.encode(): name
    for name in (
        *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"),
        *("COPY", "LOCK", "MKCOL", "MOVE", "PROPFIND", "PROPPATCH", "UNLOCK", "REPORT", "ACL", "SEARCH"),
    )
}
NEVER_SERVED: Final = frozenset([b"CONNECT", b"TRACE"])

_VERSIONS: Final = {b"HTTP/1.1": False, b"HTTP/1.0": True}
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
_PREFACE: Final = b"PRI * HTTP/2.0"
_CODING = re.compile(rb"[a-z][a-z0-9.-]*")


Parser = httptools.HttpRequestParser | httptools.HttpResponseParser

_END: Final = b"\r\n\r\n"
_STRAY = re.compile(rb"(?<!\r)\n|\r(?=[^\n])")


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """Limits of a head: bytes of its first line, bytes of its header block, number of its fields.

    A head of ``small_bytes`` or less can break none of them but the number of fields.
    """

    line_bytes: int
    header_bytes: int
    fields: int
    small_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        small = min(self.line_bytes, self.header_bytes - FIELD_OVERHEAD_BYTES * self.fields)
        object.__setattr__(self, "small_bytes", small)


class HeadBuffer:
    """Gathers the bytes of one request head, in any slicing; after :meth:`take_rest` those of the next.

    A subclass for other heads says what is wrong with one that is not complete yet.
    """

    __slots__ = ("_held", "_limits", "_rest")

    def __init__(self, limits: HeadLimits) -> None:
        self._limits = limits
        self._held = bytearray()
        self._rest = b""

    @property
    def is_empty(self) -> bool:
        """Whether no byte of a head that is not complete yet is held."""
        return not self._held

    def feed(self, data: bytes) -> bytes | None:
        """The head, with the empty line that ends it, once it is complete.

        Raises :class:`~sidecar.proxy.errors.MessageError` as soon as an incomplete head breaks a limit (414,
        431) or can no longer become a good one (400, 501, 505); a complete one is judged by
        ``parse_request``. About 0.5 us for a head in one piece.
        """
        if not self._held:
            end = data.find(_END)
            if end >= 0:
                self._rest = data[end + 4 :]
                return data[: end + 4]
        seen = max(0, len(self._held) - 3)
        self._held += data
        end = self._held.find(_END, seen)
        if end < 0:
            self._check_unfinished(self._held, seen)
            return None
        head, self._rest = bytes(self._held[: end + 4]), bytes(self._held[end + 4 :])
        self._held.clear()
        return head

    def take_rest(self) -> bytes:
        """What followed the head that :meth:`feed` gave; to be taken before the next head is fed."""
        rest, self._rest = self._rest, b""
        return rest

    def _check_unfinished(self, held: bytearray, seen: int) -> None:
        if has_stray_line_end(held, seen):
            raise malformed("a line of the head does not end in CRLF")
        line = held.find(b"\r\n")
        if line >= seen:
            parse_request_line(bytes(held[:line]))
        check_size(held, line, self._limits, complete=False)


def has_stray_line_end(held: bytearray, seen: int) -> bool:
    """Whether a CR or LF stands alone after the first ``seen`` bytes; a CR at the very end may still get its LF."""
    return _STRAY.search(held, max(0, seen - 1)) is not None


def check_size(head: bytes | bytearray, line: int, limits: HeadLimits, *, complete: bool) -> None:
    """Raises 414 or 431 if the head, whose first line has ``line`` bytes (-1: not known yet), breaks a limit.

    ``complete`` says whether the empty line that ends a head is there.
    """
    if (len(head) if line < 0 else line) > limits.line_bytes:
        raise too_large(414, "the request line is too long", "request_line")
    if line < 0:
        return
    fields = head.count(b"\n") - (2 if complete else 1)
    if fields > limits.fields:
        raise too_large(431, "the request has too many header fields", "header_fields")
    block = len(head) - line - (4 if complete else 2)
    if block + FIELD_OVERHEAD_BYTES * fields > limits.header_bytes:
        raise too_large(431, "the header block is too large", "header_bytes")


def parse_request_line(line: bytes) -> tuple[str, bytes, bool]:
    """(method, target as received, whether it is HTTP/1.0) of a request line with exactly two spaces.

    Raises :class:`~sidecar.proxy.errors.MessageError`: 405 for CONNECT and TRACE, 501 for a method that
    nobody here knows, 505 for another version, 400 for all else. Among it an empty line before the request
    line: RFC 9112 2.2 lets a server skip one for the sake of old browsers that send it after a POST. None of
    those comes here, and what follows a message unasked is refused (A39).
    """
    parts = line.split(b" ")
    if len(parts) != 3 or line == _PREFACE:
        raise malformed("the request line is not a method, a target and a version")
    name, target, version = parts
    is_http10 = _VERSIONS.get(version)
    if is_http10 is None:
        if _VERSION.fullmatch(version) is None:
            raise malformed("the request line is not a method, a target and a version")
        raise MessageError(505, Reason.MALFORMED, "only HTTP/1.1 and HTTP/1.0 are served here")
    method = METHODS.get(name)
    if method is None:
        if name in NEVER_SERVED:
            raise MessageError(405, Reason.METHOD, "CONNECT and TRACE are never served")
        if _TOKEN.fullmatch(name) is None:
            raise malformed("the request line is not a method, a target and a version")
        raise MessageError(501, Reason.METHOD, "the method is not one that is served here")
    return method, target, is_http10


def unknown_coding() -> MessageError:
    """501: a transfer coding other than chunked."""
    return MessageError(501, Reason.MALFORMED, "the only transfer coding taken is chunked")


class ReceivedFields:
    """What llhttp reports of one head: fields to forward, in their order, and the others with their fates.

    A subclass for each kind of head has ``on_header``, which llhttp calls for each field and which must not
    raise: llhttp may still find the head bad after that. Values are without white space around them.
    """

    __slots__ = ("forward", "is_complete", "others")
    on_message_begin = on_url = on_status = on_body = on_message_complete = None
    on_chunk_header = on_chunk_complete = None

    def __init__(self) -> None:
        self.forward: list[Field] = []
        self.others: list[tuple[Fate, bytes]] = []
        self.is_complete = False

    def on_headers_complete(self) -> None:
        self.is_complete = True


def read_fields(head: bytes, parser: type[Parser], received: ReceivedFields) -> None:
    """Puts the fields of a whole head into ``received``, about 3 us for ten.

    Raises :class:`~sidecar.proxy.errors.MessageError` (400, or 501 for a transfer coding that nobody here
    knows).
    """
    try:
        parser(received).feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # the fields are complete; whether there is an upgrade is ours to say
    except httptools.HttpParserError as error:
        raise _refusal(received) from error
    if not received.is_complete:
        raise malformed("the head is not a complete HTTP/1.1 head")


def _refusal(received: ReceivedFields) -> MessageError:
    """501 if one unknown transfer coding is what llhttp did not like, as far as can be told; else 400."""
    fates = [fate for fate, _ in received.others]
    if fates.count(Fate.TRANSFER_ENCODING) == 1 and Fate.CONTENT_LENGTH not in fates:
        coding = received.others[fates.index(Fate.TRANSFER_ENCODING)][1].lower()
        if coding != b"chunked" and _CODING.fullmatch(coding) is not None:
            return unknown_coding()
    return malformed("the head is not HTTP/1.1 as RFC 9112 has it")
