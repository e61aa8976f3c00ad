from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.audit.record import (
    Caller,
    Intent,
    encode_body,
    encode_call,
    encode_event,
    escape_line,
    format_ts,
)
from tests.fakes.audit import ALLOW, CALLER, INTENT, OUTCOME, WALL_S, call

HOSTILE = '\x00\x07\x1b[2J\r\n\x7f\x80\x85\x9b\u2028\u2029\u202e\ufeff\U0001f600"\\é'
LONE = "a\udc80b\ud800"


def test_a_call_has_the_contracts_members_in_its_order():
    line = encode_call(12, call(1), "2026-11-23T17:00:00.123456Z", "f" * 64)
    record = json.loads(line)
    assert list(record) == [
        "v", "seq", "event", "ts", "id", "caller", "intent", "decision", "outcome", "trace", "prev",
    ]  # fmt: skip
    assert list(record["caller"]) == ["id", "serial", "via", "owner", "kind", "source", "env"]
    assert list(record["intent"]) == ["method", "path", "route", "scope", "purpose", "task"]
    assert list(record["decision"]) == ["effect", "reason", "rule", "policy", "grant", "lifted", "until"]
    assert list(record["outcome"]) == ["status", "received", "sent", "duration_us", "upstream", "cut"]
    assert (record["v"], record["seq"], record["event"], record["prev"]) == (1, 12, "call", "f" * 64)


def test_an_open_call_has_no_outcome_and_the_first_line_no_prev():
    entry = ("open", "id", WALL_S, CALLER, INTENT, ALLOW, None, "")
    record = json.loads(encode_call(1, entry, format_ts(WALL_S), None))
    assert (record["event"], record["outcome"], record["prev"]) == ("open", None, None)


@given(st.text())
@example(HOSTILE)
@example("a\x7fb")
def test_no_text_leaves_its_line_or_moves_a_cursor(text):
    entry = ("call", text, WALL_S, CALLER, Intent("GET", text), ALLOW, OUTCOME, text)
    for line in (encode_call(1, entry, format_ts(WALL_S), None), encode_body("admin", {"what": text})):
        assert all(0x20 <= byte < 0x7F for byte in line)
    record = json.loads(encode_call(1, entry, format_ts(WALL_S), None))
    assert (record["id"], record["intent"]["path"], record["trace"]) == (text, text, text)


@pytest.mark.parametrize("place", ["id", "path", "caller", "trace"])
def test_text_without_an_utf_8_form_is_shown_escaped(place):
    caller = Caller(LONE if place == "caller" else "c", "1", "mtls", None, None, "::1", None)
    intent = Intent("GET", LONE if place == "path" else "/")
    call_id, trace = (LONE if place == name else "x" for name in ("id", "trace"))
    line = encode_call(
        1, ("call", call_id, WALL_S, caller, intent, ALLOW, OUTCOME, trace), format_ts(WALL_S), None
    )
    record = json.loads(line)
    shown = {
        "id": record["id"],
        "path": record["intent"]["path"],
        "caller": record["caller"]["id"],
        "trace": record["trace"],
    }
    assert shown[place] == "a\\udc80b\\ud800"
    assert list(record)[-1] == "prev"
    assert line.isascii()


def test_a_body_may_hold_anything_that_has_text():
    class Odd:
        def __str__(self) -> str:
            return "odd\udc80\n"

    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no")

    loop: list[object] = []
    loop.append(loop)
    body = {
        "odd": Odd(), "broken": Broken(), "bytes": object, "nan": float("nan"), "big": 2**80, "set": {1}, "loop": loop,
        LONE: {"deep": [LONE, (1, None, True)], 7: 8},
    }  # fmt: skip
    line = encode_event(2, "admin", format_ts(WALL_S), encode_body("admin", body), None)
    assert line.isascii() and b"\n" not in line
    record = json.loads(line)
    assert record["odd"] == "odd\\udc80\n" and record["broken"] == "<Broken>" and record["big"] == 2**80
    assert record["a\\udc80b\\ud800"]["deep"] == ["a\\udc80b\\ud800", [1, None, True]]


@pytest.mark.parametrize("name", ["v", "seq", "event", "ts", "prev"])
def test_a_body_cannot_bring_members_that_every_line_has(name):
    with pytest.raises(ValueError, match=name):
        encode_body("admin", {name: 1})


@pytest.mark.parametrize("event", ["", "Call", "a b", "call\n", 'x","y', "1", "a" * 33])
def test_an_event_has_a_plain_name(event):
    with pytest.raises(ValueError, match="no name for an event"):
        encode_body(event, {})


def test_an_event_may_have_no_body():
    line = encode_event(3, "stop", format_ts(WALL_S), encode_body("stop", {}), "a" * 64)
    assert json.loads(line) == {"v": 1, "seq": 3, "event": "stop", "ts": format_ts(WALL_S), "prev": "a" * 64}


def test_a_mapping_of_ours_is_escaped_in_keys_too():
    assert escape_line(json.dumps({HOSTILE: 1}, ensure_ascii=False).encode()).isascii()


@pytest.mark.parametrize(
    ("wall_s", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000000Z"),
        (1_795_520_000.123456, "2026-11-24T11:33:20.123456Z"),
        (1_795_520_000.9999996, "2026-11-24T11:33:20.999999Z"),
        (-5.0, "1970-01-01T00:00:00.000000Z"),
        (float("nan"), "1970-01-01T00:00:00.000000Z"),
        (float("inf"), "9999-12-31T23:59:59.000000Z"),
        (1e300, "9999-12-31T23:59:59.000000Z"),
    ],
)
def test_times_are_rfc_3339_with_microseconds(wall_s, text):
    assert format_ts(wall_s) == text
