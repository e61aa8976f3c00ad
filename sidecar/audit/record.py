"""The audit record: the shape of each line, in the order in which its members are written. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Literal

import msgspec

VERSION = 1
_DEEPEST: Final = 32


class Caller(msgspec.Struct, frozen=True, gc=False):
    """Who called: proven id and certificate serial (hex), how, and what the policy says of it."""

    id: str
    serial: str
    via: Literal["mtls"]
    owner: str | None
    kind: str | None
    source: str
    env: str | None


class Intent(msgspec.Struct, frozen=True, gc=False):
    """What it asked for: canonical path without query, the matched route and scope, the declared purpose."""

    method: str | None
    path: str | None
    route: str | None = None
    scope: str | None = None
    purpose: str | None = None
    task: str | None = None


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What was decided and by what; ``until`` closes the call's time window (RFC 3339, UTC)."""

    effect: Literal["allow", "deny"]
    reason: str
    rule: str | None
    policy: str | None
    grant: str | None = None
    lifted: tuple[str, ...] = ()
    until: str | None = None


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What came of it. ``status`` is None when no answer was begun; sizes are body bytes.

    ``upstream`` is ``ok``, ``none`` (never asked), ``unreachable``, ``invalid``, ``timeout``, ``incomplete`` (the
    caller or the service went away, or the call was cut; ``cut`` then says why).
    """

    status: int | None
    received: int
    sent: int
    duration_us: int
    upstream: str
    cut: str | None = None


Entry = tuple[str, str, float, Caller, Intent, Decision, "Outcome | None", str]
"""A call as the hot path hands it over: ``call`` or ``open``, id, Unix seconds, the four groups, trace."""


class CallLine(msgspec.Struct, frozen=True, gc=False):
    """One line ``call`` or ``open``: the contract's members in the contract's order."""

    v: int
    seq: int
    event: str
    ts: str
    id: str
    caller: Caller
    intent: Intent
    decision: Decision
    outcome: Outcome | None
    trace: str
    prev: str | None


Record = Callable[[str, Mapping[str, object]], None]
"""How an event is recorded: its name and its body. The log's own is :meth:`sidecar.audit.log.AuditLog.record`."""

RESERVED: Final = frozenset(["v", "seq", "event", "ts", "prev"])
"""Members that every line has and that no event's body may bring."""

_EVENT: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_UNSAFE: Final = re.compile("[\x7f-\U0010ffff]")
_SECOND: Final = "%Y-%m-%dT%H:%M:%S"
_LAST_SECOND: Final = 253_402_300_799
_encoder: Final = msgspec.json.Encoder(enc_hook=str)


def encode_call(seq: int, entry: Entry, ts: str, prev: str | None) -> bytes:
    """The call's line without its newline, ASCII. 1.5 us.

    Never raises: text that has no UTF-8 form is shown escaped.
    """
    event, call_id, _, caller, intent, decision, outcome, trace = entry
    line = CallLine(VERSION, seq, event, ts, call_id, caller, intent, decision, outcome, trace, prev)
    try:
        data = _encoder.encode(line)
    except Exception:  # noqa: BLE001 (boundary: a call that has happened gets its line)
        data = _encode_anything(line)
    return data if data.isascii() and b"\x7f" not in data else escape_line(data)


def encode_body(event: str, body: Mapping[str, object]) -> bytes:
    """An event's body as a JSON object, ASCII, to be put into its line by :func:`encode_event`.

    Raises ValueError when the event's name or a member's is not one that a line can have. Values that JSON
    does not know are written as their text.
    """
    if not _EVENT.fullmatch(event):
        raise ValueError(f"{event!r} is no name for an event")
    if not RESERVED.isdisjoint(body):
        raise ValueError(
            f"the body of {event!r} has members that belong to every line: {sorted(RESERVED & set(body))}"
        )
    try:
        data = _encoder.encode(dict(body))
    except Exception:  # noqa: BLE001 (boundary: what has happened gets its line)
        data = _encode_anything(dict(body))
    return escape_line(data)


def encode_event(seq: int, event: str, ts: str, body: bytes, prev: str | None) -> bytes:
    """The line of an event without its newline. ``body`` is what :func:`encode_body` gave."""
    members = b"" if body == b"{}" else body[1:-1] + b","
    end = b"null" if prev is None else b'"%s"' % prev.encode()
    return b'{"v":%d,"seq":%d,"event":"%s","ts":"%s",%s"prev":%s}' % (
        *(VERSION, seq, event.encode(), ts.encode(), members, end),
    )


def escape_line(data: bytes) -> bytes:
    r"""JSON as ASCII without control characters: ``\uXXXX`` for DEL and all that lies above it.

    Outside of strings JSON is ASCII anyway, so that nothing but the spelling of strings changes. What could
    move a cursor or end a line for some reader (C1 controls, U+2028) is then harmless everywhere.
    """
    if data.isascii() and b"\x7f" not in data:
        return data
    return _UNSAFE.sub(lambda match: _escape(match[0]), data.decode()).encode("ascii")


def format_ts(wall_s: float) -> str:
    """RFC 3339 in UTC with microseconds, within the years 1970 to 9999. 0.4 us."""
    if not 0.0 <= wall_s < _LAST_SECOND:
        wall_s = float(_LAST_SECOND) if wall_s > 0.0 else 0.0
    second = int(wall_s)
    micro = int((wall_s - second) * 1e6 + 0.5)
    return f"{_second_text(second)}.{micro if micro < 1_000_000 else 999_999:06d}Z"


@lru_cache(maxsize=16)
def _second_text(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime(_SECOND)


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 | code >> 10:04x}\\u{0xDC00 | code & 0x3FF:04x}"


def _encode_anything(value: object) -> bytes:
    """JSON of a value that the fast encoder refuses, with the text in it made harmless."""
    return _encoder.encode(_tame(value, 0))


def _tame(value: object, depth: int) -> object:
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case msgspec.Struct() if depth < _DEEPEST:
            return {name: _tame(getattr(value, name, None), depth + 1) for name in value.__struct_fields__}
        case Mapping() if depth < _DEEPEST:
            return {str(_tame(str(key), 0)): _tame(item, depth + 1) for key, item in value.items()}
        case list() | tuple() | set() | frozenset() if depth < _DEEPEST:
            return [_tame(item, depth + 1) for item in value]
        case _:
            return _tame(_text(value), depth)


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 (boundary: whatever it is, the rest of the line is written)
        return f"<{type(value).__name__}>"
