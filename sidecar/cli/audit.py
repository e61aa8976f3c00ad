"""``sidecar audit``: what was written down, and whether it still is what was written. Works with nothing running."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import click

from sidecar.errors import ConfigurationError
from sidecar.settings.values import parse_audit, parse_path
from sidecar.settings.variables import AUDIT_SINKS, DEFAULT_STATE_DIR

FOLLOW_S = 0.25


@click.group()
def command() -> None:
    """Read and verify the audit log."""


@command.command()
@click.option(
    "-n", "count", type=click.IntRange(min=0), default=10, show_default=True, help="How many lines."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
@click.option("--event", help="Only lines of this event, such as call, grant or gap.")
@click.option("--json", "as_json", is_flag=True, help="The lines as they are in the log.")
@click.argument("directory", required=False, type=click.Path(path_type=Path))
def tail(count: int, follow: bool, event: str | None, as_json: bool, directory: Path | None) -> None:
    """Show the last lines of the log.

    DIRECTORY is the log's; without it the one that SIDECAR_AUDIT and SIDECAR_STATE_DIR name.
    """
    from sidecar.audit.reader import Follower, read_backwards
    from sidecar.cli.audit_lines import matches, show_line

    directory = directory or find_log(os.environ)
    follower = Follower(directory) if follow else None
    try:
        chosen: list[bytes] = []
        for line in read_backwards(directory) if count else ():
            if matches(line, event):
                chosen.append(line)
                if len(chosen) >= count:
                    break
        for line in reversed(chosen):
            click.echo(show_line(line, as_json))
        while follower is not None:
            for line in follower.read():
                if matches(line, event):
                    click.echo(show_line(line, as_json))
            time.sleep(FOLLOW_S)
    except BrokenPipeError:
        # Whoever reads has seen enough; nothing is left for the interpreter to complain about at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    finally:
        if follower is not None:
            follower.close()


@command.command()
@click.option(
    "--key", type=click.Path(path_type=Path), help="The log's public key (audit.pub), best from elsewhere."
)
@click.option("--anchors", type=click.Path(path_type=Path), help="Checkpoint lines that were kept elsewhere.")
@click.option("--json", "as_json", is_flag=True, help="One object with what was found.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
def verify(key: Path | None, anchors: Path | None, as_json: bool, paths: tuple[Path, ...]) -> None:
    """Verify the log in a directory, or in the files that are named, in their order.

    Exit 0 when every line follows from the one before and every checkpoint is signed; 3 otherwise, and the first bad
    line is named. Lines after the last checkpoint are chained but not signed yet. Without --anchors nothing tells
    whether the end is missing.
    """
    from sidecar.audit.report import CLAIM
    from sidecar.cli.audit_verify import describe_report, verify_paths
    from sidecar.errors import VerificationError

    try:
        report, source = verify_paths(paths, key, anchors)
    except VerificationError as exc:
        if as_json:
            place = {name: getattr(exc, name, None) for name in ("file", "line")}
            click.echo(json.dumps({"ok": False, "problem": str(exc), **place, "claim": CLAIM}, indent=2))
        raise
    for line in describe_report(report, source, as_json):
        click.echo(line)


def find_log(environ: Mapping[str, str]) -> Path:
    """The log's directory, from ``SIDECAR_AUDIT`` and ``SIDECAR_STATE_DIR``. Raises :class:`ConfigurationError`."""
    name = "SIDECAR_AUDIT"
    try:
        if text := environ.get(name):
            directory = parse_audit(text, AUDIT_SINKS).directory
            if directory is not None:
                return directory
        name = "SIDECAR_STATE_DIR"
        return parse_path(environ.get(name) or DEFAULT_STATE_DIR) / "audit"
    except ConfigurationError as exc:
        raise ConfigurationError(f"{name}: {exc}") from exc
