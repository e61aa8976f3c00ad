"""Key files of people who sign: OpenSSH's private key form, readable by nobody else."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.breakglass.signers import parse_signer, write_signer
from sidecar.breakglass.sshsig import KEY_TYPE
from sidecar.errors import ConfigurationError

MAX_KEY_BYTES: Final = 64 << 10

_NO_BCRYPT: Final = "encrypted keys need the package bcrypt, which is not installed: pip install bcrypt"


def load_key(path: Path, passphrase: Callable[[], bytes | None]) -> Ed25519PrivateKey:
    """The private key at ``path``; ``passphrase`` is asked for one only if the key is encrypted.

    Raises :class:`ConfigurationError` when others may read the file, when it is no OpenSSH Ed25519 key, or
    when the passphrase is missing or wrong.
    """
    data = read_secret(path, "the key")
    try:
        try:
            key = serialization.load_ssh_private_key(data, None)
        except TypeError:  # how the library says that it is encrypted
            secret = passphrase()
            if secret is None:
                raise ConfigurationError(
                    f"the key {str(path)!r} is encrypted; give --passphrase-file, or call from a terminal"
                ) from None
            key = serialization.load_ssh_private_key(data, secret)
    except UnsupportedAlgorithm as exc:
        raise ConfigurationError(f"the key {str(path)!r} cannot be read: {_NO_BCRYPT}") from exc
    except ValueError as exc:
        raise ConfigurationError(
            f"the key {str(path)!r} is no OpenSSH private key, or the passphrase is wrong"
        ) from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"the key {str(path)!r} is no {KEY_TYPE} key")
    return key


def read_secret(path: Path, what: str) -> bytes:
    """The content of a file that nobody but its owner may read. Raises :class:`ConfigurationError`."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MAX_KEY_BYTES + 1)
    except OSError as exc:
        raise ConfigurationError(f"{what} {str(path)!r} cannot be read: {exc.strerror}") from exc
    if mode & (stat.S_IRWXG | stat.S_IRWXO) and stat.S_ISREG(mode):
        raise ConfigurationError(
            f"{what} {str(path)!r} is open to others (mode {stat.S_IMODE(mode):04o}); chmod it to 0600"
        )
    if len(data) > MAX_KEY_BYTES:
        raise ConfigurationError(f"{what} {str(path)!r} has more than {MAX_KEY_BYTES} bytes")
    return data


def find_person(path: Path, key: Ed25519PrivateKey) -> str:
    """Whose key it is: what the line in ``PATH.pub`` says, if it is the same key.

    Raises :class:`ConfigurationError` when there is none: a guess would be refused later, and far away.
    """
    public = public_path(path)
    try:
        person, found = parse_signer(public.read_text().rstrip("\n"))
    except (OSError, UnicodeDecodeError, ConfigurationError) as exc:
        raise ConfigurationError(
            f"whose key is {str(path)!r}? {str(public)!r} has no line of a signers file; give --signer NAME"
        ) from exc
    if found != key.public_key().public_bytes_raw():
        raise ConfigurationError(f"{str(public)!r} is not the public half of {str(path)!r}")
    return person


def write_key_pair(path: Path, person: str, passphrase: bytes | None) -> Ed25519PrivateKey:
    """Makes a key: ``path`` (0600) and ``path.pub``, a line for the signers file. Nothing is overwritten.

    Raises :class:`ConfigurationError` when one of them exists or cannot be made, or when the key cannot be
    encrypted.
    """
    key = Ed25519PrivateKey.generate()
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase)
    try:
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, encryption
        )
    except UnsupportedAlgorithm as exc:
        raise ConfigurationError(f"the key cannot be encrypted: {_NO_BCRYPT}") from exc
    line = write_signer(person, key.public_key().public_bytes_raw())
    public = public_path(path)
    if os.path.lexists(public):
        raise ConfigurationError(f"{str(public)!r} exists; choose another name or move it away")
    _write_new(path, private, 0o600)
    try:
        _write_new(public, line.encode(), 0o644)
    except ConfigurationError:
        path.unlink()
        raise
    return key


def can_encrypt() -> bool:
    """Whether keys can be encrypted here."""
    try:
        Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.PrivateFormat.OpenSSH.encryption_builder().kdf_rounds(1).build(b"any"),
        )
    except UnsupportedAlgorithm:
        return False
    return True


def public_path(path: Path) -> Path:
    return path.with_name(path.name + ".pub")


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise ConfigurationError(f"{str(path)!r} exists; choose another name or move it away") from None
    except OSError as exc:
        raise ConfigurationError(f"{str(path)!r} cannot be made: {exc.strerror}") from exc
    with open(fd, "wb") as file:
        file.write(data)
