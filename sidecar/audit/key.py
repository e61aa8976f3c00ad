"""The key that signs a log's checkpoints: made at the first start, never replaced, kept beside the log."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from sidecar.audit.chain import LogKey
from sidecar.audit.directory import sync_directory
from sidecar.errors import ConfigurationError, StateError

_MAX_BYTES: Final = 4096


def open_key(path: Path, *, may_create: bool) -> LogKey:
    """The key in the PEM file ``path``; a new one if there is none and ``may_create``. Blocks.

    Its public half is kept beside it, with the suffix ``.pub``. Raises :class:`StateError` when the key is missing,
    damaged, or readable by others, and when the ``.pub`` is another key's: whoever checks the log with that would be
    told that it is forged.
    """
    try:
        data = _read_private(path)
    except FileNotFoundError:
        if not may_create:
            raise StateError(
                f"the log has lines, but its key {str(path)!r} is missing; restore it, or move the log away so that a "
                "new one begins"
            ) from None
        data = _create(path)
    except OSError as exc:
        raise StateError(f"the log's key {str(path)!r} cannot be read: {exc.strerror}") from exc
    key = _parse_private(path, data)
    _keep_public(path.with_suffix(".pub"), key)
    return LogKey(key)


def load_public_key(path: Path) -> Ed25519PublicKey:
    """The public key in a PEM file such as ``audit.pub``. Raises :class:`ConfigurationError`."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as exc:
        raise ConfigurationError(
            f"the log's public key {str(path)!r} cannot be read: {exc.strerror}"
        ) from exc
    try:
        key = load_pem_public_key(data) if len(data) <= _MAX_BYTES else None
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise ConfigurationError(f"{str(path)!r} is no public key in PEM") from exc
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError(f"{str(path)!r} is no Ed25519 public key")
    return key


def _read_private(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (os.geteuid(), 0):
            raise StateError(f"the log's key {str(path)!r} is no regular file of uid {os.geteuid()}")
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise StateError(
                f"the log's key {str(path)!r} has mode {stat.S_IMODE(status.st_mode):04o}: others may have read it; "
                "if nobody has, chmod it to 0600"
            )
        return file.read(_MAX_BYTES + 1)


def _parse_private(path: Path, data: bytes) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(data, None) if len(data) <= _MAX_BYTES else None
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise StateError(f"the log's key {str(path)!r} is damaged; restore it") from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise StateError(f"the log's key {str(path)!r} is no Ed25519 key; restore it")
    return key


def _create(path: Path) -> bytes:
    data = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        _write_new(path, data, 0o600)
    except OSError as exc:
        raise StateError(f"the log's key {str(path)!r} cannot be made: {exc.strerror}") from exc
    return data


def _keep_public(path: Path, key: Ed25519PrivateKey) -> None:
    public = key.public_key()
    try:
        if path.exists():
            if load_public_key(path).public_bytes_raw() != public.public_bytes_raw():
                raise StateError(
                    f"{str(path)!r} is not the public half of the log's key beside it; restore one of them"
                )
            return
        _write_new(path, public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), 0o644)
    except ConfigurationError as exc:
        raise StateError(f"{exc}; remove it, and the next start writes it again") from exc
    except OSError as exc:
        raise StateError(f"the log's public key {str(path)!r} cannot be kept: {exc.strerror}") from exc


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """A whole file on disk or none."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(fd, mode)  # whatever the umask says
            os.fsync(fd)
        os.rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_directory(path.parent)
