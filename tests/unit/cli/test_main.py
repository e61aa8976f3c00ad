from __future__ import annotations

import subprocess
import sys

import click
import pytest

from sidecar import __version__
from sidecar.cli import main
from sidecar.errors import ConfigurationError, OrderRefused, ProblemsError, UnavailableError


def raising(error: BaseException):
    """A command that fails with ``error``."""

    @click.command()
    def command() -> None:
        raise error

    return command


@pytest.fixture
def fail_with(monkeypatch):
    def plant(error: BaseException) -> int:
        monkeypatch.setattr(main.LazyGroup, "get_command", lambda self, ctx, name: raising(error))
        return main.run(["status"])

    return plant


ERRORS = [
    (UnavailableError("no sidecar answers"), 1, "sidecar: no sidecar answers\n"),
    (ConfigurationError("no policy"), 2, "sidecar: no policy\n"),
    (ProblemsError(["one", "two"]), 2, "sidecar: one\nsidecar: two\n"),
    (OrderRefused("expired", "the grant is over"), 3, "sidecar: the grant is over\n"),
    (PermissionError(13, "Permission denied", "/x"), 1, "sidecar: '/x': Permission denied\n"),
    (OSError("odd"), 1, "sidecar: odd\n"),
    (UnavailableError("a\x1b[2J\nb\u2028"), 1, "sidecar: a\\x1b[2J\\nb\\u2028\n"),
    (KeyboardInterrupt(), 130, "\n"),
]


@pytest.mark.parametrize(("error", "code", "lines"), ERRORS)
def test_errors_become_lines_and_exit_codes(error, code, lines, fail_with, capsys):
    assert fail_with(error) == code
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", lines)


def test_what_is_not_ours_is_not_hidden(fail_with):
    with pytest.raises(ZeroDivisionError):
        fail_with(ZeroDivisionError())


def test_an_exit_code_of_a_command_is_kept(monkeypatch):
    @click.command()
    @click.pass_context
    def command(ctx: click.Context) -> None:
        ctx.exit(3)

    monkeypatch.setattr(main.LazyGroup, "get_command", lambda self, ctx, name: command)
    assert main.run(["status"]) == 3


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["statsu"], "did you mean status?"),
        (["frobnicate"], "sidecar --help lists the commands"),
        (["--frobnicate"], "No such option"),
        (["stat\x1b[2Jus"], "no such command 'stat\\x1b[2Jus'"),
    ],
)
def test_usage_errors_exit_two(arguments, text, capsys):
    assert main.run(arguments) == 2
    assert text in capsys.readouterr().err


def test_version(capsys):
    assert main.run(["--version"]) == 0
    assert capsys.readouterr().out == f"sidecar {__version__}\n"


def test_help_names_every_command_and_the_exit_codes(capsys):
    assert main.run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in main.COMMANDS)
    assert "3 refused by policy" in text and "SIDECAR_POLICY" in text


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--version"], 0), (["--help"], 0), (["probe", "livez"], 1), (["probe", "--help"], 0)],
)
def test_quick_commands_import_nothing_heavy(arguments, code, tmp_path):
    script = (
        "import sys; from sidecar.cli.main import run; code = run(sys.argv[1:]);"
        "heavy = {'aiohttp', 'cryptography', 'rich', 'OpenSSL', 'asyncio', 'yaml'} & set(sys.modules);"
        "print(sorted(heavy), code, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={"SIDECAR_STATE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stderr.splitlines()[-1] == f"[] {code}"


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_of_the_table_exists(name):
    command = main.command.get_command(click.Context(main.command), name)
    assert isinstance(command, click.Command)


def test_python_dash_m_is_the_same_command():
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "--version"], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == f"sidecar {__version__}\n"
