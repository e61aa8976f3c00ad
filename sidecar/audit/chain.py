r"""The hash chain and its signed checkpoints. Pure.

``prev`` of a line is the SHA-256 of the exact bytes of the line before, newline excluded, so that verifying
needs no canonical form. A checkpoint says how far the chain had come, and everything it says is signed::

    "sidecar audit checkpoint v1\n" LOG "\n" SIZE "\n" HEAD "\n" ENTRIES "\n" TIME "\n"

LOG is the log's random id, SIZE the number of lines before this one, HEAD the hash of the last of them,
ENTRIES the entry count of the journal of grants, TIME the line's ``ts``. The line is written in exactly one
way: who writes it anew from what it says gets the same bytes, or has found a change.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sidecar.audit.record import encode_body, encode_event
from sidecar.errors import VerificationError

DOMAIN: Final = "sidecar audit checkpoint v1"
LOG_ID_BYTES: Final = 16

_HEX_64: Final = re.compile(r"[0-9a-f]{64}")
_LOG_ID: Final = re.compile(r"[0-9a-f]{32}")
_TS: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)


class Head(msgspec.Struct, frozen=True, gc=False):
    """What chaining needs of a line, whatever else it says."""

    v: int
    seq: int
    event: str
    ts: str
    prev: str | None


class _CheckpointLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    v: int
    seq: int
    event: str
    ts: str
    log: str
    size: int
    head: str
    entries: int
    key: str
    signature: str
    prev: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a proven checkpoint says: ``size`` lines of ``log`` end in ``head``.

    ``entries`` counts the journal of grants; ``line`` is the line itself, without newline.
    """

    log: str
    size: int
    head: str
    entries: int
    ts: str
    line: bytes

    @property
    def seq(self) -> int:
        """The checkpoint's own place in the chain."""
        return self.size + 1


class Signer(Protocol):
    """Who signs checkpoints."""

    @property
    def key_id(self) -> str: ...

    def sign(self, message: bytes) -> bytes: ...


class LogKey:
    """The private half of a log's key; no text of it ever shows it."""

    __slots__ = ("_key", "key_id", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key()
        self.key_id = key_id(self.public)

    def sign(self, message: bytes) -> bytes:
        """An Ed25519 signature; 30 us."""
        return self._key.sign(message)


def key_id(key: Ed25519PublicKey) -> str:
    """The start of the SHA-256 of the raw public key, in hex: tells keys apart, proves nothing."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def show_key(key: Ed25519PublicKey) -> str:
    """The raw public key in base64, as a line `start` names it."""
    return base64.b64encode(key.public_bytes_raw()).decode()


def hash_line(line: bytes) -> str:
    """What the next line's ``prev`` has to be; ``line`` without its newline."""
    return hashlib.sha256(line).hexdigest()


def read_head(line: bytes) -> Head:
    """The members that chain a line. Raises VerificationError when it is no such line."""
    try:
        return _head_decoder.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise VerificationError("not a JSON object with v, seq, event, ts and prev") from exc


def write_checkpoint(log: str, size: int, head: str, entries: int, ts: str, signer: Signer) -> bytes:
    """The signed checkpoint line that follows line number ``size``, without newline."""
    signature = base64.b64encode(signer.sign(_message(log, size, head, entries, ts))).decode()
    return _write(log, size, head, entries, ts, signer.key_id, signature)


def read_checkpoint(line: bytes, key: Ed25519PublicKey) -> Checkpoint:
    """The proven checkpoint in ``line`` (no newline). Raises VerificationError; 100 us for the signature."""
    try:
        said = _checkpoint_decoder.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise VerificationError("this checkpoint does not have a checkpoint's members") from exc
    if said.event != "checkpoint" or not _is_well_formed(said):
        raise VerificationError("this checkpoint has members of the wrong form")
    if said.key != key_id(key):
        raise VerificationError(
            f"another key signed this checkpoint: expected {key_id(key)}, got {said.key!r}"
        )
    if _write(said.log, said.size, said.head, said.entries, said.ts, said.key, said.signature) != line:
        raise VerificationError("this checkpoint was changed: it is not written the way checkpoints are")
    try:
        signature = base64.b64decode(said.signature, validate=True)
        key.verify(signature, _message(said.log, said.size, said.head, said.entries, said.ts))
    except (InvalidSignature, binascii.Error, ValueError) as exc:
        raise VerificationError("the signature does not fit what this checkpoint says") from exc
    return Checkpoint(said.log, said.size, said.head, said.entries, said.ts, line)


def looks_like_checkpoint(line: bytes) -> bool:
    """Whether the line has a checkpoint's members, whatever its event is called: no other line has them.

    Quotes inside of strings are escaped, so that no text in a line can look like a member.
    """
    return b'"signature":"' in line and b'"size":' in line and b'"head":"' in line


def _is_well_formed(said: _CheckpointLine) -> bool:
    return bool(
        _LOG_ID.fullmatch(said.log)
        and _HEX_64.fullmatch(said.head)
        and _TS.fullmatch(said.ts)
        and said.size > 0
        and said.entries >= 0
    )


def _message(log: str, size: int, head: str, entries: int, ts: str) -> bytes:
    return f"{DOMAIN}\n{log}\n{size}\n{head}\n{entries}\n{ts}\n".encode()


def _write(log: str, size: int, head: str, entries: int, ts: str, key: str, signature: str) -> bytes:
    body = {"log": log, "size": size, "head": head, "entries": entries, "key": key, "signature": signature}
    return encode_event(size + 1, "checkpoint", ts, encode_body("checkpoint", body), head)


_head_decoder: Final = msgspec.json.Decoder(Head)
_checkpoint_decoder: Final = msgspec.json.Decoder(_CheckpointLine)
