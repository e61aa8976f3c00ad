from __future__ import annotations

import threading
from io import BytesIO

import pytest

from sidecar.audit.report import BadLogError
from sidecar.cli import audit_verify
from sidecar.cli.audit_verify import describe_report, verify_paths
from tests.fakes.audit import make_key, make_lines

ALL = make_lines(make_key(), 30)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "00000001.jsonl"
    path.write_bytes(b"".join(ALL))
    return path


def test_a_large_log_on_a_terminal_shows_how_far_it_is(path, monkeypatch):
    class Terminal(BytesIO):
        encoding = "utf-8"
        text = ""

        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> int:  # type: ignore[override]
            Terminal.text += text
            return len(text)

    monkeypatch.setattr(audit_verify, "BAR_FROM_BYTES", 1)
    monkeypatch.setattr(audit_verify.sys, "stderr", Terminal())
    report, _ = verify_paths([path], None, None)
    assert report.lines == len(ALL) and "verifying" in Terminal.text and "100%" in Terminal.text


def test_a_line_that_is_just_being_written_is_waited_for(path, monkeypatch):
    path.write_bytes(b"".join(ALL)[:-20])
    waits = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        with path.open("ab") as file:
            file.write(ALL[-1][-20:] if len(waits) == 2 else b"")

    monkeypatch.setattr(audit_verify.time, "sleep", sleep)
    assert verify_paths([path], None, None)[0].lines == len(ALL)
    assert len(waits) == 2


def test_a_torn_line_that_stays_torn_is_bad(path, monkeypatch):
    path.write_bytes(b"".join(ALL)[:-20])
    monkeypatch.setattr(audit_verify.time, "sleep", lambda seconds: None)
    with pytest.raises(BadLogError, match="torn"):
        verify_paths([path], None, None)


def test_a_line_without_end_is_not_read_into_memory(path, monkeypatch):
    monkeypatch.setattr(audit_verify, "LONGEST_LINE_BYTES", 2000)
    path.write_bytes(ALL[0] + b"x" * 5000)
    with pytest.raises(BadLogError, match="longer than 2000"):
        verify_paths([path], None, None)


def test_a_log_that_grows_while_it_is_read_is_no_trouble(path):
    """Readers and the writer share nothing but the file."""
    stop = threading.Event()
    path.write_bytes(b"".join(ALL[:-20]))

    def grow() -> None:
        with path.open("ab", buffering=0) as file:
            for line in ALL[-20:]:
                file.write(line)
        stop.set()

    thread = threading.Thread(target=grow)
    thread.start()
    while not stop.is_set():
        verify_paths([path], None, None)
    thread.join()
    assert verify_paths([path], None, None)[0].lines == len(ALL)


def test_what_is_not_there_is_not_claimed(path):
    report, source = verify_paths([path], None, None)
    shown = "\n".join(describe_report(report, source, False))
    for word in ("crash", "gap", "warning", "not signed yet"):
        assert word not in shown
