"""The directory of a log on disk: held by one process, its files, and a reserve for the day the disk is full."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
from pathlib import Path
from typing import Final

from sidecar.audit.files import parse_number, show_number, sort_files
from sidecar.errors import StateError

RESERVE_NAME: Final = "reserve"
RESERVE_BYTES: Final = 16 << 20
_LEAST_RESERVE_BYTES: Final = 64 << 10
_NEXT_NAME: Final = ".next"

log = logging.getLogger(__name__)


class LogFile:
    """One open file of the log. One thread writes; ``sync`` may run in another meanwhile.

    A file that somebody removes, moves or cuts while it is written would take lines that nobody can find again. That is
    seen by the next sync, and from then on the file cannot be written.
    """

    __slots__ = ("_end", "_fd", "_path", "_spoiled")

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self._path = path
        self._end = os.fstat(fd).st_size
        self._spoiled: OSError | None = None

    def write(self, data: bytes | memoryview, offset: int) -> int:
        """Hands bytes to the kernel; how many it took. OSError."""
        if self._spoiled is not None:
            raise self._spoiled
        written = os.pwrite(self._fd, data, offset)
        self._end = max(self._end, offset + written)
        return written

    def sync(self) -> None:
        """Returns when everything written is on disk, under the file's name. OSError."""
        end = self._end  # what is written meanwhile belongs to the next sync
        os.fdatasync(self._fd)
        self._check(end)

    def truncate(self, size: int) -> None:
        """Cuts the file back to ``size`` bytes. OSError."""
        self._end = min(self._end, size)
        os.ftruncate(self._fd, size)

    def _check(self, end: int) -> None:
        own = os.fstat(self._fd)
        try:
            named = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            named = None
        if named is None or (named.st_dev, named.st_ino) != (own.st_dev, own.st_ino):
            self._spoiled = OSError(
                errno.ESTALE, f"{self._path.name} was removed or replaced while it was written"
            )
        elif own.st_size < min(end, self._end):
            self._spoiled = OSError(errno.ESTALE, f"{self._path.name} was cut while it was written")
        if self._spoiled is not None:
            raise self._spoiled

    def close(self) -> None:
        os.close(self._fd)


class LogDirectory:
    """The directory, locked for this process until :meth:`close`. Made by :func:`open_directory`.

    ``number`` is that of the newest file, 0 before there is any.
    """

    def __init__(self, path: Path, fd: int, number: int) -> None:
        self.path = path
        self.number = number
        self._fd = fd
        self._reserve_bytes = 0

    @property
    def newest(self) -> Path:
        """The path of the newest file."""
        return self.path / show_number(self.number)

    def open_newest(self) -> LogFile:
        """The newest file, to be gone on with. StateError when others may write to it."""
        fd = os.open(self.newest, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise StateError(f"{str(self.newest)!r} is no regular file")
            _check_owner(self.newest, status, "the log's file")
            return LogFile(fd, self.newest)
        except BaseException:
            os.close(fd)
            raise

    def create_next(self, first: bytes) -> LogFile:
        """The next file, with ``first`` in it and on disk, or none.

        Raises OSError when there is none, and :class:`StateError` when nobody can say whether there is one.
        """
        temporary = self.path / _NEXT_NAME
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            written = 0
            while written < len(first):
                written += os.pwrite(fd, first[written:], written)
            os.fdatasync(fd)
            self._give_name(temporary, self.path / show_number(self.number + 1))
        except BaseException:
            os.close(fd)
            raise
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        self.number += 1
        return LogFile(fd, self.newest)

    def _give_name(self, temporary: Path, path: Path) -> None:
        os.link(temporary, path)  # unlike a rename it never replaces a file
        try:
            os.fsync(self._fd)
        except OSError as exc:
            # Going on with the old file while the new one is there would make two ends of one log.
            try:
                os.unlink(path)
            except OSError:
                raise StateError(
                    f"the new file {str(path)!r} of the log can be neither kept nor removed"
                ) from exc
            raise

    def plan_reserve(self) -> None:
        """Decides how large the reserve is: an eighth of the room there is, 16 MiB at most, or what a crash left."""
        room = os.fstatvfs(self._fd)
        free = room.f_bavail * room.f_frsize
        left = 0
        with contextlib.suppress(OSError):
            left = os.stat(RESERVE_NAME, dir_fd=self._fd).st_size
        planned = min(RESERVE_BYTES, max(free // 8, left))
        self._reserve_bytes = planned if planned >= _LEAST_RESERVE_BYTES else 0
        if not self._reserve_bytes:
            log.warning(
                "no room for a reserve beside the audit log",
                extra={"directory": str(self.path), "free": free},
            )

    def make_reserve(self) -> None:
        """Takes hold of the reserve's room, unless it is held already. OSError where there is none."""
        if not self._reserve_bytes:
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(RESERVE_NAME, flags, 0o600, dir_fd=self._fd)
        try:
            if os.fstat(fd).st_size < self._reserve_bytes:
                os.posix_fallocate(fd, 0, self._reserve_bytes)
        except OSError as exc:
            self.free_reserve()
            if exc.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
            log.warning(
                "this file system cannot hold a reserve beside the audit log", extra={"error": exc.strerror}
            )
            self._reserve_bytes = 0
        finally:
            os.close(fd)

    def free_reserve(self) -> None:
        """Gives the reserve's room back to the disk."""
        with contextlib.suppress(OSError):
            os.unlink(RESERVE_NAME, dir_fd=self._fd)

    def close(self) -> None:
        """Lets go of the directory; a log at rest holds no reserve. Harmless when repeated."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.unlink(RESERVE_NAME, dir_fd=fd)
            os.close(fd)


def open_directory(path: Path) -> LogDirectory:
    """Makes the directory (0700) if it is missing, and locks it. Blocks.

    Raises :class:`StateError` when it cannot be made or written, others may write to it, another process holds it, or
    a file is missing between its first and its last.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise StateError(f"the audit log's directory {str(path)!r} cannot be made: {exc.strerror}") from exc
    try:
        _check_owner(path, os.fstat(fd), "the audit log's directory")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateError(
                f"another process writes the audit log in {str(path)!r}; each sidecar needs its own"
            ) from None
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_NEXT_NAME, dir_fd=fd)
        numbers = [parse_number(name) or 0 for name in sort_files(os.listdir(fd))]
        if numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            raise StateError(
                f"a file of the audit log in {str(path)!r} is missing between its first and its last"
            )
        sync_directory(path.parent)
    except OSError as exc:
        os.close(fd)
        raise StateError(f"the audit log's directory {str(path)!r} cannot be used: {exc.strerror}") from exc
    except BaseException:
        os.close(fd)
        raise
    return LogDirectory(path, fd, numbers[-1] if numbers else 0)


def _check_owner(path: Path, status: os.stat_result, what: str) -> None:
    if status.st_uid not in (os.geteuid(), 0):
        raise StateError(f"{what} {str(path)!r} belongs to uid {status.st_uid}, not to uid {os.geteuid()}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StateError(
            f"{what} {str(path)!r} may be written by others (mode {stat.S_IMODE(status.st_mode):04o}); chmod go-w it"
        )


def sync_directory(path: Path) -> None:
    """Puts the names in a directory on disk. OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
