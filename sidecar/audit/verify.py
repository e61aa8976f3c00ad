"""Whether a log is whole: one pass over its lines, in order, up to the first that does not fit. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sidecar.audit.anchors import Anchors
from sidecar.audit.chain import (
    Checkpoint,
    Head,
    hash_line,
    key_id,
    looks_like_checkpoint,
    read_checkpoint,
    read_head,
    show_key,
)
from sidecar.audit.files import parse_number, show_number
from sidecar.audit.record import VERSION
from sidecar.audit.report import BadLogError, Report
from sidecar.audit.start import read_start
from sidecar.errors import VerificationError

MAX_WARNINGS: Final = 20


class Verifier:
    """Takes the files of one log, in order, line by line.

    ``whole``: the log has to begin with its first line; else it may begin with the checkpoint that every later
    file begins with. Every method raises :class:`BadLogError` at the first thing that does not fit.
    """

    def __init__(self, key: Ed25519PublicKey, anchors: Anchors | None = None, *, whole: bool = True) -> None:
        self._key = key
        self._key_text = show_key(key)
        self._key_id = key_id(key)
        self._anchors = anchors
        self._whole = whole
        self._file = ""
        self._number: int | None = None
        self._line = 0
        self._files = self._lines = self._checkpoints = self._starts = self._crashes = self._gaps = 0
        self._log: str | None = None
        self._seq = self._first_seq = self._signed_seq = self._met = 0
        self._suspect: tuple[int, bytes] | None = None
        self._last = b""
        self._last_is_checkpoint = False
        self._head: str | None = None
        self._entries = 0
        self._ts = ""
        self._warnings: list[str] = []
        self._warned = 0

    def begin_file(self, name: str) -> None:
        """The lines that follow are those of ``name``."""
        if self._suspect is not None:
            self._resolve(None)
        number = parse_number(name)
        if self._files and self._line == 0:
            raise BadLogError(self._file, 0, "the file is empty, and the log goes on after it")
        if number is not None:
            expected = 1 if self._whole and not self._files else None
            if self._number is not None:
                expected = self._number + 1
            if expected is not None and number != expected:
                raise BadLogError(show_number(expected), 0, f"the file is missing; {name} is there")
        self._file, self._number, self._line = name, number, 0
        self._files += 1

    def feed(self, raw: bytes) -> None:
        """The next line, with its newline."""
        if self._suspect is not None:
            self._resolve(raw)
        self._line += 1
        if not raw.endswith(b"\n"):
            raise self._bad(
                f"torn: {len(raw)} bytes without a newline; after a crash the next start cuts this back and says so"
            )
        line = raw[:-1]
        if self._line == 1 and self._lines:
            self._check_repeated(line)
            return
        try:
            head = read_head(line)
        except VerificationError as exc:
            raise self._bad(str(exc)) from exc
        if head.v != VERSION:
            raise self._bad(f"the line has version {head.v}; this program reads {VERSION}")
        if self._lines:
            self._check_place(head, line)
        else:
            self._begin(head)
        self._seq = head.seq
        self._lines += 1
        self._last, self._last_is_checkpoint = line, head.event == "checkpoint"
        if self._suspect is not None:
            return
        self._check_event(head, line)
        self._head = hash_line(line)
        if self._anchors is not None and self._log is not None:
            self._check_anchor(line)

    def end(self) -> Report:
        """The report, once all lines are in."""
        if self._suspect is not None:
            self._resolve(None)
        if not self._lines:
            raise BadLogError(self._file or "the log", 0, "there is no line in it")
        if self._files > 1 and self._line == 0:
            raise BadLogError(self._file, 0, "the file is empty; it has to repeat the checkpoint before it")
        anchored = self._check_anchors_at_end() if self._anchors is not None else 0
        if self._warned > len(self._warnings):
            self._warnings.append(f"{self._warned - len(self._warnings)} more warnings are not shown")
        return Report(
            log=self._log,
            key=self._key_id,
            files=self._files,
            lines=self._lines,
            checkpoints=self._checkpoints,
            starts=self._starts,
            crashes=self._crashes,
            gaps=self._gaps,
            first_seq=self._first_seq,
            seq=self._seq,
            head=self._head,
            signed_seq=self._signed_seq,
            anchors=self._met,
            anchored_seq=anchored,
            warnings=tuple(self._warnings),
        )

    def _bad(self, what: str, line: int | None = None) -> BadLogError:
        return BadLogError(self._file, self._line if line is None else line, what)

    def _warn(self, what: str) -> None:
        self._warned += 1
        if len(self._warnings) < MAX_WARNINGS:
            self._warnings.append(f"{self._file}:{self._line}: {what}")

    def _begin(self, head: Head) -> None:
        self._first_seq = head.seq
        if head.seq == 1 and head.prev is None:
            if head.event != "start":
                raise self._bad(f"a log begins with a line 'start', got {head.event!r}")
        elif self._whole:
            raise self._bad(f"the beginning is missing: the first line is seq {head.seq}")
        elif head.event != "checkpoint":
            raise self._bad(f"a later file of a log begins with a checkpoint, got {head.event!r}")

    def _check_repeated(self, line: bytes) -> None:
        if line == self._last and self._last_is_checkpoint:
            return
        if not self._last_is_checkpoint:
            what = "the file before does not end in a checkpoint: its end is missing"
        else:
            what = "the file does not begin with the checkpoint that the file before ends in"
        raise self._bad(what)

    def _check_place(self, head: Head, line: bytes) -> None:
        expected = self._seq + 1
        if head.seq > expected:
            raise self._bad(
                f"{head.seq - expected} lines are missing: expected seq {expected}, got {head.seq}"
            )
        if head.seq < expected:
            raise self._bad(f"seq {head.seq} has been there already: expected seq {expected}")
        if head.prev != self._head:
            self._suspect = (self._line, line)

    def _resolve(self, raw: bytes | None) -> None:
        """Two lines do not fit: which of them was changed shows in the line after them, or in a signature."""
        assert self._suspect is not None
        number, line = self._suspect
        what = f"prev of line {number} is not the hash of line {number - 1}"
        try:
            prev = None if raw is None else read_head(raw[:-1]).prev
        except VerificationError:
            prev = None
        if prev is not None:
            second_is_good = prev == hash_line(line)
        elif looks_like_checkpoint(line):
            second_is_good = self._is_proven(line)
        else:
            raise self._bad(f"line {number - 1} or line {number} was changed: {what}", number - 1)
        raise self._bad(f"the line was changed: {what}", number - 1 if second_is_good else number)

    def _is_proven(self, line: bytes) -> bool:
        try:
            read_checkpoint(line, self._key)
        except VerificationError:
            return False
        return True

    def _check_event(self, head: Head, line: bytes) -> None:
        match head.event:
            case "checkpoint":
                self._check_checkpoint(head, line)
            case "start":
                self._check_start(head, line)
            case "gap":
                self._gaps += 1
            case _ if looks_like_checkpoint(line):
                raise self._bad(f"a checkpoint under the name {head.event!r}: it was changed")

    def _check_checkpoint(self, head: Head, line: bytes) -> None:
        try:
            checkpoint = read_checkpoint(line, self._key)
        except VerificationError as exc:
            raise self._bad(str(exc)) from exc
        self._check_log(checkpoint.log)
        if checkpoint.entries < self._entries:
            self._warn(
                f"the journal of grants went back from {self._entries} entries to {checkpoint.entries}: it was "
                "lost, or an older one was put in its place"
            )
        self._entries = checkpoint.entries
        self._check_clock(head)
        self._checkpoints += 1
        self._signed_seq = head.seq

    def _check_start(self, head: Head, line: bytes) -> None:
        try:
            start = read_start(line)
        except VerificationError as exc:
            raise self._bad(str(exc)) from exc
        if start.public_key != self._key_text:
            raise self._bad(f"another key: the log names the key {start.public_key!r}, not the one given")
        self._check_log(start.log)
        self._check_clock(head)
        self._starts += 1
        self._crashes += start.after == "crash"

    def _check_log(self, log: str) -> None:
        if self._log is None:
            self._log = log
        elif log != self._log:
            raise self._bad(f"this line is of another log: expected {self._log}, got {log!r}")

    def _check_clock(self, head: Head) -> None:
        # Calls are stamped when they begin and written when they end; only these lines are stamped when written.
        if head.ts < self._ts:
            self._warn(f"the clock went back from {self._ts} to {head.ts!r}")
        self._ts = head.ts

    def _check_anchor(self, line: bytes) -> None:
        assert self._anchors is not None and self._log is not None
        anchor = self._anchors.of_log(self._log).get(self._seq)
        if anchor is None:
            return
        if anchor.line != line:
            raise self._bad(
                f"the log was rewritten: the anchor of {anchor.ts} has another line at seq {self._seq}"
            )
        self._met += 1

    def _check_anchors_at_end(self) -> int:
        assert self._anchors is not None
        ours: dict[int, Checkpoint] = dict(self._anchors.of_log(self._log or ""))
        if not ours:
            raise self._bad(f"the anchors hold no checkpoint of this log ({self._log})")
        newest = max(ours)
        if newest > self._seq:
            raise self._bad(
                f"the end is missing: the log ends with seq {self._seq}, and the anchor of {ours[newest].ts} "
                f"stands at seq {newest}"
            )
        if before := sum(seq < self._first_seq for seq in ours):
            self._warn(f"{before} anchors lie before the first line given (seq {self._first_seq})")
        if others := [log for log in self._anchors.logs if log != self._log]:
            self._warn(f"the anchors also name other logs of this key: {', '.join(sorted(others)[:5])}")
        if not self._met:
            raise self._bad("no anchor lies within the lines given")
        return newest


def verify_log(
    files: Iterable[tuple[str, Iterable[bytes]]],
    key: Ed25519PublicKey,
    anchors: Anchors | None = None,
    *,
    whole: bool = True,
) -> Report:
    """What the files (name, lines with their newlines) of one log consist of, if nothing is wrong with them.

    Raises :class:`BadLogError` at the first thing that is. About 10 us a line and 100 us a checkpoint.
    """
    verifier = Verifier(key, anchors, whole=whole)
    for name, lines in files:
        verifier.begin_file(name)
        for line in lines:
            verifier.feed(line)
    return verifier.end()
