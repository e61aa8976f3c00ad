"""Who signs on the command line: key, passphrase, and the person whose key it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.breakglass.grant import Grant, Review, Revocation, parse_person
from sidecar.breakglass.keys import find_person, load_key, read_secret
from sidecar.breakglass.order import decode_order, encode_order, encode_payload
from sidecar.breakglass.sshsig import sign_message
from sidecar.errors import ConfigurationError, OrderRefused

Command = TypeVar("Command", bound=Callable[..., Any])

FILE = click.Path(path_type=Path, dir_okay=False)

passphrase_option = click.option(
    "--passphrase-file", type=FILE, help="File with the key's passphrase in its first line."
)


@dataclass(frozen=True, slots=True)
class Signer:
    """Somebody with a key in hand."""

    person: str
    key: Ed25519PrivateKey

    @property
    def public_key(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    def sign(self, payload: bytes) -> bytes:
        return sign_message(self.key, payload)

    def make_order(self, body: Grant | Revocation | Review) -> bytes:
        """An order file with this one signature. ConfigurationError for what every sidecar would refuse."""
        payload = encode_payload(body)
        data = encode_order(payload, (self.sign(payload),))
        try:
            decode_order(data)
        except OrderRefused as exc:
            raise ConfigurationError(str(exc)) from exc
        return data


def signer_options(command: Command) -> Command:
    """``--key``, ``--signer`` and ``--passphrase-file``; :func:`open_signer` takes their values."""
    name = "Your name in the signers file, where KEY.pub does not say it."
    for option in (
        passphrase_option,
        click.option("--signer", metavar="NAME", help=name),
        click.option("--key", type=FILE, required=True, help="Your OpenSSH Ed25519 private key."),
    ):
        command = option(command)
    return command


def open_signer(key: Path, signer: str | None, passphrase_file: Path | None) -> Signer:
    """The signer that the options name. Raises :class:`ConfigurationError`."""
    if signer is not None:
        parse_person(signer)
    loaded = load_key(key, lambda: ask_passphrase(passphrase_file, f"passphrase of {key}"))
    return Signer(signer or find_person(key, loaded), loaded)


def ask_passphrase(file: Path | None, question: str, *, new: bool = False) -> bytes | None:
    """From the file, or from whoever sits at the terminal; None where there is neither, or it is empty.

    Raises :class:`ConfigurationError` for a file whose first line is empty, or that others may read.
    """
    if file is not None:
        lines = read_secret(file, "the passphrase file").splitlines()
        if not lines or not lines[0]:
            raise ConfigurationError(f"the passphrase file {str(file)!r} begins with an empty line")
        return lines[0]
    if not sys.stdin.isatty():
        return None
    default = "" if new else None
    text: str = click.prompt(
        question, hide_input=True, err=True, confirmation_prompt=new, default=default, show_default=False
    )
    return text.encode() or None
