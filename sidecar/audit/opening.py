"""Opens a log on disk: finds where it ends, cuts a torn line back, and says how the process before had ended."""

from __future__ import annotations

import logging
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sidecar.audit.batch import File
from sidecar.audit.chain import LOG_ID_BYTES, LogKey, show_key
from sidecar.audit.directory import LogDirectory, open_directory
from sidecar.audit.ending import Ending, read_ending
from sidecar.audit.key import open_key
from sidecar.audit.lines import Place
from sidecar.audit.record import format_ts
from sidecar.clock import Clock
from sidecar.errors import StateError

KILLED_MS: Final = 10
POWER_CUT_MS: Final = 100
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Opened:
    """A log that can be gone on with at ``place`` of ``file``.

    ``start`` is what its line `start` says of log, key and the process before; ``torn_bytes`` were cut off.
    ``journal_entries`` is what the last checkpoint says, None if there is none.
    """

    directory: LogDirectory
    file: File
    place: Place
    key: LogKey
    start: dict[str, Any]
    torn_bytes: int
    journal_entries: int | None


def open_files(path: Path, key_path: Path, clock: Clock) -> Opened:
    """Locks the directory ``path`` and opens its newest file, or begins a log. Blocks.

    Raises :class:`StateError`: the directory or the key cannot be used, or the log's end is not one to go on from.
    """
    directory = open_directory(path)
    try:
        is_known = key_path.exists()
        key = open_key(key_path, may_create=directory.number == 0)
        opened = _open_newest(directory, key, clock)
        if is_known and opened.start["after"] == "first":
            # The key was made for a log, and that log is not here any more.
            log.error("the audit log that was here is gone; a new one begins", extra={"directory": str(path)})
            opened.start["after"] = "lost"
        return opened
    except OSError as exc:
        directory.close()
        raise StateError(f"the audit log in {str(path)!r} cannot be opened: {exc.strerror}") from exc
    except BaseException:
        directory.close()
        raise


def _open_newest(directory: LogDirectory, key: LogKey, clock: Clock) -> Opened:
    _make_first_reserve(directory)
    if directory.number == 0:
        place = Place(secrets.token_hex(LOG_ID_BYTES))
        start = _describe_start(place, key, "first", 0)
        return Opened(directory, directory.create_next(b""), place, key, start, 0, None)
    file = directory.open_newest()
    try:
        size = os.stat(directory.newest).st_size
        ending = read_ending(directory.newest, key.public, is_first=directory.number == 1)
        if ending is None:
            # The process before came to an end before its first line was whole.
            place, torn = Place(secrets.token_hex(LOG_ID_BYTES)), size
            start = (
                _describe_start(place, key, "crash", POWER_CUT_MS)
                if torn
                else _describe_start(place, key, "first", 0)
            )
        else:
            place, torn = Place(ending.log, ending.seq, ending.head, ending.size), ending.torn
            start = _describe_start(place, key, *_describe_end(ending, clock))
            if ending.damage is not None:
                log.error("the end of the audit log is damaged", extra={"error": ending.damage})
                start["damage"] = ending.damage
        if torn:
            file.truncate(place.offset)
            file.sync()
    except BaseException:
        file.close()
        raise
    checkpoint = ending.checkpoint if ending is not None else None
    return Opened(
        directory, file, place, key, start, torn, checkpoint.entries if checkpoint is not None else None
    )


def _make_first_reserve(directory: LogDirectory) -> None:
    directory.plan_reserve()
    try:
        directory.make_reserve()
    except OSError as exc:
        log.warning("the audit log has no reserve for a full disk", extra={"error": exc.strerror})


def _describe_start(place: Place, key: LogKey, after: str, may_lack_ms: int) -> dict[str, Any]:
    return {
        "log": place.log,
        "public_key": show_key(key.public),
        "pid": os.getpid(),
        "boot": _read_boot_id(),
        "after": after,
        "may_lack_ms": may_lack_ms,
    }


def _describe_end(ending: Ending, clock: Clock) -> tuple[str, int]:
    """How the process before ended, and up to how much time before its end may lack records."""
    if ending.is_clean:
        return "clean", 0
    booted_at = format_ts(clock.wall_s() - clock.boottime_s() + 1.0)
    return "crash", KILLED_MS if ending.ts > booted_at else POWER_CUT_MS


def _read_boot_id() -> str | None:
    try:
        return _BOOT_ID.read_text().strip()[:36]
    except OSError:
        return None
