"""Files that are whole or not there: written beside their place, synced, then renamed into it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

# No entry's name starts so, because '+' cannot stand in a SPIFFE path.
TEMPORARY: Final = "+tmp-"


class Content(NamedTuple):
    """One file to be: its name, its bytes, its mode whatever the umask."""

    name: str
    data: bytes
    mode: int = 0o600


def write_files(directory: Path, contents: Sequence[Content]) -> None:
    """Puts each file into ``directory``, in this order, and all of them onto the disk. Raises OSError.

    Everything is written and synced before the first rename, so that a disk that is full changes nothing, and
    so that a reader who opens several of them meets a mixture for microseconds only.
    """
    ready: list[tuple[Path, Path]] = []
    try:
        for content in contents:
            temporary = directory / f"{TEMPORARY}{secrets.token_hex(8)}"
            ready.append((temporary, directory / content.name))
            _write(temporary, content)
        for temporary, place in ready:
            os.replace(temporary, place)
    finally:
        for temporary, _ in ready:
            with contextlib.suppress(OSError):
                temporary.unlink()
    sync_directory(directory)


def write_directory(place: Path, contents: Sequence[Content]) -> None:
    """Makes the directory ``place`` (0700) with these files, in one step. OSError if one with files is there."""
    temporary = place.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
    os.mkdir(temporary, 0o700)
    try:
        for content in contents:
            _write(temporary / content.name, content)
        sync_directory(temporary)
        os.rename(temporary, place)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_directory(place.parent)


def remove_temporaries(directory: Path) -> None:
    """Removes what a process that was killed while writing has left in ``directory``. Raises OSError."""
    for path in directory.iterdir():
        if not path.name.startswith(TEMPORARY):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def sync_directory(directory: Path) -> None:
    """Puts the names in ``directory`` onto the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, content: Content) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        os.fchmod(file.fileno(), content.mode)
        file.write(content.data)
        file.flush()
        os.fsync(file.fileno())
