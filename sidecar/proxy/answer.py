"""The upstream's answer head: read as strictly as a request, and written anew for the caller. Pure.

The service behind the sidecar is not trusted with the connection (R6): an answer that could be read in two
ways is a 502, and what it says of hop-by-hop matters, of framing or in the sidecar's own names never reaches
the caller.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from httptools import HttpResponseParser

from sidecar.proxy.body import CHUNKED, NO_BODY, UNTIL_CLOSE, Framing, parse_content_length
from sidecar.proxy.errors import MessageError, UpstreamError, upstream_invalid
from sidecar.proxy.fields import Fate, Field, answer_fate, answer_memo, fold_name, parse_connection
from sidecar.proxy.head import HeadBuffer, HeadLimits, ReceivedFields, has_stray_line_end, read_fields

MAX_ANSWER_HEAD_BYTES: Final = 64 * 1024
MAX_ANSWER_FIELDS: Final = 100

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_join_field = b": ".join

_known = answer_memo.get
_FORWARD: Final = Fate.FORWARD
_STRIP: Final = Fate.STRIP
_CONTENT_LENGTH: Final = Fate.CONTENT_LENGTH
_TRANSFER_ENCODING: Final = Fate.TRANSFER_ENCODING
_CONNECTION: Final = Fate.CONNECTION
_TOO_LONG: Final = Fate.TOO_LONG
_KEEP: Final = (False, frozenset[bytes]())


@dataclass(slots=True)
class Answer:
    """What an upstream answered.

    ``fields`` are those that go to the caller. ``framing`` says how the upstream's body ends; ``told_length``
    is the Content-Length that the caller is told, None for none (a HEAD answer tells one and has no body).
    ``close``: the upstream's connection may not be used again. A ``status`` below 200 is an interim answer,
    others follow.
    """

    status: int
    phrase: bytes
    fields: list[Field]
    framing: Framing
    told_length: int | None
    close: bool


class AnswerBuffer(HeadBuffer):
    """Gathers the bytes of one answer head, in any slicing; after ``take_rest`` those of the next."""

    __slots__ = ("_limit_bytes",)

    def __init__(self, limit_bytes: int = MAX_ANSWER_HEAD_BYTES) -> None:
        super().__init__(HeadLimits(limit_bytes, limit_bytes, MAX_ANSWER_FIELDS))
        self._limit_bytes = limit_bytes

    def feed(self, data: bytes) -> bytes | None:
        """The head, with the empty line that ends it, once it is complete.

        Raises :class:`~sidecar.proxy.errors.UpstreamError` (502) if it gets too long or cannot become a good one.
        """
        head = super().feed(data)
        if head is not None and len(head) > self._limit_bytes:
            raise _too_long()
        return head

    def _check_unfinished(self, held: bytearray, seen: int) -> None:
        if len(held) > self._limit_bytes:
            raise _too_long()
        if has_stray_line_end(held, seen):
            raise upstream_invalid("a line of the service's answer does not end in CRLF")


def _too_long() -> UpstreamError:
    return upstream_invalid("the head of the service's answer is too long", "answer_head_bytes")


def parse_answer(head: bytes, method: str) -> Answer:
    """The answer to a ``method`` request that a whole head makes.

    Raises :class:`~sidecar.proxy.errors.UpstreamError` (502) for whatever has no single meaning, and for a
    101, since no upgrade is ever asked for. About 4.5 us for eight fields.
    """
    line = head.find(b"\r\n")
    found = _STATUS_LINE.fullmatch(head, 0, line)
    if found is None:
        raise upstream_invalid("the service's answer does not begin with a status line")
    status = int(found[2])
    if status == 101:
        raise upstream_invalid("the service switched protocols, which nobody asked for")
    try:
        received = _AnswerFields()
        read_fields(head, HttpResponseParser, received)
        read = _gather(received.others)
        connection = read.get(_CONNECTION)
        close, nominated = _KEEP if connection is None else parse_connection(connection)
        is_http10 = found[1] == b"0"
        framing = _read_framing(read.get(_CONTENT_LENGTH), read.get(_TRANSFER_ENCODING), is_http10)
    except MessageError as error:
        raise upstream_invalid("the head of the service's answer is not HTTP/1.1") from error
    fields = received.forward
    if len(fields) + len(received.others) > MAX_ANSWER_FIELDS:
        raise upstream_invalid("the service's answer has too many header fields", "answer_header_fields")
    if nominated:
        fields = [field for field in fields if fold_name(field[0]) not in nominated]
    told = framing.length
    if status < 200 or status == 204 or status == 304:
        # A 204 or an interim answer with a body is no HTTP: what follows must not be read as the next answer.
        close = close or (status != 304 and framing is not UNTIL_CLOSE and framing is not NO_BODY)
        framing, told = NO_BODY, None
    elif method == "HEAD":
        framing = NO_BODY
    if framing is UNTIL_CLOSE or is_http10:
        close = True
    return Answer(status, found[3] or b"", fields, framing, told, close)


def write_answer_head(answer: Answer, request_id: str, close: bool, *, is_http10: bool = False) -> bytes:
    """The head for the caller. ``close`` announces the connection's end.

    The body goes as the upstream's does, but in chunks where that only knows to close. A caller with HTTP/1.0 does not
    know chunks: for it such a body, and the upstream's chunks, end with the connection.
    """
    end = b"\r\n\r\n"
    if close or is_http10:
        end = b"\r\nconnection: close\r\n\r\n"
    if answer.status < 200:
        end = b"\r\n\r\n"
    elif answer.told_length is not None:
        end = b"\r\ncontent-length: %d%b" % (answer.told_length, end)
    elif answer.framing is not NO_BODY and not is_http10:
        end = b"\r\ntransfer-encoding: chunked" + end
    return b"".join(
        (
            b"HTTP/1.1 %d %b\r\n" % (answer.status, answer.phrase),
            b"\r\n".join([*map(_join_field, answer.fields), b"x-request-id: "]),
            request_id.encode("ascii"),
            end,
        )
    )


class _AnswerFields(ReceivedFields):
    __slots__ = ()

    def on_header(self, name: bytes, value: bytes) -> None:
        lower, fate = _known(name) or answer_fate(name)
        if fate is _FORWARD:
            self.forward.append((lower, value.rstrip()))
        else:
            self.others.append((fate, value.rstrip()))


def _gather(received: list[tuple[Fate, bytes]]) -> dict[Fate, bytes]:
    """The fields that are read, by fate. Connection may come several times, what frames the answer once."""
    read: dict[Fate, bytes] = {}
    for fate, value in received:
        if fate is _STRIP:
            continue
        if fate not in read:
            read[fate] = value
        elif fate is _CONNECTION:
            read[fate] += b"," + value
        else:
            raise upstream_invalid("the service's answer says twice where it ends")
    if _TOO_LONG in read:
        raise upstream_invalid(
            "the service's answer has a header name that is too long", "answer_header_name"
        )
    return read


def _read_framing(length: bytes | None, coding: bytes | None, is_http10: bool) -> Framing:
    if coding is not None:
        if length is not None or is_http10 or coding.lower() != b"chunked":
            raise upstream_invalid("the end of the service's answer is ambiguous")
        return CHUNKED
    return UNTIL_CLOSE if length is None else parse_content_length(length)
