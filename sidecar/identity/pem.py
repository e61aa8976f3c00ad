"""PEM, read strictly: blocks of one label, and nothing but white space around them (RFC 7468, section 3). Pure."""

from __future__ import annotations

import base64
import re
from typing import Final

from cryptography import x509

from sidecar.errors import IdentityError

CERTIFICATE: Final = "CERTIFICATE"
PRIVATE_KEY: Final = "PRIVATE KEY"

_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")


def parse_blocks(data: bytes, label: str) -> list[bytes]:
    """The contents of the ``label`` blocks in ``data``, decoded; none at all for white space only.

    Raises :class:`IdentityError` for a block of another label, for text outside of blocks, and for a block that is cut
    off or is not base64. Nothing of what was read stands in the message: it might be a key.
    """
    blocks: list[bytes] = []
    body: list[bytes] | None = None
    for line in map(bytes.strip, data.splitlines()):
        if body is None:
            if line:
                _check_begin(line, label)
                body = []
        elif line == b"-----END %b-----" % label.encode():
            blocks.append(_decode(b"".join(body), label))
            body = None
        else:
            body.append(line)
    if body is not None:
        raise IdentityError("FORM", f"the PEM block {label!r} is cut off")
    return blocks


def parse_certificates(data: bytes) -> list[x509.Certificate]:
    """The certificates in ``data`` in their order; at least one. Raises :class:`IdentityError`."""
    certificates = [load_certificate(block) for block in parse_blocks(data, CERTIFICATE)]
    if not certificates:
        raise IdentityError("FORM", "there is no certificate in it")
    return certificates


def load_certificate(der: bytes) -> x509.Certificate:
    """The certificate ``der``, whose extensions can be read too. Raises :class:`IdentityError`."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        _ = certificate.extensions  # read late by the library, and full of what can go wrong
    except (
        Exception
    ) as exc:  # boundary: the library has half a dozen ways to say that DER is not what it should be
        raise IdentityError("FORM", f"a certificate cannot be read: {type(exc).__name__}") from exc
    return certificate


def decode_base64(text: bytes) -> bytes:
    """What ``text`` spells, if there is no other way to spell it. ValueError otherwise.

    The standard library lets padding pass where none belongs, and bits that no octet holds.
    """
    octets = base64.b64decode(text, validate=True)
    if base64.b64encode(octets) != text:
        raise ValueError("not the one way to write it in base64")
    return octets


def _check_begin(line: bytes, label: str) -> None:
    found = _BEGIN.fullmatch(line)
    if found is None:
        raise IdentityError("FORM", "there is something else than PEM blocks in it")
    if found[1] != label.encode():
        raise IdentityError("FORM", f"there is a PEM block {found[1].decode()!r} in it, expected {label!r}")


def _decode(body: bytes, label: str) -> bytes:
    try:
        return decode_base64(body)
    except ValueError:
        raise IdentityError("FORM", f"the PEM block {label!r} is not base64") from None
