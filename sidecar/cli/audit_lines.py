"""Lines of the log for people: one line each, the same places for the same things, nothing that moves a cursor."""

from __future__ import annotations

import json
from typing import Any, Final

from sidecar.terminal import escape

_EVERYWHERE: Final = frozenset(["v", "seq", "event", "ts", "prev"])
_LONGEST: Final = 400


def matches(line: bytes, event: str | None) -> bool:
    """Whether the line is one of this event; every line is when None is asked for."""
    return event is None or _parse(line).get("event") == event


def show_line(line: bytes, as_json: bool) -> str:
    """The line as a reader sees it; as it is when ``as_json``, but for bytes that no line has."""
    if as_json:
        return escape(line.decode("utf-8", "backslashreplace"))
    record = _parse(line)
    if not record:
        return f"not a line of a log: {escape(line[:_LONGEST].decode('utf-8', 'backslashreplace'))}"
    event = str(record.get("event"))
    head = f"{_show_time(record.get('ts'))}  {event:<10}"
    match event:
        case "call" | "open":
            body = _show_call(record)
        case "checkpoint":
            head_hash = str(record.get("head"))[:16]
            body = f"signs seq 1 to {record.get('size')}  head={head_hash}...  key={record.get('key')}"
        case _:
            body = _show_body(record)
    return escape(f"{head}  {body}")


def _show_call(record: dict[str, Any]) -> str:
    caller, intent, decision = (_group(record, name) for name in ("caller", "intent", "decision"))
    outcome = _group(record, "outcome")
    words = [
        str(caller.get("id")),
        f"{intent.get('method') or '-'} {intent.get('path') or '-'}",
        f"{decision.get('effect')} {decision.get('reason')}",
        str(outcome.get("status") or "-"),
    ]
    if outcome.get("upstream") not in ("ok", "none", None):
        words.append(str(outcome["upstream"]))
    for name, value in (("grant", decision.get("grant")), ("cut", outcome.get("cut"))):
        if value:
            words.append(f"{name}={value}")
    words.append(f"id={record.get('id')}")
    return "  ".join(words)


def _show_body(record: dict[str, Any]) -> str:
    words = []
    for name, value in record.items():
        if name not in _EVERYWHERE and value is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            words.append(f"{name}={text if len(text) <= _LONGEST else text[:_LONGEST] + '...'}")
    return "  ".join(words)


def _show_time(ts: object) -> str:
    """To the millisecond; the microseconds are in the log."""
    text = str(ts)
    return f"{text[:23]}Z" if len(text) == 27 else text


def _group(record: dict[str, Any], name: str) -> dict[str, Any]:
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def _parse(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
