"""The ``sidecar`` command: imports the one subcommand that is called, turns errors into lines and exit codes.

0 done, 1 failed, 2 bad configuration or usage, 3 refused by policy or verification, 130 interrupted.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple, NoReturn, cast

import click

from sidecar import __version__
from sidecar.errors import ProblemsError, SidecarError
from sidecar.terminal import escape


class Entry(NamedTuple):
    """Where a subcommand lives (``module:attribute``) and its line in ``sidecar --help``."""

    place: str
    help: str


# The help lines stand here and not in the modules, so that `sidecar --help` imports none of them.
COMMANDS = {
    "run": Entry("sidecar.cli.run:command", "Run the sidecar beside its service."),
    "demo": Entry("sidecar.cli.demo:command", "Watch a service being protected, step by step."),
    "status": Entry("sidecar.cli.status:status", "Show what the running sidecar does."),
    "reload": Entry(
        "sidecar.cli.status:reload", "Make the running sidecar read its policy and signers again."
    ),
    "drain": Entry("sidecar.cli.status:drain", "Make the running sidecar finish its work and stop."),
    "probe": Entry("sidecar.cli.status:probe", "Ask the running sidecar for livez or readyz."),
    "config": Entry("sidecar.cli.config:command", "Check or show the environment's settings."),
    "policy": Entry("sidecar.cli.policy:command", "Check a policy file."),
    "explain": Entry("sidecar.cli.explain:command", "Say whether a call would be allowed, and why."),
    "break-glass": Entry("sidecar.cli.breakglass:command", "Make, sign, send and follow emergency grants."),
    "audit": Entry("sidecar.cli.audit:command", "Read and verify the audit log."),
    "issuer": Entry("sidecar.cli.issuer:command", "Keep a small authority for the embedded identity."),
}

EPILOG = """\b
Settings come from the environment; the ones that matter first:
  SIDECAR_POLICY                what each caller may do (required)
  SIDECAR_UPSTREAM              the local service [http://127.0.0.1:8080]
  SIDECAR_LISTEN                inbound mTLS listener [0.0.0.0:8443]
  SIDECAR_IDENTITY              files or embedded
  SIDECAR_SVID_FILE, SIDECAR_SVID_KEY_FILE, SIDECAR_BUNDLE_FILE
  SIDECAR_SPIFFE_ID             the own id, for embedded
  SIDECAR_STATE_DIR             grants, audit log, admin socket [/var/lib/sidecar]
  SIDECAR_BREAK_GLASS_SIGNERS   who may sign emergency grants
`sidecar config env` lists all of them.

\b
Exit codes: 0 done, 1 failed, 2 bad configuration or usage,
3 refused by policy or verification, 130 interrupted.
"""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, not when they are listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.place.partition(":")
        return cast(click.Command, getattr(importlib.import_module(module), attribute))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            # Imported here: only a misspelt command pays for it.
            import difflib

            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"; did you mean {close[0]}?" if close else "; sidecar --help lists the commands"
            ctx.fail(f"no such command {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sidecar", message="%(prog)s %(version)s")
def command() -> None:
    """Run beside a service and be the only way into it."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code; what went wrong is on stderr, one line per problem."""
    try:
        outcome = command.main(args=arguments, prog_name="sidecar", standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except click.Abort:
        return 130
    except ProblemsError as exc:
        _complain(exc.problems)
        return exc.exit_code
    except SidecarError as exc:
        _complain([str(exc)])
        return exc.exit_code
    except OSError as exc:
        _complain([f"{exc.filename!r}: {exc.strerror}" if exc.filename is not None else str(exc)])
        return 1
    # Commands give nothing; `ctx.exit(n)` arrives here as n.
    return outcome if isinstance(outcome, int) else 0


def main() -> NoReturn:
    """Entry point of the ``sidecar`` script."""
    sys.exit(run())


def _complain(problems: Sequence[str]) -> None:
    for problem in problems:
        click.echo(f"sidecar: {escape(problem)}", err=True)
