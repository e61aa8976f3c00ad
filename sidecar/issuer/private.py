"""Directories and files that are ours alone, and the locks on them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from sidecar.errors import StateError


def make_private_directory(path: Path) -> None:
    """Makes ``path``, and each parent that is missing, with mode 0700. Raises :class:`StateError`."""
    try:
        for each in [*reversed(path.parents), path]:
            if not each.is_dir():
                with contextlib.suppress(FileExistsError):
                    each.mkdir(mode=0o700)
    except OSError as exc:
        raise StateError(f"the directory {str(path)!r} cannot be made: {exc.strerror}") from exc
    check_private_directory(path)


def check_private_directory(path: Path) -> None:
    """Raises :class:`StateError` unless ``path`` is a directory of this user that nobody else may write to.

    Root is no exception: what it wrote into another user's directory that user's processes could not read.
    """
    try:
        status = os.stat(path)
    except OSError as exc:
        raise StateError(f"the directory {str(path)!r} cannot be used: {exc.strerror}") from exc
    if not stat.S_ISDIR(status.st_mode):
        raise StateError(f"{str(path)!r} is not a directory")
    _check_owner(path, status)
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StateError(
            f"{str(path)!r} may be written by others (mode {stat.S_IMODE(status.st_mode):04o}); "
            "chmod it to 0700"
        )


def read_private_file(path: Path, limit_bytes: int, *, is_secret: bool = False) -> bytes:
    """The bytes of a regular file of this user that nobody else may write to, nor read if it is a secret.

    Raises :class:`StateError`; a symbolic link is refused, and a pipe never waited for.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as exc:
        raise StateError(f"{str(path)!r} cannot be read: {exc.strerror}") from exc
    try:
        _check_file(path, os.fstat(descriptor), is_secret=is_secret)
        data = b""
        while len(data) <= limit_bytes and (chunk := os.read(descriptor, limit_bytes + 1 - len(data))):
            data += chunk
    except OSError as exc:
        raise StateError(f"{str(path)!r} cannot be read: {exc.strerror}") from exc
    finally:
        os.close(descriptor)
    if len(data) > limit_bytes:
        raise StateError(f"{str(path)!r} is larger than {limit_bytes} bytes")
    return data


class FileLock:
    """An exclusive lock on a file, held until it is released or the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self, *, wait: bool) -> bool:
        """Takes the lock; False when somebody else holds it and ``wait`` is not set. :class:`StateError`."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise StateError(f"{str(self._path)!r} cannot be locked: {exc.strerror}") from exc
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    @property
    def is_held(self) -> bool:
        """Whether it is held and still the lock that others would ask for: the file was not replaced."""
        if self._descriptor is None:
            return False
        try:
            there = os.stat(self._path, follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(self._descriptor))

    def release(self) -> None:
        """Gives the lock up. Safe to call twice."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock on ``path`` for the block, waiting for it if need be. For moments only."""
    lock = FileLock(path)
    lock.acquire(wait=True)
    try:
        yield
    finally:
        lock.release()


def _check_file(path: Path, status: os.stat_result, *, is_secret: bool) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise StateError(f"{str(path)!r} is not a regular file")
    _check_owner(path, status)
    forbidden = (stat.S_IRWXG | stat.S_IRWXO) if is_secret else (stat.S_IWGRP | stat.S_IWOTH)
    if status.st_mode & forbidden:
        raise StateError(
            f"{str(path)!r} is open to others (mode {stat.S_IMODE(status.st_mode):04o}); chmod it to 0600"
        )


def _check_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise StateError(
            f"{str(path)!r} belongs to uid {status.st_uid}, not to uid {os.geteuid()}; "
            "run this as that user, or name another directory"
        )
