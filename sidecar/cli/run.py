"""``sidecar run``: the running sidecar, configured by the environment alone."""

from __future__ import annotations

import os

import click

from sidecar.settings import load_settings


@click.command(short_help="Run the sidecar beside its service.")
def command() -> None:
    """Run the sidecar beside its service.

    Everything is configured by SIDECAR_... variables (`sidecar config env` lists them, `sidecar config check` tries
    them). SIGTERM drains and ends it, a second one skips the waiting; SIGHUP reads policy, signers and certificates
    again. The service log goes to stderr.

    Exit codes: 0 all work finished by itself, 1 it failed or calls had to be cut, 2 bad configuration.
    """
    settings = load_settings(os.environ)
    # Imported here: bad settings should be told at once, and this brings the whole program.
    from sidecar.app.program import run_program

    raise click.exceptions.Exit(run_program(settings))
