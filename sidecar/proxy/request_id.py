"""Request ids and trace context: one id per call, one span per hop.

Ids are ULIDs: 48 bits of milliseconds, then 80 bits of which the upper 60 are random and the last 20 count, so that
making one costs two table look-ups. They name calls; they are not secrets and nothing is granted for knowing one.
"""

from __future__ import annotations

import os
import random
import re

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32, as the ULID text says
_PAIRS = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
_COUNT_BITS = 20

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[\x21-\x7e]*)?")
_TRACESTATE = re.compile(rb"[\x20-\x7e]{1,512}")
_MAX_TRACESTATE_MEMBERS = 32


def encode_base32(value: int, length: int) -> str:
    """``value`` as exactly ``length`` characters of Crockford's base 32, most significant first."""
    out = []
    for _ in range(length):
        out.append(_ALPHABET[value & 31])
        value >>= 5
    return "".join(reversed(out))


class RequestIds:
    """Makes ULIDs; each is unique, those of one millisecond sort in the order in which they were made."""

    __slots__ = ("_count", "_millisecond", "_prefix", "_random", "_random_part", "_time_part")

    def __init__(self, seed: bytes | None = None) -> None:
        self._random = random.Random(seed if seed is not None else os.urandom(32))  # noqa: S311 (ids, not secrets)
        self._millisecond = -1
        self._renew_random()

    def _renew_random(self) -> None:
        self._random_part = encode_base32(self._random.getrandbits(60), 12)
        self._count = 0
        self._millisecond = -1

    def new(self, wall_s: float) -> str:
        """A fresh 26-character ULID for the wall-clock time ``wall_s``."""
        millisecond = int(wall_s * 1000)
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            self._prefix = encode_base32(millisecond, 10) + self._random_part
        count = self._count
        self._count = count + 1
        if count == 1 << _COUNT_BITS:
            self._renew_random()
            return self.new(wall_s)
        return self._prefix + _PAIRS[count >> 10] + _PAIRS[count & 1023]

    def new_trace(self) -> tuple[str, str]:
        """A fresh (trace id, span id), 32 and 16 hex digits, neither all zero."""
        return f"{self._random.getrandbits(128) | 1:032x}", f"{self._random.getrandbits(64) | 1:016x}"

    def new_span(self) -> str:
        """A fresh span id, 16 hex digits, not all zero."""
        return f"{self._random.getrandbits(64) | 1:016x}"


def parse_traceparent(value: bytes) -> tuple[str, str] | None:
    """(trace id, flags) of a valid W3C ``traceparent``, flags masked to the one defined bit; None if it is not valid."""
    found = _TRACEPARENT.fullmatch(value)
    if found is None:
        return None
    version, trace, parent, flags, rest = found.groups()
    if version == b"ff" or (version == b"00" and rest) or not trace.strip(b"0") or not parent.strip(b"0"):
        return None
    return trace.decode(), f"{int(flags, 16) & 1:02x}"


def parse_tracestate(value: bytes) -> bytes | None:
    """``value``, all ``tracestate`` fields joined by commas; None when it is too long, has too many members or no text."""
    if _TRACESTATE.fullmatch(value) is None or value.count(b",") >= _MAX_TRACESTATE_MEMBERS:
        return None
    return value
