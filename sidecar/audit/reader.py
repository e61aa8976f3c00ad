"""Reads a log that may be growing: its last lines, and those that come."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sidecar.audit.files import sort_files
from sidecar.errors import UnavailableError

_BLOCK_BYTES: Final = 1 << 16


def list_log(directory: Path) -> list[Path]:
    """The files of the log in ``directory``, oldest first. Raises :class:`UnavailableError` when there is none."""
    try:
        files = [directory / name for name in sort_files(os.listdir(directory))]
    except OSError as exc:
        raise UnavailableError(f"the audit log {str(directory)!r} cannot be read: {exc.strerror}") from exc
    if not files:
        raise UnavailableError(f"there is no audit log in {str(directory)!r}")
    return files


def read_backwards(directory: Path) -> Iterator[bytes]:
    """The log's whole lines without their newlines, the newest first, each once. A torn last line is left out."""
    files = list_log(directory)
    for place in range(len(files) - 1, -1, -1):
        newest_first = _lines_backwards(files[place])
        # A later file begins with the checkpoint that the one before ends in.
        yield from _without_last(newest_first) if place else newest_first


class Follower:
    """What is appended to the log from now on, across files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = list_log(directory)[-1]
        self._file = self._path.open("rb")
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(size - _torn_bytes(self._path, size))
        self._kept = b""

    def read(self) -> list[bytes]:
        """The whole lines that have come since the last call; never blocks."""
        lines = self._read_more()
        while (newer := self._next_path()) is not None:
            lines += self._read_more()  # what came between looking here and looking there
            self._file.close()
            self._path, self._file, self._kept = newer, newer.open("rb"), b""
            lines += self._read_more()[1:]
        return lines

    def close(self) -> None:
        self._file.close()

    def _read_more(self) -> list[bytes]:
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            # A torn line was cut back; what follows begins where it began.
            self._file.seek(self._file.tell() - len(self._kept))
            self._kept = b""
        *lines, self._kept = (self._kept + self._file.read()).split(b"\n")
        return lines

    def _next_path(self) -> Path | None:
        later = [path for path in list_log(self._directory) if path.name > self._path.name]
        return later[0] if later else None


def _lines_backwards(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        rest = b""
        is_torn = True  # what follows the last newline
        while position:
            step = min(_BLOCK_BYTES, position)
            position -= step
            file.seek(position)
            first, *lines = (file.read(step) + rest).split(b"\n")
            if lines and is_torn:
                lines.pop()
                is_torn = False
            yield from reversed(lines)
            rest = first
        if not is_torn:
            yield rest


def _without_last(lines: Iterator[bytes]) -> Iterator[bytes]:
    held: bytes | None = None
    for line in lines:
        if held is not None:
            yield held
        held = line


def _torn_bytes(path: Path, size: int) -> int:
    """How much of the first ``size`` bytes follows the last newline."""
    with path.open("rb") as file:
        torn = 0
        while size:
            step = min(_BLOCK_BYTES, size)
            size -= step
            file.seek(size)
            block = file.read(step)
            place = block.rfind(b"\n")
            if place >= 0:
                return torn + len(block) - place - 1
            torn += len(block)
        return torn
