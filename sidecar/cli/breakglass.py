"""``sidecar break-glass``: make, sign, send and follow emergency grants."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from sidecar.breakglass.grant import (
    MAX_USES,
    Grant,
    Review,
    Revocation,
    parse_grant_id,
    parse_person,
)
from sidecar.breakglass.keys import can_encrypt, public_path, write_key_pair
from sidecar.breakglass.order import MAX_SIGNATURES, decode_order, encode_order
from sidecar.breakglass.signers import load_signers
from sidecar.breakglass.sshsig import fingerprint
from sidecar.cli.admin_client import admin_call
from sidecar.cli.breakglass_file import (
    read_order_file,
    replace_order_file,
    submit_order,
    write_order_file,
)
from sidecar.cli.breakglass_grant import make_grant
from sidecar.cli.breakglass_key import (
    FILE,
    ask_passphrase,
    open_signer,
    passphrase_option,
    signer_options,
)
from sidecar.cli.breakglass_view import (
    LIST_HEADINGS,
    check_signatures,
    describe_file,
    held_rows,
    list_row,
    moment,
    order_rows,
)
from sidecar.cli.table import print_table
from sidecar.clock import SYSTEM_CLOCK, Clock, rfc3339_s
from sidecar.errors import ConfigurationError, OrderRefused, SidecarError
from sidecar.terminal import escape

CLOCK: Clock = SYSTEM_CLOCK

_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document.")
_OUT = click.option("--out", type=FILE, help="Write the order to this new file.")


@click.group()
def command() -> None:
    """Make, sign, send and follow emergency grants.

    A grant opens what it names, for whom it names, until it ends; it is verified offline by its signatures.
    """


@command.command(short_help="Make a key pair for signing.")
@click.argument("name", type=FILE)
@click.option("--signer", metavar="NAME", help="Your name in the signers file [the last part of NAME].")
@passphrase_option
def keygen(name: Path, signer: str | None, passphrase_file: Path | None) -> None:
    """Make the key pair NAME and NAME.pub.

    NAME is an OpenSSH private key, encrypted if there is a passphrase: from a file, or asked for on a
    terminal. NAME.pub is one line for the signers file. Nothing is overwritten.
    """
    person = parse_person(signer or name.name)
    why_not = "no passphrase was given"
    if passphrase_file is None and not can_encrypt():
        passphrase, why_not = None, "the package bcrypt is not installed"
    else:
        passphrase = ask_passphrase(passphrase_file, "passphrase (empty for none)", new=True)
    key = write_key_pair(name, person, passphrase)
    how = "encrypted" if passphrase is not None else f"NOT encrypted: {why_not}"
    click.echo(f"{name}      private key of {person}, {how}")
    click.echo(f"{public_path(name)}  line for the signers file")
    click.echo(fingerprint(key.public_key().public_bytes_raw()))


@command.command(short_help="Make and sign a grant.")
@click.option("--to", "subject", metavar="SPIFFE_ID", required=True, help="The caller for whom it opens.")
@click.option(
    "--allow", "targets", metavar="'METHOD[,METHOD] PATH'", required=True, multiple=True,
    help="What it opens: methods and a path pattern. May be repeated.",
)  # fmt: skip
@click.option("--for", "ttl", metavar="DURATION", required=True, help="How long, such as 15m; at most 4h.")
@click.option("--reason", required=True, help="Why; it stands in every record.")
@click.option(
    "--audience", metavar="SPIFFE_ID", multiple=True,
    help="A sidecar that shall accept it. May be repeated [the sidecar that runs here].",
)  # fmt: skip
@click.option(
    "--wide", metavar="TRUST_DOMAIN", help="Instead of --audience: every sidecar of a trust domain."
)
@click.option("--max-uses", type=click.IntRange(1, MAX_USES), help="Number of calls; for one sidecar only.")
@click.option("--send", is_flag=True, help="Hand it to the running sidecar.")
@_OUT
@_JSON
@signer_options
def grant(
    subject: str,
    targets: tuple[str, ...],
    ttl: str,
    reason: str,
    audience: tuple[str, ...],
    wide: str | None,
    max_uses: int | None,
    send: bool,
    out: Path | None,
    as_json: bool,
    key: Path,
    signer: str | None,
    passphrase_file: Path | None,
) -> None:
    """Make and sign a grant.

    Without --out and --send it is written to ID.bg. It begins now, so approve and send it before it ends.
    """
    made = make_grant(subject, targets, ttl, reason, audience, wide, max_uses, CLOCK.wall_s())
    requester = open_signer(key, signer, passphrase_file)
    made = replace(made, requester=requester.person)
    data = requester.make_order(made)
    if out is None and not send:
        out = Path(f"{made.id}.bg")
    if out is not None:
        write_order_file(out, data)
    answer = submit_order(data) if send else None
    ends = rfc3339_s(made.not_after_s)
    if as_json:
        document = {"grant": made.id, "path": str(out) if out else None, "not_after": ends, "sent": answer}
        click.echo(json.dumps(document, indent=2))
        return
    if out is not None:
        click.echo(f"written to {out}")
    if answer is not None:
        click.echo(_tell(answer))
    click.echo(f"grant {made.id} ends {moment(ends, CLOCK.wall_s())}")


@command.command(short_help="Add your signature to a grant, after showing it.")
@click.argument("file", type=FILE)
@_OUT
@click.option("--yes", is_flag=True, help="Do not ask on a terminal.")
@signer_options
def approve(
    file: Path, out: Path | None, yes: bool, key: Path, signer: str | None, passphrase_file: Path | None
) -> None:
    """Add your signature to the grant in FILE, after showing all that it says.

    You sign the bytes that are shown. The one who made the grant cannot approve it, and nobody can twice.
    """
    order = decode_order(read_order_file(file))
    body = order.body
    if not isinstance(body, Grant):
        raise OrderRefused("malformed", f"{str(file)!r} is no grant; only grants are approved")
    signatures = check_signatures(order, None)
    print_table(("what", "value"), order_rows(order, signatures, CLOCK.wall_s()))
    if CLOCK.wall_s() >= body.not_after_s:
        raise OrderRefused("expired", "the grant has ended; make a new one")
    if len(signatures) >= MAX_SIGNATURES:
        raise OrderRefused("malformed", f"the grant has {MAX_SIGNATURES} signatures, which is the most")
    approver = open_signer(key, signer, passphrase_file)
    if approver.person == body.requester:
        raise OrderRefused(
            "self-approval", f"{approver.person!r} made this grant; somebody else must approve it"
        )
    if approver.public_key in [each.key for each in signatures]:
        raise OrderRefused("duplicate-signer", "this key has signed the grant already")
    if sys.stdin.isatty() and not yes:
        click.confirm(f"sign this as {approver.person}?", abort=True, err=True)
    data = encode_order(order.payload, (*order.signatures, approver.sign(order.payload)))
    decode_order(data)
    if out is not None:
        write_order_file(out, data)
    else:
        replace_order_file(file, data)
    click.echo(f"approved by {approver.person}: {len(order.signatures) + 1} signatures in {out or file}")


@command.command(short_help="Hand an order to the running sidecar.")
@click.argument("file", type=FILE)
@_JSON
def send(file: Path, as_json: bool) -> None:
    """Hand the order in FILE to the running sidecar. Exit 3 when it is refused."""
    answer = submit_order(read_order_file(file))
    click.echo(json.dumps(answer, indent=2) if as_json else _tell(answer))


@command.command(name="list", short_help="List the grants that the sidecar knows.")
@_JSON
def list_grants(as_json: bool) -> None:
    """List the grants that the running sidecar knows, ended ones included."""
    grants = _ask_grants()
    if as_json:
        click.echo(json.dumps(grants, indent=2))
    else:
        print_table(LIST_HEADINGS, [list_row(each, CLOCK.wall_s()) for each in grants])


@command.command(short_help="Show a grant: a file, or one the sidecar knows.")
@click.argument("file_or_id")
@click.option("--signers", type=FILE, help="Check whose the signatures are by this signers file.")
@_JSON
def show(file_or_id: str, signers: Path | None, as_json: bool) -> None:
    """Show all that a file says, or all that the running sidecar knows about the grant with an ID.

    A file needs nothing that runs. Its signatures are checked; whose they are only --signers can say. Exit 3
    when one of them does not fit.
    """
    now_s = CLOCK.wall_s()
    if _is_id(file_or_id) and not os.path.lexists(file_or_id):
        held = next((each for each in _ask_grants() if each.get("grant") == file_or_id), None)
        if held is None:
            raise SidecarError(f"the running sidecar knows no grant {file_or_id!r}")
        document, rows = held, held_rows(held, now_s)
    else:
        order = decode_order(read_order_file(Path(file_or_id)))
        signatures = check_signatures(order, load_signers(signers) if signers else None)
        document, rows = describe_file(order, signatures), order_rows(order, signatures, now_s)
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        print_table(("what", "value"), rows)


@command.command(short_help="End a grant, for ever.")
@click.argument("grant_id", metavar="ID")
@click.option("--reason", default="revoked by its signer", show_default=True, help="Why.")
@click.option("--send", is_flag=True, help="With --out: hand it to the running sidecar too.")
@_OUT
@_JSON
@signer_options
def revoke(
    grant_id: str,
    reason: str,
    send: bool,
    out: Path | None,
    as_json: bool,
    key: Path,
    signer: str | None,
    passphrase_file: Path | None,
) -> None:
    """End the grant ID, for ever. One signer is enough; calls that are open under it are cut within a second.

    Goes to the running sidecar, or with --out into a file for others. A sidecar that has not got the grant
    yet will refuse it then.
    """
    revoker = open_signer(key, signer, passphrase_file)
    body = Revocation(parse_grant_id(grant_id), reason, revoker.person, int(CLOCK.wall_s()))
    _deliver(revoker.make_order(body), out, send or out is None, as_json)


@command.command(short_help="Say that you have looked at what a grant was used for.")
@click.argument("grant_id", metavar="ID")
@click.option("--note", required=True, help="What you found.")
@click.option("--send", is_flag=True, help="With --out: hand it to the running sidecar too.")
@_OUT
@_JSON
@signer_options
def review(
    grant_id: str,
    note: str,
    send: bool,
    out: Path | None,
    as_json: bool,
    key: Path,
    signer: str | None,
    passphrase_file: Path | None,
) -> None:
    """Say that you have looked at what was done under the grant ID. For somebody else than who made it."""
    reviewer = open_signer(key, signer, passphrase_file)
    body = Review(parse_grant_id(grant_id), note, reviewer.person, int(CLOCK.wall_s()))
    _deliver(reviewer.make_order(body), out, send or out is None, as_json)


def _ask_grants() -> list[dict[str, Any]]:
    grants = admin_call("GET", "/v1/grants")
    if not isinstance(grants, list) or any(not isinstance(each, dict) for each in grants):
        raise SidecarError("the running sidecar's answer is no list of grants")
    return grants


def _deliver(data: bytes, out: Path | None, send_it: bool, as_json: bool) -> None:
    if out is not None:
        write_order_file(out, data)
    answer = submit_order(data) if send_it else None
    if as_json:
        click.echo(json.dumps({"path": str(out) if out else None, "sent": answer}, indent=2))
        return
    if out is not None:
        click.echo(f"written to {out}")
    if answer is not None:
        click.echo(_tell(answer))


def _tell(answer: dict[str, Any]) -> str:
    """One line about an order that was taken."""
    known = " already: nothing has changed" if answer.get("result") == "known" else ""
    line = f"the sidecar has the {answer.get('kind')} of {answer.get('grant')}{known}"
    if answer.get("kind") == "grant":
        line = f"the sidecar has the grant {answer.get('grant')} for {answer.get('subject')}{known}"
    return escape(line)


def _is_id(text: str) -> bool:
    try:
        parse_grant_id(text)
    except ConfigurationError:
        return False
    return True
