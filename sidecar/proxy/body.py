"""Message bodies: their framing, and a strict incremental decoder for the chunked coding. Pure.

The decoder is ours and not llhttp's because it has to bound what the library does not see: extension bytes
per chunk and per body, size digits and trailers (limits and the incidents behind them: docs/limits.md). It
accepts exactly RFC 9112 section 7.1 with CRLF line ends.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from sidecar.proxy.errors import malformed, too_large
from sidecar.proxy.fields import fold_name, is_framing

MAX_CHUNK_SIZE_DIGITS: Final = 16
MAX_CHUNK_EXTENSION_BYTES: Final = 256
MAX_BODY_EXTENSION_BYTES: Final = 8 * 1024
MAX_TRAILER_BYTES: Final = 8 * 1024
MAX_TRAILER_FIELDS: Final = 32
_MAX_SIZE_LINE_BYTES: Final = MAX_CHUNK_SIZE_DIGITS + MAX_CHUNK_EXTENSION_BYTES + 2

_LENGTH = re.compile(rb"0|[1-9][0-9]{0,18}")
# RFC 9112 7.1.1 without the white space that it calls bad: llhttp refuses that too.
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e]|\\[\t\x20-\x7e])*"'
_EXTENSION: Final = rb";" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?"
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})((?:" + _EXTENSION + rb")*)")
_PLAIN_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")
_TRAILER_LINE = re.compile(rb"(" + _TOKEN + rb"):[\t\x20-\x7e\x80-\xff]*")


@dataclass(frozen=True, slots=True)
class Framing:
    """How a body ends: after ``length`` bytes, by the last chunk (``chunked``), or, neither, at the close."""

    length: int | None = None
    chunked: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is no body at all."""
        return self.length == 0


NO_BODY: Final = Framing(length=0)
CHUNKED: Final = Framing(chunked=True)
UNTIL_CLOSE: Final = Framing()


@lru_cache(maxsize=1024)
def parse_content_length(value: bytes) -> Framing:
    """The framing that a Content-Length of ``value`` makes; 400 unless that is a plain number below 2^63."""
    if _LENGTH.fullmatch(value) is None or (length := int(value)) >= 1 << 63:
        raise malformed("Content-Length is not a plain decimal number")
    return Framing(length=length) if length else NO_BODY


class LengthDecoder:
    """The body of a message with a Content-Length: counts, and keeps what follows apart."""

    __slots__ = ("_left", "done")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """(body bytes in ``data``, bytes after the body); ``done`` turns true with the last one."""
        if len(data) < self._left:
            self._left -= len(data)
            return data, b""
        body, rest = data[: self._left], data[self._left :]
        self._left = 0
        self.done = True
        return body, rest


class CloseDecoder:
    """The body of an answer that ends with its connection."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """All of ``data`` is body."""
        return data, b""


_SIZE, _DATA, _DATA_END, _TRAILERS = range(4)


class ChunkedDecoder:
    """The chunked coding, fed with any slicing of the bytes; extensions are dropped, trailers too (A33).

    Raises :class:`~sidecar.proxy.errors.MessageError` (400) for every deviation; it must not be fed again
    after that.
    """

    __slots__ = ("_extension_bytes", "_left", "_line", "_state", "_trailer_bytes", "_trailer_fields", "done")

    def __init__(self) -> None:
        self._state = _SIZE
        self._left = 0
        self._line = b""
        self._extension_bytes = 0
        self._trailer_bytes = 0
        self._trailer_fields = 0
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """(decoded body bytes in ``data``, bytes after the body)."""
        out: list[bytes] = []
        position, size = 0, len(data)
        while position < size and not self.done:
            if self._state == _DATA:
                piece = data[position : position + self._left]
                out.append(piece)
                position += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = _DATA_END
                continue
            if self._state == _SIZE and not self._line:
                # A whole chunk at once, if it is all there and plain; one byte a chunk is the dearest body
                # there is.
                found = _PLAIN_SIZE.match(data, position)
                if found is not None and (left := int(found[1], 16)):
                    start = found.end()
                    if data[start + left : start + left + 2] == b"\r\n":
                        out.append(data[start : start + left])
                        position = start + left + 2
                        continue
            line, position = self._take_line(data, position)
            if line is None:
                break
            self._on_line(line)
        body = out[0] if len(out) == 1 else b"".join(out)
        return body, data[position:] if self.done else b""

    def _take_line(self, data: bytes, position: int) -> tuple[bytes | None, int]:
        end = data.find(b"\n", position)
        taken = data[position:] if end < 0 else data[position : end + 1]
        line = self._line + taken if self._line else taken
        if end < 0:
            self._check_unfinished(line)
            self._line = line
            return None, len(data)
        self._line = b""
        if not line.endswith(b"\r\n"):
            raise malformed("a line of the chunked body does not end in CRLF")
        return line[:-2], end + 1

    def _check_unfinished(self, line: bytes) -> None:
        if self._state == _SIZE and len(line) > _MAX_SIZE_LINE_BYTES:
            raise too_large(400, "a chunk's size and extensions are too long", "chunk_extension_bytes")
        if self._state == _DATA_END and line != b"\r":
            raise malformed("chunk data is longer than its size")
        if self._state == _TRAILERS and len(line) + self._trailer_bytes > MAX_TRAILER_BYTES:
            raise too_large(400, "the trailers are too long", "trailer_bytes")

    def _on_line(self, line: bytes) -> None:
        if self._state == _SIZE:
            self._on_size(line)
        elif self._state == _DATA_END:
            if line:
                raise malformed("chunk data is longer than its size")
            self._state = _SIZE
        elif line:
            self._on_trailer(line)
        else:
            self.done = True

    def _on_size(self, line: bytes) -> None:
        found = _SIZE_LINE.fullmatch(line)
        if found is None:
            raise malformed("a chunk size is not a plain hexadecimal number")
        extension = len(found[2])
        self._extension_bytes += extension
        if extension > MAX_CHUNK_EXTENSION_BYTES or self._extension_bytes > MAX_BODY_EXTENSION_BYTES:
            raise too_large(400, "chunk extensions are too long", "chunk_extension_bytes")
        size = int(found[1], 16)
        if size >= 1 << 63:
            raise malformed("a chunk size is out of range")
        self._left = size
        self._state = _DATA if size else _TRAILERS

    def _on_trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line) + 2
        self._trailer_fields += 1
        if self._trailer_bytes > MAX_TRAILER_BYTES:
            raise too_large(400, "the trailers are too long", "trailer_bytes")
        if self._trailer_fields > MAX_TRAILER_FIELDS:
            raise too_large(400, "there are too many trailers", "trailer_fields")
        found = _TRAILER_LINE.fullmatch(line)
        if found is None:
            raise malformed("a trailer is not a header field")
        if is_framing(fold_name(found[1])):
            raise malformed("a trailer says where the message ends or whom it is for")


Decoder = LengthDecoder | ChunkedDecoder | CloseDecoder


def build_decoder(framing: Framing) -> Decoder:
    """The decoder for a body framed so."""
    if framing.chunked:
        return ChunkedDecoder()
    if framing.length is not None:
        return LengthDecoder(framing.length)
    return CloseDecoder()


def encode_chunk(data: bytes) -> bytes:
    """``data`` (not empty) as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK: Final = b"0\r\n\r\n"
