"""Where a log that is there already ends, and in what state the process before left it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sidecar.audit.chain import Checkpoint, Head, hash_line, read_checkpoint, read_head, show_key
from sidecar.audit.start import read_start
from sidecar.errors import StateError, VerificationError

_FIRST_BLOCK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Ending:
    """The next line follows ``seq`` and ``head`` at the offset ``size``.

    ``torn`` bytes without a newline lie beyond it. ``is_clean``: the process before had written its last line. ``ts``
    is the last line's. ``damage`` says what does not fit since the last checkpoint, None when all does.
    """

    log: str
    seq: int
    head: str
    size: int
    torn: int
    ts: str
    is_clean: bool
    checkpoint: Checkpoint | None
    damage: str | None


def read_ending(path: Path, key: Ed25519PublicKey, *, is_first: bool) -> Ending | None:
    """The end of the newest file; None when it is a first file without a whole line. Blocks.

    Reads back to the last checkpoint, so that it takes as long for a large file as for a small one. Raises
    :class:`StateError` when that checkpoint is not by our key, or when no place to go on from can be found.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        block = _FIRST_BLOCK_BYTES
        while True:
            start = max(0, size - block)
            file.seek(start)
            data = file.read(size - start)
            end = data.rfind(b"\n") + 1
            lines = data[:end].split(b"\n")[:-1]
            if start:
                del lines[:1]  # its beginning may lie before the block
            if start == 0 or any(_event(line) == "checkpoint" for line in lines[1:]):
                break
            block *= 4
    if not lines:
        if is_first:
            return None
        raise StateError(
            f"the file {str(path)!r} of the audit log is empty; restore it, or move the whole log away"
        )
    return _read_lines(path, lines, len(data) - end, size - len(data) + end, key)


def _read_lines(path: Path, lines: Sequence[bytes], torn: int, size: int, key: Ed25519PublicKey) -> Ending:
    checkpoint = _last_checkpoint(path, lines, key)
    is_clean = not torn and [_event(line) for line in lines[-2:]] == ["stop", "checkpoint"]
    heads = _Heads()
    if checkpoint is not None:
        lines = lines[lines.index(checkpoint.line) :]
    for line in lines:
        heads.take(line)
    last = heads.last
    if last is None:
        raise StateError(
            f"no line at the end of {str(path)!r} can be read; restore it, or move the whole log away"
        )
    log = checkpoint.log if checkpoint is not None else _log_of_start(path, lines[0], key)
    return Ending(
        log=log,
        seq=heads.seq,
        head=hash_line(lines[-1]),
        size=size,
        torn=torn,
        ts=last.ts,
        is_clean=is_clean,
        checkpoint=checkpoint,
        damage=heads.damage,
    )


class _Heads:
    """Follows lines from one that is known to be good."""

    def __init__(self) -> None:
        self.seq = 0
        self.last: Head | None = None
        self.damage: str | None = None
        self._hash: str | None = None

    def take(self, line: bytes) -> None:
        self.seq += 1
        try:
            head = read_head(line)
        except VerificationError as exc:
            self._note(str(exc))
        else:
            if self.last is None and self._hash is None:
                self.seq = head.seq
            elif head.seq != self.seq:
                self._note(f"expected seq {self.seq}, got {head.seq}")
                # Going on from the larger one repeats no number, whatever happened.
                self.seq = max(self.seq, head.seq)
            elif head.prev != self._hash:
                self._note(f"prev of seq {head.seq} is not the hash of the line before")
            self.last = head
        self._hash = hash_line(line)

    def _note(self, what: str) -> None:
        if self.damage is None:
            self.damage = what


def _event(line: bytes) -> str | None:
    try:
        return read_head(line).event
    except VerificationError:
        return None


def _last_checkpoint(path: Path, lines: Sequence[bytes], key: Ed25519PublicKey) -> Checkpoint | None:
    for line in reversed(lines):
        if _event(line) == "checkpoint":
            try:
                return read_checkpoint(line, key)
            except VerificationError as exc:
                raise StateError(
                    f"the last checkpoint in {str(path)!r} does not hold: {exc}; check the log with `sidecar audit "
                    "verify`, then restore it, or move the whole log away so that a new one begins"
                ) from exc
    return None


def _log_of_start(path: Path, line: bytes, key: Ed25519PublicKey) -> str:
    """The log's id, from the first line of a log in which there is no checkpoint yet."""
    try:
        start = read_start(line)
    except VerificationError as exc:
        raise StateError(
            f"{str(path)!r} does not begin with a line 'start'; restore it, or move the log away"
        ) from exc
    if start.public_key != show_key(key):
        raise StateError(
            f"the audit log {str(path)!r} was begun with another key; restore its key, or move the log away"
        )
    return start.log
