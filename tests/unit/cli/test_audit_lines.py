from __future__ import annotations

import json

import pytest

from sidecar.cli.audit_lines import matches, show_line


def call_line(**changes: object) -> bytes:
    record = {
        "v": 1, "seq": 3, "event": "call", "ts": "2026-11-24T12:00:00.123456Z", "id": "01JD",
        "caller": {"id": "spiffe://demo.test/web"}, "intent": {"method": "DELETE", "path": "/orders/42"},
        "decision": {"effect": "allow", "reason": "grant", "grant": "bg-1"},
        "outcome": {"status": 200, "upstream": "ok", "cut": None}, "trace": "", "prev": None,
    }  # fmt: skip
    return json.dumps(record | changes).encode()


def test_a_call_says_when_who_what_and_how_it_ended():
    assert show_line(call_line(), False) == (
        "2026-11-24T12:00:00.123Z  call        spiffe://demo.test/web  DELETE /orders/42  allow grant  200"
        "  grant=bg-1  id=01JD"
    )


def test_what_went_wrong_is_shown():
    line = call_line(outcome={"status": None, "upstream": "timeout", "cut": "grant-ended"})
    assert "  -  timeout  grant=bg-1  cut=grant-ended  " in show_line(line, False)


def test_an_open_call_has_no_status():
    assert "allow grant  -  " in show_line(call_line(event="open", outcome=None), False)


def test_a_message_that_was_no_call_has_no_method():
    line = call_line(
        intent={"method": None, "path": None}, decision={"effect": "deny", "reason": "malformed"}
    )
    assert "  - -  deny malformed  " in show_line(line, False)


def test_other_events_show_their_members():
    record = {
        "v": 1,
        "seq": 1,
        "event": "admin",
        "ts": "2026-11-24T12:00:00.123456Z",
        "operation": "reload",
        "uid": 0,
    }
    line = json.dumps({**record, "x": None, "prev": None}).encode()
    assert show_line(line, False) == "2026-11-24T12:00:00.123Z  admin       operation=reload  uid=0"


def test_long_members_are_cut():
    line = json.dumps({"event": "policy", "ts": "t", "problems": ["x" * 5000]}).encode()
    assert len(show_line(line, False)) < 500


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("text", ["\x1b[2J", "\r\n", "\x07", "\u202e", "\x9b", "\ud800"])
def test_nothing_moves_a_cursor(text, as_json):
    for line in (
        call_line(id=text),
        json.dumps({"event": text, "ts": text, text: text}).encode(),
        text.encode("utf-8", "replace"),
        b"\xff\x1b[2J",
    ):
        assert show_line(line, as_json).isprintable()


@pytest.mark.parametrize("line", [b"", b"[]", b"{", b"\xff", b"null", b"[" * 100_000])
def test_what_is_no_line_is_said_to_be_none(line):
    assert show_line(line, False).startswith("not a line of a log: ")
    assert not matches(line, "call") and matches(line, None)


@pytest.mark.parametrize("group", ["caller", "intent", "decision", "outcome"])
@pytest.mark.parametrize("value", [None, 1, "x", []])
def test_a_line_of_another_shape_is_shown_all_the_same(group, value):
    assert "call" in show_line(call_line(**{group: value}), False)


def test_events_match_by_name():
    assert matches(call_line(), "call") and not matches(call_line(), "open")
