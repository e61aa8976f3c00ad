"""An append-only file of entries that survives a crash: one writer, checksums in a chain, group commit.

Layout, integers big-endian::

    header  magic 16 | format version u32 | entries before this file u64 | random 16 | checksum 16
    entry   length u32 | guard u32 | payload | checksum 16

A checksum is the start of a SHA-256 over the checksum before it and all bytes since, so that a changed, moved
or removed entry breaks the chain. The guard is a CRC-32 of the checksum before and the length: a damaged
length is then no torn end. Nothing is keyed: whoever may write the file can make another one. Its entry count
therefore stands in the audit log's checkpoints.

What a crash can leave is an entry that the file ends in, or zeros where the disk never got the bytes. That is
cut back and reported. Anything else that does not fit is damage, and the file is not used.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import secrets
import stat
import struct
import threading
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, Final

from sidecar.errors import SidecarError, StateError, UnavailableError

FORMAT_VERSION: Final = 1
MAX_ENTRY_BYTES: Final = 64 << 10
MAX_FILE_BYTES: Final = 256 << 20
MAX_WAITING: Final = 10_000
RESERVE_BYTES: Final = 8 << 20

_MAGIC: Final = b"sidecar journal\n"
_HEADER: Final = struct.Struct(">16sIQ16s")
_HEAD: Final = struct.Struct(">II")
_DIGEST_BYTES: Final = 16
_HEADER_BYTES: Final = _HEADER.size + _DIGEST_BYTES
_NO_HEAD: Final = bytes(_HEAD.size)
_NO_DIGEST: Final = bytes(_DIGEST_BYTES)


class Journal:
    """The open file; made by :func:`open_journal`. One event loop uses it, and a thread of its own writes.

    ``recovered_bytes`` is how much of a torn end was cut off when it was opened.
    """

    def __init__(self, path: Path, fd: int, before: int, end: _End, recovered_bytes: int) -> None:
        self.path = path
        self._before = before
        self.recovered_bytes = recovered_bytes
        self._fd = fd
        self._end = end
        self._planned = end.offset
        self._trouble: SidecarError | None = None
        self._wake = threading.Condition()
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._closing = False
        self._thread: threading.Thread | None = None

    @property
    def entries(self) -> int:
        """How many entries were ever put on disk, those that a :meth:`rewrite` left out included."""
        return self._end.entries

    @property
    def file_entries(self) -> int:
        """How many entries the file holds."""
        return self._end.entries - self._before

    @property
    def trouble(self) -> str | None:
        """Why nothing can be appended any more; None while all is well."""
        return None if self._trouble is None else str(self._trouble)

    def append(self, entry: bytes, *, urgent: bool = False) -> asyncio.Future[None]:
        """A future that is done when ``entry`` is on disk. One write and one sync serve all that wait.

        It fails with :class:`UnavailableError` when the disk fails, the file is full or too many wait, and
        with :class:`StateError` after :meth:`close`. After a failure of the disk every later one fails too,
        until the file is opened anew: nobody knows what the disk holds. Cancelling the future does not take
        the entry back. ``urgent`` may use the last :data:`RESERVE_BYTES` of the file. ValueError when the
        entry is empty or too long.
        """
        if not 0 < len(entry) <= MAX_ENTRY_BYTES:
            raise ValueError(f"an entry has 1 to {MAX_ENTRY_BYTES} bytes, got {len(entry)}")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._wake:
            error = self._objection(len(entry), urgent)
            if error is None:
                self._planned += _HEAD.size + len(entry) + _DIGEST_BYTES
                self._waiting.append((entry, future))
                self._wake.notify()
        if error is not None:
            _settle([future], error)
        elif self._thread is None:
            self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
            self._thread.start()
        return future

    def rewrite(self, entries: Iterable[bytes]) -> None:
        """Replaces the whole content by ``entries``, in one step that a crash cannot halve.

        Blocks; before any append.

        The count goes on from where it was, so that a shorter file is no older one. Raises
        :class:`UnavailableError`; the old content then stays.
        """
        if self._thread is not None:
            raise RuntimeError("a journal is rewritten before it is appended to")
        temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}")
        fd = -1
        try:
            fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(
                fd, fcntl.LOCK_EX | fcntl.LOCK_NB
            )  # before it gets the name: it is never there unlocked
            before = self._end.entries
            end = _write_new(fd, before, entries)
            os.rename(temporary, self.path)
            _sync_directory(self.path.parent)
        except OSError as exc:
            if fd >= 0:
                os.close(fd)
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise UnavailableError(
                f"the journal {str(self.path)!r} cannot be rewritten: {exc.strerror}"
            ) from exc
        os.close(self._fd)
        self._fd, self._before, self._end, self._planned = fd, before, end, end.offset

    async def close(self) -> None:
        """Writes what waits, then closes the file. Harmless when repeated."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(None, thread.join)
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _objection(self, length: int, urgent: bool) -> SidecarError | None:
        """Why no entry of this length can be appended now."""
        if self._closing:
            return StateError(f"the journal {str(self.path)!r} is closed")
        if self._trouble is not None:
            return self._trouble
        if len(self._waiting) >= MAX_WAITING:
            return UnavailableError(f"{MAX_WAITING} entries wait for the journal {str(self.path)!r}")
        limit = MAX_FILE_BYTES if urgent else MAX_FILE_BYTES - RESERVE_BYTES
        if self._planned + _HEAD.size + length + _DIGEST_BYTES > limit:
            return UnavailableError(
                f"the journal {str(self.path)!r} is full at {limit} bytes; a restart drops what has ended"
            )
        return None

    def _work(self) -> None:
        """The thread: takes whatever waits, as one batch."""
        while True:
            with self._wake:
                while not self._waiting and not self._closing:
                    self._wake.wait()
                batch, self._waiting = self._waiting, []
            if not batch:
                return
            error = self._write([entry for entry, _ in batch])
            if error is not None:
                with self._wake:
                    self._trouble = error
                    batch, self._waiting = batch + self._waiting, []
            _report([future for _, future in batch], error)

    def _write(self, entries: list[bytes]) -> SidecarError | None:
        """Puts a batch on disk; gives what went wrong."""
        data, end = _encode(self._end, entries)
        try:
            _write_all(self._fd, data, self._end.offset)
            os.fdatasync(self._fd)
        except OSError as exc:
            # What failed is not to come alive with the next start. The cut may fail too; then it may.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._end.offset)
            return UnavailableError(f"the journal {str(self.path)!r} cannot be written: {exc.strerror}")
        self._end = end
        return None


class _End:
    """Where the next entry goes: offset, checksum before it, number of entries so far."""

    __slots__ = ("digest", "entries", "offset")

    def __init__(self, offset: int, digest: bytes, entries: int) -> None:
        self.offset = offset
        self.digest = digest
        self.entries = entries


def open_journal(path: Path, take: Callable[[bytes], None]) -> Journal:
    """Opens the journal at ``path``, made 0600 if it is missing, and hands every entry to ``take``, in order.

    Blocks.

    Raises :class:`StateError` when it is damaged, no journal, of another format, writable by others, or open
    in another process; :class:`UnavailableError` when the disk fails. What ``take`` raises comes through.
    """
    try:
        fd = _open(path)
    except OSError as exc:
        raise UnavailableError(f"the journal {str(path)!r} cannot be opened: {exc.strerror}") from exc
    try:
        _check_file(path, fd)
        size = os.fstat(fd).st_size
        if size > MAX_FILE_BYTES:
            raise StateError(f"the journal {str(path)!r} has more than {MAX_FILE_BYTES} bytes")
        with open(fd, "rb", closefd=False) as file:
            start = _read_header(path, file)
            end = _replay(path, file, start, take)
        if end.offset < size:
            os.ftruncate(fd, end.offset)
            os.fsync(fd)
        return Journal(path, fd, start.entries, end, size - end.offset)
    except OSError as exc:
        os.close(fd)
        raise UnavailableError(f"the journal {str(path)!r} cannot be read: {exc.strerror}") from exc
    except BaseException:
        os.close(fd)
        raise


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        _create(path)
        return os.open(path, flags)


def _create(path: Path) -> None:
    """An empty journal with a whole header, or none: a header is never torn."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _write_new(fd, 0, ())
        with contextlib.suppress(FileExistsError):  # another process was quicker; the lock decides
            os.link(temporary, path)
        _sync_directory(path.parent)
    finally:
        os.close(fd)
        os.unlink(temporary)


def _check_file(path: Path, fd: int) -> None:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise StateError(f"{str(path)!r} is no regular file; remove it")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or status.st_uid not in (os.geteuid(), 0):
        raise StateError(
            f"the journal {str(path)!r} belongs to uid {status.st_uid} and has mode "
            f"{stat.S_IMODE(status.st_mode):04o}; only its owner may write to it, and that has to be us"
        )
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StateError(f"another process has the journal {str(path)!r} open") from None
    current = os.stat(path, follow_symlinks=False)
    if (current.st_dev, current.st_ino) != (status.st_dev, status.st_ino):
        raise StateError(f"another process replaced the journal {str(path)!r} just now")


def _replay(path: Path, file: BinaryIO, end: _End, take: Callable[[bytes], None]) -> _End:
    """Reads the entries from ``end`` on, up to a torn one; gives where that is."""
    while head := file.read(_HEAD.size):
        if len(head) < _HEAD.size or (head == _NO_HEAD and _is_blank(file)):
            break
        length, guard = _HEAD.unpack(head)
        if guard != _guard(end.digest, length) or not 0 < length <= MAX_ENTRY_BYTES:
            raise _damage(path, end)
        body = file.read(length + _DIGEST_BYTES)
        if len(body) < length + _DIGEST_BYTES:
            break
        entry, found = body[:length], body[length:]
        digest = _digest(end.digest, head, entry)
        if found != digest:
            if found == _NO_DIGEST and _is_blank(file):
                break
            raise _damage(path, end)
        take(entry)
        end = _End(end.offset + len(head) + len(body), digest, end.entries + 1)
    return end


def _read_header(path: Path, file: BinaryIO) -> _End:
    data = file.read(_HEADER_BYTES)
    if len(data) < _HEADER_BYTES or not data.startswith(_MAGIC):
        raise StateError(f"{str(path)!r} is no journal, or its beginning is damaged")
    _, version, before, _ = _HEADER.unpack_from(data)
    if version != FORMAT_VERSION:
        raise StateError(
            f"the journal {str(path)!r} has format {version}; this version reads {FORMAT_VERSION}"
        )
    digest = data[_HEADER.size :]
    if digest != _digest(b"", data[: _HEADER.size]):
        raise StateError(f"the beginning of the journal {str(path)!r} is damaged")
    return _End(_HEADER_BYTES, digest, before)


def _damage(path: Path, end: _End) -> StateError:
    return StateError(
        f"the journal {str(path)!r} is damaged at byte {end.offset}, after {end.entries} entries; "
        "restore it, or move it away: then every grant signed before the next start is void"
    )


def _is_blank(file: BinaryIO) -> bool:
    """Whether nothing but zeros is left."""
    while data := file.read(1 << 20):
        if data.strip(b"\0"):
            return False
    return True


def _write_new(fd: int, before: int, entries: Iterable[bytes]) -> _End:
    """A whole journal into an empty file, synced."""
    header = _HEADER.pack(_MAGIC, FORMAT_VERSION, before, secrets.token_bytes(16))
    digest = _digest(b"", header)
    data, end = _encode(_End(_HEADER_BYTES, digest, before), entries)
    _write_all(fd, header + digest + data, 0)
    os.fsync(fd)
    return end


def _encode(end: _End, entries: Iterable[bytes]) -> tuple[bytes, _End]:
    """The bytes that follow ``end`` for these entries, and where they lead."""
    parts: list[bytes] = []
    offset, digest, count = end.offset, end.digest, end.entries
    for entry in entries:
        head = _HEAD.pack(len(entry), _guard(digest, len(entry)))
        digest = _digest(digest, head, entry)
        parts += (head, entry, digest)
        offset += len(head) + len(entry) + len(digest)
        count += 1
    return b"".join(parts), _End(offset, digest, count)


def _guard(digest: bytes, length: int) -> int:
    return zlib.crc32(digest + length.to_bytes(4, "big"))


def _digest(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()[:_DIGEST_BYTES]


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _report(futures: list[asyncio.Future[None]], error: SidecarError | None) -> None:
    """From the thread: lets each future's own loop settle it."""
    for loop in {future.get_loop() for future in futures}:
        own = [future for future in futures if future.get_loop() is loop]
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, own, error)


def _settle(futures: list[asyncio.Future[None]], error: SidecarError | None) -> None:
    for future in futures:
        if future.done():  # cancelled; the entry was written all the same
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(type(error)(str(error)))
            future.exception()  # whoever has gone away meanwhile missed nothing that `trouble` does not say
