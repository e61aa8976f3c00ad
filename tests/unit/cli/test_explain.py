from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sidecar.cli import explain as explain_module
from sidecar.cli import main
from sidecar.errors import UnavailableError

ORDERS = str(Path(__file__).resolve().parents[3] / "examples" / "orders" / "policy.yaml")
WEB = "spiffe://demo.test/web"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    monkeypatch.delenv("SIDECAR_POLICY", raising=False)


@pytest.fixture
def running(monkeypatch):
    """Stands where the running sidecar is: gives ``answer`` and remembers what it was asked."""

    def plant(answer: object) -> list[tuple[str, str, bytes]]:
        asked: list[tuple[str, str, bytes]] = []

        def admin_call(method: str, path: str, body: bytes) -> object:
            asked.append((method, path, body))
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(explain_module, "admin_call", admin_call)
        return asked

    return plant


def ask(*words: str) -> int:
    return main.run(["explain", "--as", WEB, *words])


@pytest.mark.parametrize(
    ("call", "code", "first"),
    [
        (("GET", "/orders/42"), 0, "allow policy: GET /orders/42 by spiffe://demo.test/web\n"),
        (("GET", "/orders/42?x=1"), 0, "allow policy: "),
        (("GET", "/x/../orders/%34%32"), 0, "allow policy: "),
        (("DELETE", "/orders/42"), 3, "deny scope: "),
        (("GET", "/orders;x"), 3, "deny malformed: "),
        (("GET", "/orders//42"), 3, "deny malformed: "),
        (("GET", "orders"), 3, "deny malformed: "),
        (("TRACE", "/orders/42"), 3, "deny method: "),
        (("BREW", "/orders/42"), 3, "deny method: "),
    ],
)
def test_by_a_file(call, code, first, capsys):
    assert ask("--policy", ORDERS, *call) == code
    assert capsys.readouterr().out.startswith(first)


def test_the_whole_story_of_a_refusal(capsys):
    assert ask("--policy", ORDERS, "DELETE", "/orders/42") == 3
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines()]
    assert ["owner", "team-shop"] in rows and ["path", "/orders/42"] in rows
    assert [row[:2] for row in rows if row[1:2] and row[1] in ("passed", "denied", "not")] == [
        ["certificate", "passed"], ["registration", "passed"], ["expiry", "passed"], ["policy", "denied"],
        ["purpose", "passed"], ["task", "passed"], ["break-glass", "denied"], ["rate", "not"],
    ]  # fmt: skip
    assert out.endswith("to allow it: give the caller orders:admin, or a break-glass grant for this call\n")


def test_as_json(capsys):
    assert ask("--policy", ORDERS, "--json", "--purpose", "checkout", "GET", "/orders/42") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (
        answer["effect"] == "allow" and answer["rule"] == "orders:read[0]" and answer["purpose"] == "checkout"
    )
    assert answer["change"] is None and [step["result"] for step in answer["steps"]] == ["passed"] * 8


def test_the_setting_counts_where_no_file_is_named(monkeypatch, capsys):
    monkeypatch.setenv("SIDECAR_POLICY", ORDERS)
    assert ask("GET", "/orders/42") == 0


def test_without_a_file_the_running_sidecar_is_asked(running, capsys):
    answer = {
        "effect": "deny",
        "reason": "scope",
        "method": "GET",
        "target": "/x\x1b[2J",
        "caller": WEB,
        "steps": [],
    }
    asked = running(answer)
    assert ask("--purpose", "buy", "GET", "/x?y") == 3
    assert asked == [("POST", "/v1/explain", asked[0][2])]
    assert json.loads(asked[0][2]) == {"as": WEB, "method": "GET", "path": "/x?y", "purpose": "buy"}
    assert capsys.readouterr().out.startswith("deny scope: GET /x\\x1b[2J by")


def test_asking_the_running_sidecar_needs_no_engine(running, monkeypatch):
    running({"effect": "allow", "reason": "policy"})
    for name in [name for name in sys.modules if name.startswith(("sidecar.policy", "sidecar.app"))]:
        monkeypatch.delitem(sys.modules, name)
    assert ask("GET", "/x") == 0
    assert "sidecar.policy.loader" not in sys.modules


@pytest.mark.parametrize("answer", [{}, [], None, "allow", {"effect": "maybe"}, {"effect": True}])
def test_an_answer_that_is_none_is_no_allow(answer, running, capsys):
    running(answer)
    assert ask("GET", "/x") == 1
    assert "is not an explanation" in capsys.readouterr().err


def test_no_running_sidecar_exits_one(running):
    running(UnavailableError("nobody"))
    assert ask("GET", "/x") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["explain", "--policy", ORDERS, "GET", "/x"],
        ["explain", "--as", "web", "--policy", ORDERS, "GET", "/x"],
        ["explain", "--as", WEB, "--policy", ORDERS, "get", "/x"],
        ["explain", "--as", WEB, "--policy", ORDERS, "GET /x"],
        ["explain", "--as", WEB, "--policy", ORDERS, "GET", "/ä"],
        ["explain", "--as", WEB, "--policy", "/nowhere.yaml", "GET", "/x"],
        ["explain", "--as", WEB, "--policy", __file__, "GET", "/x"],
    ],
)
def test_bad_usage_and_bad_policy_exit_two(words, capsys):
    assert main.run(words) == 2
    assert capsys.readouterr().out == ""
