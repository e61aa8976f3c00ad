"""``sidecar config``: are the settings in order, what are they, which are there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict

import click

from sidecar.errors import SettingsError
from sidecar.settings import VARIABLES, describe_settings, load_settings, warn_of


@click.group()
def command() -> None:
    """Check or show the environment's settings."""


@command.command()
@click.option("--json", "as_json", is_flag=True, help="One object with ok, problems and warnings.")
def check(as_json: bool) -> None:
    """Check all settings and the files they name; every mistake at once, exit 2.

    Works offline and starts nothing: the policy compiles, certificate, key and bundle parse, fit each other
    and have not ended, the signers file parses.
    """
    problems, warnings = check_environment(os.environ)
    if as_json:
        click.echo(json.dumps({"ok": not problems, "problems": problems, "warnings": warnings}, indent=2))
        if problems:
            raise click.exceptions.Exit(SettingsError.exit_code)
        return
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    if problems:
        raise SettingsError(problems)
    click.echo("configuration is in order")


@command.command()
@click.option("--json", "as_json", is_flag=True, help="A list of objects with name, value and origin.")
def show(as_json: bool) -> None:
    """Show every setting, the value that counts, and its origin. Exit 2 when they are not in order."""
    described = describe_settings(os.environ)
    if as_json:
        click.echo(json.dumps([asdict(entry) for entry in described], indent=2))
    else:
        from sidecar.cli.table import print_table

        rows = [
            (entry.name, "-" if entry.value is None else entry.value, entry.origin) for entry in described
        ]
        print_table(("variable", "value", "origin"), rows)
    load_settings(os.environ)


@command.command()
def env() -> None:
    """Print an example environment file with every variable, its meaning and its default."""
    for variable in VARIABLES:
        if variable.attribute is None:
            continue
        click.echo(f"# {variable.help} ({variable.kind.word})".replace("`", ""))
        lead = "" if variable.required else "#"
        click.echo(f"{lead}{variable.name}={variable.default or ''}\n")


def check_environment(environ: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Problems and warnings of the settings in ``environ`` and of the files that they name."""
    # Imported here: these bring the certificate library, which `config show` does without.
    from sidecar.cli.config_files import check_files

    try:
        settings = load_settings(environ)
    except SettingsError as exc:
        return [*exc.problems, *check_files(environ, None)], []
    return check_files(environ, settings), warn_of(settings)
