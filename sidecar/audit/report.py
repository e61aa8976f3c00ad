"""What verifying a log gives: what it consists of, or the first line that does not fit. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sidecar.errors import VerificationError

CLAIM: Final = (
    "tamper-evident up to the last anchored checkpoint; someone with root can stop logging or forge what comes "
    "next, but cannot rewrite the anchored past"
)


class BadLogError(VerificationError):
    """The log is not whole. ``file`` and ``line`` (0: the file as such) say where that shows first."""

    def __init__(self, file: str, line: int, what: str) -> None:
        super().__init__(f"{file}:{line}: {what}" if line else f"{file}: {what}")
        self.file = file
        self.line = line
        self.what = what


@dataclass(frozen=True, slots=True)
class Report:
    """What a whole log consists of.

    Its lines are ``first_seq`` to ``seq``; ``head`` is the hash of the last. Lines after ``signed_seq`` (0: all)
    are chained, but no checkpoint covers them yet. ``anchored_seq`` is the same for the newest anchor.
    """

    log: str | None
    key: str
    files: int
    lines: int
    checkpoints: int
    starts: int
    crashes: int
    gaps: int
    first_seq: int
    seq: int
    head: str | None
    signed_seq: int
    anchors: int
    anchored_seq: int
    warnings: tuple[str, ...]
