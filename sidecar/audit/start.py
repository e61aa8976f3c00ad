"""What a line `start` says of the log that it is in. Pure."""

from __future__ import annotations

import base64
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sidecar.errors import VerificationError


class StartLine(msgspec.Struct, frozen=True, gc=False):
    """The log's id, the key it is signed with, and how the run before had ended."""

    log: str
    public_key: str
    after: str = ""


def read_start(line: bytes) -> StartLine:
    """What the line says. Raises VerificationError when it names no log or no key."""
    try:
        return _decoder.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise VerificationError("this line does not name the log and its key") from exc


def parse_stated_key(line: bytes) -> Ed25519PublicKey | None:
    """The key that a line `start` says its log is signed with; None when it is no such line."""
    try:
        return Ed25519PublicKey.from_public_bytes(
            base64.b64decode(read_start(line).public_key, validate=True)
        )
    except (VerificationError, ValueError):
        return None


_decoder: Final = msgspec.json.Decoder(StartLine)
