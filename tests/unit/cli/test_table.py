from __future__ import annotations

import io
import sys

from sidecar.cli.table import print_table

ROWS = [("id", "spiffe://demo.test/" + "long/" * 40), ("markup", "[red]x[/red]"), ("hostile", "a\x1b[2J\nb")]


def test_a_pipe_gets_whole_lines_and_no_colour(capsys):
    print_table(("what", "now"), ROWS)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["what", "now"]
    assert shown[1] == f"id       {ROWS[0][1]}"
    assert shown[2:] == ["markup   [red]x[/red]", "hostile  a\\x1b[2J\\nb"]


def test_no_rows_leave_the_headings(capsys):
    print_table(("what", "now"), [])
    assert capsys.readouterr().out == "what  now\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_folds_and_loses_nothing(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("NO_COLOR", "1")
    print_table(("what", "now"), ROWS)
    shown = terminal.getvalue()
    assert "[red]x[/red]" in shown and "a\\x1b[2J\\nb" in shown
    assert shown.count("long/") + shown.count("lon") > 30 and "…" not in shown
