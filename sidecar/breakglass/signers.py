"""The signers file: whose signatures count. OpenSSH's ``allowed_signers`` form, one strict subset of it.

``NAME namespaces="break-glass@sidecar" ssh-ed25519 AAAA...``: a person, the one option, a key. A person may
have several keys and counts once; a key belongs to one person.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from sidecar.breakglass.grant import parse_person
from sidecar.breakglass.sshsig import KEY_TYPE, NAMESPACE, decode_public_key, encode_public_key, fingerprint
from sidecar.errors import ConfigurationError, ProblemsError

MAX_FILE_BYTES: Final = 256 << 10
MAX_KEYS: Final = 1000
MAX_PROBLEMS: Final = 100

_OPTION: Final = f'namespaces="{NAMESPACE}"'
_SPACES = re.compile(r"[ \t]+")
_WILD = re.compile(r"[*?!,]")


@dataclass(frozen=True, slots=True)
class Signers:
    """Person by public key (32 bytes). Empty where there is no file: then every order is refused."""

    people: Mapping[bytes, str] = field(default_factory=dict)

    def find(self, key: bytes) -> str | None:
        """Whose key it is; None for a stranger's."""
        return self.people.get(key)

    @property
    def names(self) -> tuple[str, ...]:
        """Every person once, sorted."""
        return tuple(sorted(set(self.people.values())))


NO_SIGNERS: Final = Signers()


def load_signers(path: Path) -> Signers:
    """The signers in the file at ``path``.

    Raises :class:`ProblemsError` with every mistake as ``FILE:LINE: message``, or :class:`ConfigurationError`
    when it cannot be read, is no file, is too large, or may be written by others.
    """
    try:
        # A pipe in its place must not block the start.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            _check_owner(path, os.fstat(fd))
            data = os.read(fd, MAX_FILE_BYTES + 1)
        finally:
            os.close(fd)
    except OSError as exc:
        raise ConfigurationError(f"the signers file {str(path)!r} cannot be read: {exc.strerror}") from exc
    if len(data) > MAX_FILE_BYTES:
        raise ConfigurationError(f"the signers file {str(path)!r} has more than {MAX_FILE_BYTES} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"the signers file {str(path)!r} is not UTF-8") from exc
    return parse_signers(text, str(path))


def _check_owner(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(f"the signers file {str(path)!r} is no regular file")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or status.st_uid not in (os.geteuid(), 0):
        raise ConfigurationError(
            f"the signers file {str(path)!r} belongs to uid {status.st_uid} and has mode "
            f"{stat.S_IMODE(status.st_mode):04o}: who can write it decides who may break the glass; "
            "give it to root or to us, and chmod it to 0644"
        )


def parse_signers(text: str, name: str) -> Signers:
    """The signers in ``text``; empty lines and lines that begin with ``#`` are passed over. Pure.

    Raises :class:`ProblemsError`; its problems begin with ``NAME:LINE:``. One wrong line spoils the file: a
    person who is left out could be the one that is needed, and one who is read differently could be a
    stranger.
    """
    people: dict[bytes, str] = {}
    spellings: dict[str, str] = {}
    problems: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip(" \t") or line.startswith("#"):
            continue
        try:
            person, key = parse_signer(line)
            spelling = spellings.setdefault(person.lower(), person)
            if spelling != person:
                raise ConfigurationError(f"{person!r} and {spelling!r} differ in case only; use one spelling")
            if key in people:
                owner = "the same person" if people[key] == person else repr(people[key])
                raise ConfigurationError(f"the key {fingerprint(key)} stands here already, for {owner}")
            people[key] = person
        except ConfigurationError as exc:
            problems.append(f"{name}:{number}: {exc}")
        if len(people) > MAX_KEYS:
            problems.append(f"{name}:{number}: there are more than {MAX_KEYS} keys")
        if len(people) > MAX_KEYS or len(problems) >= MAX_PROBLEMS:
            break
    if problems:
        raise ProblemsError(problems)
    return Signers(MappingProxyType(people))


def parse_signer(line: str) -> tuple[str, bytes]:
    """Person and key of one line. Raises :class:`ConfigurationError`."""
    if not line.replace("\t", " ").isprintable():
        raise ConfigurationError("the line has control characters; lines end with LF alone")
    words = _SPACES.split(line.strip(" \t"))
    if _WILD.search(words[0]):
        raise ConfigurationError(f"{words[0]!r} has a wildcard or several names; a line is about one person")
    person = parse_person(words[0])
    if len(words) < 4 or words[1] != _OPTION:
        raise ConfigurationError(
            f"expected {_OPTION} alone between name and key; write NAME {_OPTION} {KEY_TYPE} AAAA..."
        )
    if words[2] != KEY_TYPE:
        raise ConfigurationError(f"the key is of type {words[2]!r}; {KEY_TYPE} is what is accepted")
    try:
        key = decode_public_key(base64.b64decode(words[3], validate=True))
    except (binascii.Error, ValueError) as exc:
        raise ConfigurationError(f"the key is not the base64 of an {KEY_TYPE} key") from exc
    if words[3] != _base64(key):
        raise ConfigurationError("the key is not written in its one form")
    return person, key


def write_signer(person: str, key: bytes) -> str:
    """The line that :func:`parse_signer` reads; ends with a newline."""
    return f"{person} {_OPTION} {KEY_TYPE} {_base64(key)}\n"


def _base64(key: bytes) -> str:
    return base64.b64encode(encode_public_key(key)).decode()
