from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from sidecar.cli import main

ORDERS = Path(__file__).resolve().parents[3] / "examples" / "orders" / "policy.yaml"
BROKEN = "version: 2\nowners: {}\n"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    monkeypatch.delenv("SIDECAR_POLICY", raising=False)


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(BROKEN)
    return path


def test_a_good_file_is_counted_and_hashed(capsys):
    assert main.run(["policy", "check", str(ORDERS)]) == 0
    printed = capsys.readouterr()
    assert printed.out == (
        f"{ORDERS} is in order: 2 identities (1 service, 1 job), 3 scopes, 2 owners, 0 deny rules\n"
        f"sha256:{hashlib.sha256(ORDERS.read_bytes()).hexdigest()}\n"
    )
    assert "warning: scope orders:admin is given to nobody\n" in printed.err


def test_a_good_file_as_json(capsys):
    assert main.run(["policy", "check", "--json", str(ORDERS)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True and report["problems"] == [] and report["file"] == str(ORDERS)
    assert (
        report["identities"] == {"service": 1, "job": 1} and report["scopes"] == 3 and report["owners"] == 2
    )
    assert report["sha256"].startswith("sha256:")
    assert "scope orders:admin is given to nobody" in report["warnings"]


def test_problems_begin_with_file_line_and_column_and_exit_two(broken, capsys):
    assert main.run(["policy", "check", str(broken)]) == 2
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert len(lines) == 4 and printed.out == ""
    assert all(line.startswith(f"{broken}:") for line in lines)
    assert f"{broken}:1:10: version: '2' is not one of 1" in lines


def test_problems_as_json(broken, capsys):
    assert main.run(["policy", "check", str(broken), "--json"]) == 2
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert report["ok"] is False and len(report["problems"]) == 4 and printed.err == ""


def test_without_a_file_the_setting_counts(broken, monkeypatch, capsys):
    monkeypatch.setenv("SIDECAR_POLICY", str(ORDERS))
    assert main.run(["policy", "check"]) == 0
    assert main.run(["policy", "check", str(broken)]) == 2


@pytest.mark.parametrize("value", [None, ""])
def test_without_either_it_is_a_usage_error(value, monkeypatch, capsys):
    if value is not None:
        monkeypatch.setenv("SIDECAR_POLICY", value)
    assert main.run(["policy", "check"]) == 2
    assert "Missing argument 'FILE'" in capsys.readouterr().err


def test_a_missing_file_exits_two(tmp_path, capsys):
    assert main.run(["policy", "check", str(tmp_path / "gone\x1b[2J")]) == 2
    error = capsys.readouterr().err
    assert (
        error.endswith("the policy file cannot be read: No such file or directory\n") and "\x1b" not in error
    )
