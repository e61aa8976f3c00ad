"""Path patterns and the segments they are compared with; one meaning for policy, grants and tasks. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from sidecar.errors import ConfigurationError

MAX_PATTERN_BYTES: Final = 2048

# A literal segment in canonical form: pchar without ";", escapes in upper-case digits (proxy.target writes them so).
_LITERAL = re.compile(r"(?:[A-Za-z0-9._~!$&'()+,=:@-]|%[0-9A-F]{2})+")
_ESCAPE = re.compile(r"%([0-9A-F]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

Segments = tuple[str, ...]


def split_path(path: str) -> Segments:
    """The segments of a canonical path: ``/a/b`` gives ``a``, ``b``; ``/a/`` gives ``a`` and an empty one."""
    return tuple(path[1:].split("/"))


@dataclass(frozen=True, slots=True)
class PathPattern:
    """A pattern as written, its segments, and whether it ends in ``**``, which is not among the segments."""

    text: str
    segments: Segments
    is_open: bool

    def matches(self, path: Segments) -> bool:
        """Whether the path with these segments is covered."""
        segments = self.segments
        if len(path) < len(segments) or (len(path) > len(segments) and not self.is_open):
            return False
        return all(
            own == other or (own == "*" and other != "") for own, other in zip(segments, path, strict=False)
        )

    def __str__(self) -> str:
        return self.text


def parse_pattern(text: str) -> PathPattern:
    """The pattern ``text``. Raises :class:`ConfigurationError`.

    A segment is a literal, ``*`` (exactly one that is not empty) or, last only, ``**`` (any number, and a trailing
    slash). A literal has to be written as a canonical path would be: what no request can match is a mistake.
    """
    if not text.startswith("/"):
        raise ConfigurationError(f"the path pattern {text!r} must start with /")
    if len(text.encode("utf-8", "surrogatepass")) > MAX_PATTERN_BYTES:
        raise ConfigurationError(f"a path pattern has at most {MAX_PATTERN_BYTES} bytes")
    *front, last = text[1:].split("/")
    is_open = last == "**"
    segments = front if is_open else [*front, last]
    for place, segment in enumerate(segments):
        is_last = place == len(segments) - 1 and not is_open
        _check_segment(text, segment, may_be_empty=is_last)
    return PathPattern(text, tuple(segments), is_open)


def _check_segment(text: str, segment: str, *, may_be_empty: bool) -> None:
    if segment == "*" or (segment == "" and may_be_empty):
        return
    if segment == "":
        raise ConfigurationError(f"the path pattern {text!r} has an empty segment")
    if segment in (".", ".."):
        raise ConfigurationError(f"the path pattern {text!r} has a '.' or '..' segment, which no path has")
    if "*" in segment:
        hint = "'**' may only be the last segment" if segment == "**" else "'*' stands for a whole segment"
        raise ConfigurationError(f"the path pattern {text!r} is not one: {hint}")
    if _LITERAL.fullmatch(segment) is None:
        raise ConfigurationError(
            f"the path pattern {text!r} has the segment {segment!r}, which no canonical path has; "
            "escapes are written with upper-case digits, and ';', '?', '#', spaces and backslashes never match"
        )
    for escape in _ESCAPE.finditer(segment):
        value = int(escape[1], 16)
        if value < 0x20 or value == 0x7F or chr(value) in _UNRESERVED or chr(value) in "/\\":
            raise ConfigurationError(
                f"the path pattern {text!r} has the escape {escape[0]!r}, which no canonical path has"
            )
