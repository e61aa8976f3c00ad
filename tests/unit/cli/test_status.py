from __future__ import annotations

import json

import pytest

from sidecar.cli import main
from sidecar.cli import status as status_module
from sidecar.cli.admin_client import Answer
from sidecar.cli.status import flatten
from sidecar.errors import ConfigurationError, ProblemsError, UnavailableError


class Running:
    """Stands where the admin client is: answers, or fails as the running sidecar would."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.asked: list[tuple[object, ...]] = []

    def __call__(self, *asked: object, **options: object):
        self.asked.append(asked)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def running(monkeypatch):
    def plant(answer: object) -> Running:
        client = Running(answer)
        monkeypatch.setattr(status_module, "admin_call", client)
        monkeypatch.setattr(status_module, "admin_exchange", client)
        return client

    return plant


@pytest.mark.parametrize(
    "error", [UnavailableError("no sidecar"), ConfigurationError("SIDECAR_ADMIN: odd \x1b[2J")]
)
@pytest.mark.parametrize("kind", ["livez", "readyz"])
def test_a_probe_that_reaches_nobody_exits_one(kind, error, running, capsys):
    running(error)
    assert main.run(["probe", kind]) == 1
    assert capsys.readouterr().err.startswith("sidecar: ")


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (500, 1), (404, 1), (204, 1), (301, 1)])
def test_only_200_is_well(status, code, running, capsys):
    client = running(Answer(status, "text/plain", b"[-]svid failed: ended\x1b[2J\nreadyz failed\n"))
    assert main.run(["probe", "readyz"]) == code
    assert capsys.readouterr().out == "[-]svid failed: ended\\x1b[2J\nreadyz failed\n"
    assert client.asked == [("GET", "/readyz?verbose")]


@pytest.mark.parametrize("arguments", [["probe"], ["probe", "startup"], ["probe", "livez", "readyz"]])
def test_a_probe_of_something_else_is_a_usage_error(arguments, capsys):
    assert main.run(arguments) == 2


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        ("status", ("GET", "/v1/status")),
        ("reload", ("POST", "/v1/reload", b"")),
        ("drain", ("POST", "/v1/drain", b"")),
    ],
)
def test_what_is_asked_and_shown(command, asked, running, capsys):
    document = {"spiffe_id": "spiffe://demo.test/a", "policy": {"hash": "sha256:aa"}, "odd": "x\x1b[2J"}
    client = running(document)
    assert main.run([command]) == 0
    shown = capsys.readouterr().out
    assert client.asked == [asked]
    assert "policy.hash  sha256:aa" in shown and "\x1b" not in shown
    assert main.run([command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == document


def test_a_reload_that_fails_exits_two_with_every_problem(running, capsys):
    running(ProblemsError(["p.yaml:1:1: one", "p.yaml:2:1: two"]))
    assert main.run(["reload"]) == 2
    assert capsys.readouterr().err == "sidecar: p.yaml:1:1: one\nsidecar: p.yaml:2:1: two\n"


@pytest.mark.parametrize(
    ("document", "rows"),
    [
        ({}, [("", "-")]),
        ({"a": None, "b": [], "c": {}}, [("a", "-"), ("b", "-"), ("c", "-")]),
        ({"a": True, "b": False, "c": 0, "d": 1.5}, [("a", "yes"), ("b", "no"), ("c", "0"), ("d", "1.5")]),
        ({"a": ["x", "y"], "b": [{"c": 1}, {"c": 2}]}, [("a", "x, y"), ("b.1.c", "1"), ("b.2.c", "2")]),
        ([{"id": 1}], [("1.id", "1")]),
        ("text", [("", "text")]),
    ],
)
def test_every_leaf_is_a_row(document, rows):
    assert list(flatten(document)) == rows
