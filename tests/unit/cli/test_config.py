from __future__ import annotations

import json

import pytest

from sidecar.cli import config, main
from sidecar.settings import VARIABLES, load_settings
from sidecar.settings.variables import expand_default

GOOD = {
    "SIDECAR_IDENTITY": "embedded",
    "SIDECAR_SPIFFE_ID": "spiffe://demo.test/orders",
    "SIDECAR_POLICY": "/etc/policy.yaml",
}


@pytest.fixture
def environment(monkeypatch):
    def plant(**changes: str) -> None:
        for name, value in (GOOD | changes).items():
            monkeypatch.setenv(name, value)

    return plant


@pytest.fixture
def found(monkeypatch):
    def plant(problems: list[str], warnings: list[str]) -> None:
        monkeypatch.setattr(config, "check_environment", lambda environ: (problems, warnings))

    return plant


def test_check_says_every_problem_and_exits_two(found, capsys):
    found(["SIDECAR_LISTEN: odd", "policy.yaml:1:1: no"], ["careful"])
    assert main.run(["config", "check"]) == 2
    printed = capsys.readouterr()
    assert printed.err == "warning: careful\nsidecar: SIDECAR_LISTEN: odd\nsidecar: policy.yaml:1:1: no\n"
    assert printed.out == ""


def test_check_in_order(found, capsys):
    found([], [])
    assert main.run(["config", "check"]) == 0
    assert capsys.readouterr().out == "configuration is in order\n"


@pytest.mark.parametrize(("problems", "code"), [([], 0), (["a"], 2)])
def test_check_as_json(problems, code, found, capsys):
    found(problems, ["careful"])
    assert main.run(["config", "check", "--json"]) == code
    assert json.loads(capsys.readouterr().out) == {
        "ok": not problems,
        "problems": problems,
        "warnings": ["careful"],
    }


def test_show_tells_value_and_origin(environment, capsys):
    environment(SIDECAR_STATE_DIR="/s")
    assert main.run(["config", "show"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["SIDECAR_STATE_DIR", "/s", "environment"] in rows
    assert ["SIDECAR_ADMIN", "unix:/s/admin.sock", "default"] in rows
    assert ["SIDECAR_SVID_FILE", "-", "default"] in rows


def test_show_as_json(environment, capsys):
    environment()
    assert main.run(["config", "show", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in shown] == [variable.name for variable in VARIABLES]
    assert {"name": "SIDECAR_IDENTITY", "value": "embedded", "origin": "environment"} in shown


def test_show_still_shows_what_is_wrong(environment, capsys):
    environment(SIDECAR_LISTEN="every\x1b[2Jwhere", SIDECAR_LISTN="canary-7f3a")
    assert main.run(["config", "show"]) == 2
    printed = capsys.readouterr()
    assert "every\\x1b[2Jwhere" in printed.out
    assert "SIDECAR_LISTN: no such setting" in printed.err and "canary" not in printed.out + printed.err


def test_env_is_a_file_of_all_variables_that_a_shell_could_read(capsys):
    assert main.run(["config", "env"]) == 0
    text = capsys.readouterr().out
    for variable in VARIABLES:
        assert (f"{variable.name}=" in text) is (variable.attribute is not None)
    values = dict(
        line.removeprefix("#").split("=", 1)
        for line in text.splitlines()
        if line.removeprefix("#").startswith("SIDECAR_")
    )
    defaults = {
        name: value.replace("<SIDECAR_STATE_DIR>", "/var/lib/sidecar") for name, value in values.items()
    }
    # Written out, the defaults mean what leaving them out means.
    load_settings(defaults | GOOD)
    assert all(
        defaults[variable.name] == (expand_default(variable, "/var/lib/sidecar") or "")
        for variable in VARIABLES
        if variable.attribute is not None
    )
