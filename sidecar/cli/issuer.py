"""``sidecar issuer``: a small authority for one machine, its entries, and the process that issues."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sidecar.clock import SYSTEM_CLOCK, rfc3339
from sidecar.errors import ConfigurationError, IdentityError, StateError
from sidecar.identity.spiffe_id import SpiffeId, parse_trust_domain, parse_workload_id
from sidecar.logs import configure_logging, flush_logging
from sidecar.settings.loader import BY_NAME
from sidecar.settings.values import duration, parse_path
from sidecar.settings.variables import DEFAULT_STATE_DIR

if TYPE_CHECKING:
    from cryptography import x509

    from sidecar.issuer.store import Store

F = TypeVar("F", bound=Callable[..., Any])

_LEAF_TTL = duration("10s", "24h")


def _directory_option(function: F) -> F:
    return click.option(
        "--dir",
        "directory",
        type=click.Path(path_type=Path, file_okay=False),
        help="The issuer's directory. Without it: SIDECAR_ISSUER_DIR, else <SIDECAR_STATE_DIR>/issuer.",
    )(function)


@click.group()
def command() -> None:
    """Keep a small authority for the embedded identity.

    It lives in one directory: the authority, an entry for each workload, and the certificates that `issuer
    run` keeps renewed there. A sidecar with SIDECAR_IDENTITY=embedded starts that process itself; sidecars on
    one machine share one directory.
    """


@command.command()
@click.option("--trust-domain", required=True, help="Its name, such as shop.test.")
@_directory_option
def init(trust_domain: str, directory: Path | None) -> None:
    """Make an authority for a trust domain, good for a year.

    One that is there already is never overwritten: exit 2.
    """
    try:
        name = parse_trust_domain(trust_domain)
    except IdentityError as exc:
        raise ConfigurationError(f"--trust-domain: {exc}") from exc
    # Imported here, as in all commands below: `sidecar issuer --help` does without the certificate library.
    from sidecar.issuer.store import init_store

    store = init_store(find_issuer_dir(os.environ, directory), name, SYSTEM_CLOCK)
    click.echo(
        f"authority of {store.trust_domain} in {store.directory}, good until {_end(store.load_certificate())}"
    )


@command.group()
def entry() -> None:
    """Say which workloads get a certificate."""


@entry.command(short_help="Let SPIFFE_ID have a certificate.")
@click.argument("spiffe_id")
@_directory_option
def add(spiffe_id: str, directory: Path | None) -> None:
    """Let SPIFFE_ID have a certificate, renewed for as long as the entry is there.

    A running issuer writes it within a second. Adding what is there already changes nothing.
    """
    from sidecar.issuer.entry import parse_entry_id

    store = _open(directory)
    workload = parse_entry_id(spiffe_id, store.trust_domain)
    is_new = store.add(workload, SYSTEM_CLOCK)
    what = "added" if is_new else "was there already"
    click.echo(f"{workload} {what}; its files: {store.places(workload).svid.parent}")


@entry.command("list", short_help="List the workloads that get a certificate.")
@click.option("--json", "as_json", is_flag=True, help="A list of objects.")
@_directory_option
def list_(as_json: bool, directory: Path | None) -> None:
    """List the workloads that get a certificate, and until when each has one. Exit 1 if one is damaged."""
    store = _open(directory)
    rows, problems = _entries(store)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        from sidecar.cli.table import print_table

        print_table(
            ("spiffe id", "added", "certificate until", "files"),
            [(row["spiffe_id"], row["added_at"], row["not_after"] or "-", row["directory"]) for row in rows],
        )
    if problems:
        raise StateError("; ".join(problems))


@entry.command(short_help="Let SPIFFE_ID have no further certificate.")
@click.argument("spiffe_id")
@_directory_option
def remove(spiffe_id: str, directory: Path | None) -> None:
    """Let SPIFFE_ID have no further certificate. Exit 1 if there is no such entry.

    A running issuer removes the files within a second. A certificate that was copied elsewhere stays good
    until its end, an hour at most: what refuses a caller at once is the policy.
    """
    from sidecar.issuer.entry import parse_entry_id

    store = _open(directory)
    workload = parse_entry_id(spiffe_id, store.trust_domain)
    if not store.remove(workload):
        raise StateError(f"there is no entry {str(workload)!r} in {str(store.directory)!r}")
    click.echo(f"{workload} removed")


@command.command(short_help="Show the authority and its entries.")
@click.option("--json", "as_json", is_flag=True, help="One object.")
@_directory_option
def show(as_json: bool, directory: Path | None) -> None:
    """Show the authority, whether a process issues, and the entries. Exit 1 if an entry is damaged."""
    store = _open(directory)
    certificate = store.load_certificate()
    rows, problems = _entries(store)
    shown = {
        "directory": str(store.directory),
        "trust_domain": store.trust_domain,
        "serial": f"{certificate.serial_number:x}",
        "not_after": _end(certificate),
        "issuing": store.is_issuing(),
        "entries": rows,
    }
    if as_json:
        click.echo(json.dumps(shown, indent=2))
    else:
        from sidecar.cli.table import print_table

        words = {**shown, "issuing": "yes" if shown["issuing"] else "no", "entries": str(len(rows))}
        print_table(
            ("what", "value"), [(name.replace("_", " "), str(value)) for name, value in words.items()]
        )
    if problems:
        raise StateError("; ".join(problems))


@command.command(short_help="Issue and renew certificates until SIGTERM.")
@click.option(
    "--entry", "entries", multiple=True, metavar="SPIFFE_ID", help="Add this entry first; repeatable."
)
@click.option(
    "--init", is_flag=True, help="Make the authority if there is none, for the trust domain of --entry."
)
@click.option("--once", is_flag=True, help="Issue what is due, then end.")
@click.option("--leaf-ttl", default="1h", show_default=True, help="Lifetime of a certificate, 10s to 24h.")
@click.option(
    "--tied", is_flag=True, help="End when standard input does: for a parent that must not leave us behind."
)
@_directory_option
def run(
    entries: tuple[str, ...], init: bool, once: bool, leaf_ttl: str, tied: bool, directory: Path | None
) -> None:
    """Issue a certificate to each entry, and renew it at half of its life, until SIGTERM.

    One process on a directory issues; a second one stands by and takes over within a second. What was issued
    is logged on stderr. Of all commands only this one opens the authority's key.

    Exit codes: 0 told to end, 1 failed (with --once: something could not be issued), 2 usage or no authority.
    """
    from sidecar.issuer.ending import SignalledEnding
    from sidecar.issuer.process import Task, run_issuer

    _configure_logging(os.environ)
    task = Task(
        directory=find_issuer_dir(os.environ, directory),
        entries=[_workload(each) for each in entries],
        init=init,
        once=once,
        lifetime=_lifetime(leaf_ttl),
    )
    try:
        with SignalledEnding(tied=0 if tied else None) as ending:
            done = run_issuer(task, SYSTEM_CLOCK, ending)
    finally:
        flush_logging()
    if not done:
        raise click.exceptions.Exit(1)


def find_issuer_dir(environ: Mapping[str, str], directory: Path | None = None) -> Path:
    """``directory``, else what ``SIDECAR_ISSUER_DIR`` or ``SIDECAR_STATE_DIR`` say; absolute.

    Raises :class:`ConfigurationError`. No other setting is read: these commands work from any shell.
    """
    if directory is not None:
        return directory.absolute()
    name = "SIDECAR_ISSUER_DIR" if environ.get("SIDECAR_ISSUER_DIR") else "SIDECAR_STATE_DIR"
    try:
        path = parse_path(environ.get(name) or DEFAULT_STATE_DIR).absolute()
    except ConfigurationError as exc:
        raise ConfigurationError(f"{name}: {exc}") from exc
    return path if name == "SIDECAR_ISSUER_DIR" else path / "issuer"


def _open(directory: Path | None) -> Store:
    from sidecar.issuer.store import open_store

    return open_store(find_issuer_dir(os.environ, directory))


def _entries(store: Store) -> tuple[list[dict[str, Any]], list[str]]:
    """What there is to say of each entry, and the problems of those that are damaged."""
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    for found in store.entries().values():
        if isinstance(found, StateError):
            problems.append(str(found))
            continue
        certificate = store.issued_certificate(found.spiffe_id)
        rows.append(
            {
                "spiffe_id": str(found.spiffe_id),
                "added_at": rfc3339(found.added_at),
                "not_after": None if certificate is None else _end(certificate),
                "serial": None if certificate is None else f"{certificate.serial_number:x}",
                "directory": str(store.places(found.spiffe_id).svid.parent),
            }
        )
    return rows, problems


def _workload(text: str) -> SpiffeId:
    try:
        return parse_workload_id(text)
    except IdentityError as exc:
        raise ConfigurationError(f"--entry: {exc}") from exc


def _lifetime(text: str) -> timedelta:
    try:
        seconds = _LEAF_TTL.parse(text)
    except ConfigurationError as exc:
        raise ConfigurationError(f"--leaf-ttl: {exc}") from exc
    assert isinstance(seconds, float)
    return timedelta(seconds=seconds)


def _configure_logging(environ: Mapping[str, str]) -> None:
    values: dict[str, Any] = {}
    for name in ("SIDECAR_LOG_LEVEL", "SIDECAR_LOG_FORMAT"):
        text = environ.get(name) or BY_NAME[name].default
        try:
            values[name] = None if text is None else BY_NAME[name].kind.parse(text)
        except ConfigurationError as exc:
            raise ConfigurationError(f"{name}: {exc}") from exc
    configure_logging(values["SIDECAR_LOG_LEVEL"], values["SIDECAR_LOG_FORMAT"], in_background=True)


def _end(certificate: x509.Certificate) -> str:
    return rfc3339(certificate.not_valid_after_utc)
