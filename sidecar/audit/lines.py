"""From records to the bytes of the chain: each line follows from the one before. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sidecar.audit.batch import Event
from sidecar.audit.chain import Signer, hash_line, write_checkpoint
from sidecar.audit.record import Entry, encode_call, encode_event, format_ts

CHECKPOINT_EVENTS: Final = frozenset(["start", "stop", "drain", "grant", "gap"])
"""After these a checkpoint follows at once: what they say is worth pinning."""


@dataclass(slots=True)
class Place:
    """Where a chain stands: the next line follows ``seq`` and ``head``, at ``offset`` of the newest file."""

    log: str
    seq: int = 0
    head: str | None = None
    offset: int = 0


class Lines:
    """Writes the lines of one log, in memory.

    ``unsigned`` counts those since the last checkpoint; ``wants_checkpoint`` says that one of them is worth one.
    ``checkpoint`` is the last line if it is a checkpoint. ``is_stopped``: the line `stop` has been written.
    """

    __slots__ = (
        "_journal_entries",
        "_signer",
        "checkpoint",
        "head",
        "is_stopped",
        "log",
        "seq",
        "unsigned",
        "wants_checkpoint",
    )

    def __init__(self, place: Place, signer: Signer, journal_entries: Callable[[], int]) -> None:
        self.log = place.log
        self.seq = place.seq
        self.head = place.head
        self._signer = signer
        self._journal_entries = journal_entries
        self.unsigned = 0
        self.wants_checkpoint = False
        self.checkpoint: bytes | None = None
        self.is_stopped = False

    def encode(self, entries: Sequence[Entry | Event]) -> bytes:
        """The lines of these records, each with its newline. 4 us a line."""
        lines = []
        seq, head = self.seq, self.head
        for entry in entries:
            seq += 1
            if len(entry) == 3:
                event, wall_s, body = entry
                line = encode_event(seq, event, format_ts(wall_s), body, head)
                if event in CHECKPOINT_EVENTS:
                    self.wants_checkpoint = True
                    self.is_stopped = event == "stop"
            else:
                line = encode_call(seq, entry, format_ts(entry[2]), head)
            head = hash_line(line)
            lines.append(line)
        self.seq, self.head = seq, head
        self.unsigned += len(lines)
        self.checkpoint = None
        lines.append(b"")
        return b"\n".join(lines)

    def sign(self, wall_s: float) -> bytes:
        """A checkpoint over all lines so far, with its newline. ValueError before the first line."""
        if self.head is None:
            raise ValueError("there is nothing to sign before the first line")
        entries = self._journal_entries()
        line = write_checkpoint(self.log, self.seq, self.head, entries, format_ts(wall_s), self._signer)
        self.seq += 1
        self.head = hash_line(line)
        self.checkpoint = line
        self.unsigned = 0
        self.wants_checkpoint = False
        return line + b"\n"
