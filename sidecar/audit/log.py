"""The log of one running sidecar, put together: files, key, threads, copies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sidecar.audit.batch import SyncJob
from sidecar.audit.opening import open_files
from sidecar.audit.recorder import AuditLog
from sidecar.audit.sinks import load_sink
from sidecar.audit.threads import WriterThread
from sidecar.audit.writer import ROTATE_BYTES, Writer
from sidecar.clock import Clock
from sidecar.errors import AuditUnavailable
from sidecar.metrics import SidecarMetrics

__all__ = ["AuditLog", "open_log"]


async def open_log(
    directory: Path,
    key: Path,
    *,
    clock: Clock,
    metrics: SidecarMetrics,
    sinks: Sequence[str] = (),
    start: Mapping[str, object] | None = None,
    rotate_bytes: int = ROTATE_BYTES,
) -> AuditLog:
    """The log in ``directory``, its line `start` on disk; ``start`` adds members to that line.

    ``key`` is the private key's file, made at the first start. ``sinks`` names copies. Raises :class:`StateError` when
    the log or its key cannot be used or another process writes it, and :class:`AuditUnavailable` when the disk does
    not take the first line.
    """
    loop = asyncio.get_running_loop()
    copies = {name: load_sink(name, clock) for name in sinks}
    opened = open_files(directory, key, clock)
    notify = _LoopNotify(loop)

    def make_writer(start_sync: Callable[[SyncJob], None]) -> Writer:
        return Writer(
            opened.directory,
            opened.file,
            opened.place,
            opened.key,
            clock,
            notify,
            start_sync,
            journal_entries=lambda: audit.journal_entries(),
            copies=tuple(copies.values()),
            rotate_bytes=rotate_bytes,
        )

    thread = WriterThread(make_writer, clock, notify)
    audit = AuditLog(
        loop,
        clock,
        metrics,
        thread,
        recovered_journal_entries=opened.journal_entries,
        sinks=copies,
        release=opened.directory.close,
    )
    notify.audit = audit
    for sink in copies.values():
        sink.start()
    thread.start()
    try:
        audit.record("start", {**(start or {}), **opened.start})
        if opened.torn_bytes:
            audit.record("recovered", {"file": opened.directory.newest.name, "bytes": opened.torn_bytes})
        await audit.sync()
    except BaseException:
        with contextlib.suppress(AuditUnavailable):
            await audit.close()
        raise
    return audit


class _LoopNotify:
    """Takes what the threads tell over to the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.audit: AuditLog | None = None

    def settled(self, tickets: list[int], on_disk: bool) -> None:
        self._call(lambda audit: audit.on_settled(tickets, on_disk))

    def troubled(self, trouble: str) -> None:
        self._call(lambda audit: audit.on_troubled(trouble))

    def recovered(self) -> None:
        self._call(lambda audit: audit.on_recovered())

    def _call(self, tell: Callable[[AuditLog], None]) -> None:
        audit = self.audit
        if audit is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(tell, audit)
