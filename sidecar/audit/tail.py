"""The end of a file that is not known to be on disk yet: kept in memory, so that it can be written again.

A sync that fails may have dropped what was written before, and says so only once. After it everything since the last
sync that succeeded is written anew, at the same offsets; what is whole in the kernel is never cut back for that.
"""

from __future__ import annotations

import errno
import logging
from collections import deque
from collections.abc import Sequence

from sidecar.audit.batch import Copy, File

log = logging.getLogger(__name__)


class Tail:
    """Whole lines in the order of the file, in blobs as they were appended.

    ``records`` and ``size`` count all that was appended, ``written_records`` and ``written_size`` what the kernel has,
    ``synced_records`` what the disk has. ``blobs`` counts all blobs ever. ``since_s`` is the age of the oldest blob
    that is not on disk.
    """

    def __init__(self, file: File, offset: int, copies: Sequence[Copy] = ()) -> None:
        self.file = file
        self.offset = offset
        self.records = self.written_records = self.synced_records = 0
        self.size = self.written_size = 0
        self._copies = copies
        self._blobs: deque[_Blob] = deque()
        self._dropped = 0
        self._written = 0
        self._whole = offset  # so far the file has whole lines

    def __bool__(self) -> bool:
        """Whether anything is not known to be on disk."""
        return bool(self._blobs)

    @property
    def blobs(self) -> int:
        return self._dropped + len(self._blobs)

    @property
    def dropped(self) -> int:
        """How many blobs are known to be on disk."""
        return self._dropped

    @property
    def since_s(self) -> float | None:
        return self._blobs[0].since_s if self._blobs else None

    def append(self, data: bytes, records: int, size: int, since_s: float) -> None:
        """Takes whole lines with their newlines; ``size`` is in whatever unit the caller counts."""
        self.records += records
        self.size += size
        self._blobs.append(_Blob(data, self.offset, self.records, self.size, since_s))
        self.offset += len(data)

    def write(self) -> None:
        """Hands everything to the kernel that it does not have. OSError; :meth:`write` goes on where it ended then."""
        while self._written < len(self._blobs):
            blob = self._blobs[self._written]
            self._write(blob)
            self._written += 1
            self.written_records = max(self.written_records, blob.records)
            self.written_size = max(self.written_size, blob.size)
            if not blob.is_copied:
                blob.is_copied = True
                for copy in self._copies:
                    copy.take(blob.data)

    def rewrite(self) -> None:
        """The kernel may have lost what it had: :meth:`write` begins with the oldest blob."""
        self._written = 0

    def drop(self, blobs: int, records: int) -> None:
        """The first ``blobs`` blobs ever, with ``records`` records, are on disk."""
        while self._dropped < blobs:
            self._blobs.popleft()
            self._dropped += 1
            self._written -= 1
        self.synced_records = max(self.synced_records, records)

    def turn_to(self, file: File, offset: int) -> File:
        """Goes on in the next file; gives the old one. Only when everything is on disk."""
        if self._blobs:
            raise ValueError("a file is left only when everything in it is on disk")
        old, self.file = self.file, file
        self.offset = self._whole = offset
        return old

    def _write(self, blob: _Blob) -> None:
        view = memoryview(blob.data)
        done = 0
        try:
            while done < len(view):
                count = self.file.write(view[done:], blob.offset + done)
                if count <= 0:
                    raise OSError(errno.EIO, "the file takes nothing")
                done += count
        except OSError:
            if blob.offset + done > self._whole:
                self._cut_back(blob.offset + blob.data.rfind(b"\n", 0, done) + 1)
            raise
        self._whole = max(self._whole, blob.offset + done)

    def _cut_back(self, offset: int) -> None:
        """Leaves whole lines only, for whoever reads the log now. If that fails too, it is written over later."""
        self._whole = max(self._whole, offset)
        try:
            self.file.truncate(self._whole)
        except OSError as exc:
            log.warning("a torn line stays at the end of the audit log", extra={"error": exc.strerror})


class _Blob:
    __slots__ = ("data", "is_copied", "offset", "records", "since_s", "size")

    def __init__(self, data: bytes, offset: int, records: int, size: int, since_s: float) -> None:
        self.data = data
        self.offset = offset
        self.records = records
        self.size = size
        self.since_s = since_s
        self.is_copied = False
