"""``sidecar status``, ``reload``, ``drain`` and ``probe``: questions to the running sidecar."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import click

from sidecar.cli.admin_client import admin_call, admin_exchange
from sidecar.errors import SidecarError
from sidecar.terminal import escape

PROBE_TIMEOUT_S = 3.0


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The sidecar's answer as it is.")
def status(as_json: bool) -> None:
    """Show what the running sidecar does: its identity, policy, grants, log and connections."""
    _show(admin_call("GET", "/v1/status"), as_json)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The sidecar's answer as it is.")
def reload(as_json: bool) -> None:
    """Make the running sidecar read its policy and signers again.

    What does not load replaces nothing: the command then prints why and exits 2, and the old state stays.
    """
    _show(admin_call("POST", "/v1/reload", b""), as_json)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The sidecar's answer as it is.")
def drain(as_json: bool) -> None:
    """Make the running sidecar finish its work and stop, as SIGTERM does. Does not wait for the end."""
    _show(admin_call("POST", "/v1/drain", b""), as_json)


@click.command()
@click.argument("kind", type=click.Choice(["livez", "readyz"]))
def probe(kind: Literal["livez", "readyz"]) -> None:
    """Ask the running sidecar for livez or readyz; exit 0 when all is well, else 1."""
    try:
        answer = admin_exchange("GET", f"/{kind}?verbose", timeout_s=PROBE_TIMEOUT_S)
    except SidecarError as exc:
        # Whatever the reason: orchestrators give meaning to 0 and 1 only.
        click.echo(f"sidecar: {escape(str(exc))}", err=True)
        raise click.exceptions.Exit(1) from exc
    for line in answer.body.decode(errors="replace").splitlines():
        click.echo(escape(line))
    if answer.status != 200:
        raise click.exceptions.Exit(1)


def _show(document: Any, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    from sidecar.cli.table import print_table

    print_table(("what", "now"), list(flatten(document)))


def flatten(document: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """(dotted name, text) of every leaf; an empty list or object is a leaf and says so."""
    if isinstance(document, dict) and document:
        for key, value in document.items():
            yield from flatten(value, f"{name}.{key}" if name else str(key))
    elif isinstance(document, list) and any(isinstance(item, (dict, list)) for item in document):
        for place, item in enumerate(document, start=1):
            yield from flatten(item, f"{name}.{place}" if name else str(place))
    else:
        yield name, _text(document)


def _text(value: Any) -> str:
    match value:
        case None | [] | {}:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(str(item) for item in value)
        case _:
            return str(value)
