"""SSHSIG signatures (OpenSSH's PROTOCOL.sshsig), with everything that could be chosen fixed. Pure.

Namespace ``break-glass@sidecar``, hash SHA-512, key type ``ssh-ed25519``: any other is refused, so that there
is no algorithm to confuse and no signature that was made for another purpose.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sidecar.errors import OrderRefused

NAMESPACE: Final = "break-glass@sidecar"
KEY_TYPE: Final = "ssh-ed25519"

_MAGIC: Final = b"SSHSIG"
_VERSION: Final = 1
_HASH: Final = b"sha512"
_BEGIN: Final = "-----BEGIN SSH SIGNATURE-----"
_END: Final = "-----END SSH SIGNATURE-----"


def sign_message(key: Ed25519PrivateKey, message: bytes) -> bytes:
    """The signature of ``message`` as a blob."""
    signature = key.sign(_signed_data(message))
    return b"".join(
        [
            _MAGIC,
            struct.pack(">I", _VERSION),
            _string(encode_public_key(key.public_key().public_bytes_raw())),
            _string(NAMESPACE.encode()),
            _string(b""),
            _string(_HASH),
            _string(_string(KEY_TYPE.encode()) + _string(signature)),
        ]
    )


def verify_message(message: bytes, blob: bytes) -> bytes:
    """The public key (32 bytes) that signed ``message``; whose it is is another question.

    Raises OrderRefused: ``malformed`` when ``blob`` is no SSHSIG of the one kind, ``signature`` when it does
    not fit.
    """
    key, signature = _split(blob)
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, _signed_data(message))
    except (InvalidSignature, ValueError) as exc:
        raise OrderRefused(
            "signature", f"a signature by {fingerprint(key)} does not fit the payload"
        ) from exc
    return key


def encode_public_key(key: bytes) -> bytes:
    """The blob that stands, in base64, in a signers file."""
    return _string(KEY_TYPE.encode()) + _string(key)


def decode_public_key(blob: bytes) -> bytes:
    """The 32 bytes of an ``ssh-ed25519`` key. ValueError for anything else."""
    kind, rest = _take(blob)
    key, rest = _take(rest)
    if kind != KEY_TYPE.encode() or len(key) != 32 or rest:
        raise ValueError(f"no {KEY_TYPE} key")
    return key


def fingerprint(key: bytes) -> str:
    """What ``ssh-keygen -l`` shows for the key."""
    digest = hashlib.sha256(encode_public_key(key)).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def armor(blob: bytes) -> str:
    """The text form that ``ssh-keygen -Y verify`` reads; ends with a newline."""
    text = base64.b64encode(blob).decode()
    return "\n".join([_BEGIN, *(text[at : at + 70] for at in range(0, len(text), 70)), _END]) + "\n"


def dearmor(text: str) -> bytes:
    """The blob in what :func:`armor` or ``ssh-keygen -Y sign`` wrote. Raises OrderRefused (``malformed``)."""
    lines = text.splitlines()
    if len(lines) < 3 or lines[0] != _BEGIN or lines[-1] != _END:
        raise OrderRefused("malformed", "this is no SSH signature")
    try:
        return base64.b64decode("".join(lines[1:-1]), validate=True)
    except binascii.Error as exc:
        raise OrderRefused("malformed", "the SSH signature is no base64") from exc


def _signed_data(message: bytes) -> bytes:
    digest = hashlib.sha512(message).digest()
    return _MAGIC + _string(NAMESPACE.encode()) + _string(b"") + _string(_HASH) + _string(digest)


def _split(blob: bytes) -> tuple[bytes, bytes]:
    """Key and signature of a blob of the one kind; every byte of it is accounted for."""
    try:
        if not blob.startswith(_MAGIC + struct.pack(">I", _VERSION)):
            raise ValueError("no SSHSIG of version 1")
        public_key, rest = _take(blob[len(_MAGIC) + 4 :])
        namespace, rest = _take(rest)
        reserved, rest = _take(rest)
        hash_name, rest = _take(rest)
        signature, rest = _take(rest)
        key = decode_public_key(public_key)
        if (namespace, reserved, hash_name, rest) != (NAMESPACE.encode(), b"", _HASH, b""):
            raise ValueError(f"another namespace than {NAMESPACE}, another hash than sha512, or more bytes")
        kind, rest = _take(signature)
        raw, rest = _take(rest)
        if kind != KEY_TYPE.encode() or len(raw) != 64 or rest:
            raise ValueError(f"no {KEY_TYPE} signature")
    except ValueError as exc:
        raise OrderRefused("malformed", f"a signature is not acceptable: {exc}") from exc
    return key, raw


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _take(data: bytes) -> tuple[bytes, bytes]:
    """An SSH string and what follows it. ValueError when it is cut off."""
    if len(data) < 4:
        raise ValueError("it ends too early")
    length = int.from_bytes(data[:4], "big")
    if len(data) < 4 + length:
        raise ValueError("it ends too early")
    return data[4 : 4 + length], data[4 + length :]
