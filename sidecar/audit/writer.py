"""Brings records to the kernel and to the disk, in order, whatever the disk does.

The work of one thread, without the thread: :meth:`Writer.take`, :meth:`Writer.synced` and :meth:`Writer.tick` are
called one after the other and block in nothing but the file. The waiting for ``fdatasync`` is left to a second
thread, so that a slow disk does not keep records from the kernel.

Trouble begins with the first error of the disk and ends when everything kept is on it. While it lasts records are still
taken, chained and kept, every ticket is told no, and once a second everything is tried again. A full disk is given the
reserve's room back at once, for what was accepted already and a last checkpoint; trouble then ends when there is room
for a reserve again.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from sidecar.audit.batch import Batch, Copy, File, Notify, Store, SyncJob
from sidecar.audit.chain import Signer
from sidecar.audit.lines import Lines, Place
from sidecar.audit.tail import Tail
from sidecar.clock import Clock

CHECKPOINT_RECORDS: Final = 256
CHECKPOINT_S: Final = 1.0
SYNC_AFTER_S: Final = 0.05  # the disk has the other half of the 100 ms
RETRY_S: Final = 1.0
ROTATE_BYTES: Final = 64 << 20

_FULL: Final = frozenset([errno.ENOSPC, errno.EDQUOT])

log = logging.getLogger(__name__)


class Writer:
    """``trouble`` is why nothing can be written, None while all is well.

    It, the counters of ``tail``, ``seq`` (the last line in the kernel), ``oldest_s`` (monotonic, of the oldest record
    that is not) and ``blocked_since_s`` (monotonic, of an operation on the disk that has not returned) may be read
    from other threads.
    """

    def __init__(
        self,
        store: Store,
        file: File,
        place: Place,
        signer: Signer,
        clock: Clock,
        notify: Notify,
        start_sync: Callable[[SyncJob], None],
        *,
        journal_entries: Callable[[], int] = lambda: 0,
        copies: Sequence[Copy] = (),
        rotate_bytes: int = ROTATE_BYTES,
    ) -> None:
        self._store = store
        self._clock = clock
        self._notify = notify
        self._start_sync = start_sync
        self._rotate_bytes = rotate_bytes
        self._lines = Lines(place, signer, journal_entries)
        self.tail = Tail(file, place.offset, copies)
        self.trouble: str | None = None
        self.seq = place.seq
        self.oldest_s: float | None = None
        self.blocked_since_s: float | None = None
        self._tickets: list[int] = []
        self._job: SyncJob | None = None
        self._unsigned_since_s = 0.0
        self._wants_sync = self._wants_rescue = False
        self._retry_s = self._rotate_not_before_s = 0.0

    # What happens to it

    def take(self, batch: Batch) -> None:
        """Writes the batch's records. What fails is kept and tried again by :meth:`tick`."""
        lines, entries, size = self._lines, batch.entries, batch.size
        self._tickets += batch.tickets
        if entries:
            self.oldest_s = batch.since_s if self.oldest_s is None else self.oldest_s
            if not lines.unsigned:
                self._unsigned_since_s = batch.since_s
        begin = 0
        while begin < len(entries):
            chunk = entries[begin : begin + CHECKPOINT_RECORDS - lines.unsigned]
            begin += len(chunk)
            share = size if begin == len(entries) else size * len(chunk) // len(entries)
            size -= share
            self.tail.append(lines.encode(chunk), len(chunk), share, batch.since_s)
            if lines.wants_checkpoint and begin == len(entries):
                self._checkpoint()
            elif lines.unsigned >= CHECKPOINT_RECORDS:
                self._checkpoint(urgent=False)
            self._write()
        self._settle()

    def synced(self, job: SyncJob, error: OSError | None) -> None:
        """The sync that ``start_sync`` was asked for has ended. If it succeeded, its tickets have been told."""
        self._job = None
        if error is None:
            self.tail.drop(job.blobs, job.records)
        else:
            self._tickets += job.tickets
            self.tail.rewrite()
            self._fail(error)
        if self._wants_rescue:
            self._rescue()
        self._rotate_if_due()  # first: under load the next sync begins at once
        self._settle()

    def tick(self) -> None:
        """Does what is due by the clock: a sync, a checkpoint, another try."""
        now_s = self._clock.monotonic_s()
        if self.trouble is not None:
            if self._job is None and now_s >= self._retry_s:
                self._retry()
            return
        if self._lines.unsigned and now_s - self._unsigned_since_s >= CHECKPOINT_S:
            self._checkpoint()
            self._write()
        self._rotate_if_due()
        self._settle()

    def due_in_s(self) -> float | None:
        """When :meth:`tick` has something to do, in seconds from now; None: not before something else happens."""
        now_s = self._clock.monotonic_s()
        if self.trouble is not None:
            return None if self._job is not None else max(0.0, self._retry_s - now_s)
        times = []
        if self._lines.unsigned:
            times.append(self._unsigned_since_s + CHECKPOINT_S - now_s)
        if self._job is None and (since_s := self.tail.since_s) is not None:
            times.append(since_s + SYNC_AFTER_S - now_s)
        return max(0.0, min(times)) if times else None

    def finish(self) -> bool:
        """Brings everything to the disk, a checkpoint last, and closes the file; whether that worked.

        Not while a sync is running.
        """
        try:
            self._catch_up()
        except OSError as exc:
            self._fail(exc)
        on_disk = not self.tail
        self._tell(on_disk)
        try:
            self.tail.file.close()
        except OSError:
            on_disk = False
        return on_disk

    def abandon(self) -> list[int]:
        """The tickets that wait, when nobody will write any more."""
        tickets, self._tickets = self._tickets, []
        return tickets

    # The kernel

    def _checkpoint(self, *, urgent: bool = True) -> None:
        """Signs the lines so far. One that is not ``urgent`` goes to disk with what it covers: nobody waits for it, and
        under load there are forty a second.
        """
        self.tail.append(self._lines.sign(self._clock.wall_s()), 0, 0, self._clock.monotonic_s())
        self._wants_sync = self._wants_sync or urgent

    def _write(self) -> None:
        if self.trouble is None:
            try:
                self._write_tail()
            except OSError as exc:
                self._fail(exc)

    def _write_tail(self) -> None:
        with self._blocking():
            self.tail.write()
        self.seq = self._lines.seq
        self.oldest_s = None

    # The disk

    def _settle(self) -> None:
        """Begins a sync if somebody waits for one or it is time, or says at once how things are."""
        if self.trouble is not None:
            self._tell(False)
        elif not self.tail:
            self._wants_sync = False
            self._tell(True)
        elif self._job is None and (self._tickets or self._wants_sync or self._is_sync_due()):
            tickets, self._tickets = self._tickets, []
            self._wants_sync = False
            self._job = SyncJob(self.tail.file, self.tail.blobs, self.tail.records, tickets)
            self._start_sync(self._job)

    def _is_sync_due(self) -> bool:
        since_s = self.tail.since_s
        return since_s is not None and self._clock.monotonic_s() - since_s >= SYNC_AFTER_S

    def _sync_here(self) -> None:
        """Waits for the disk in this thread."""
        try:
            with self._blocking():
                self.tail.file.sync()
        except OSError:
            self.tail.rewrite()
            raise
        self.tail.drop(self.tail.blobs, self.tail.records)
        self._wants_sync = False

    def _tell(self, on_disk: bool) -> None:
        if tickets := self.abandon():
            self._notify.settled(tickets, on_disk)

    # Trouble

    def _fail(self, error: OSError) -> None:
        is_news = self.trouble is None
        self.trouble = error.strerror or type(error).__name__
        self._retry_s = self._clock.monotonic_s() + RETRY_S
        if is_news:
            self._notify.troubled(self.trouble)
        if error.errno in _FULL:
            self._store.free_reserve()
            self._wants_rescue = is_news
        if self._wants_rescue:
            self._rescue()

    def _rescue(self) -> None:
        """Uses the room that the reserve had for what was accepted already, and a last checkpoint."""
        if self._job is not None:
            return
        self._wants_rescue = False
        try:
            self._catch_up()
        except OSError as exc:
            log.warning("the audit log's last records wait in memory", extra={"error": exc.strerror})

    def _retry(self) -> None:
        before = self.tail.dropped
        try:
            self._catch_up()
            with self._blocking():
                self._store.make_reserve()
            if self.tail.dropped == before:  # nothing was left to write, so nothing is proved yet
                self._checkpoint()
                self._catch_up()
        except OSError as exc:
            self._fail(exc)
            return
        self.trouble = None
        self._notify.recovered()

    def _catch_up(self) -> None:
        """Writes all that is kept, a checkpoint after it, and waits for the disk. OSError."""
        if self._lines.unsigned:
            self._checkpoint()
        if self.tail:
            self._write_tail()
            self._sync_here()

    # The next file

    def _rotate_if_due(self) -> None:
        """At its end a file is put on disk here and now: no later one may be there without all of it."""
        now_s = self._clock.monotonic_s()
        if (
            self.tail.offset < self._rotate_bytes
            or self.trouble is not None
            or self._job is not None
            or now_s < self._rotate_not_before_s
            or self._lines.is_stopped  # a clean end is told by the last two lines of the last file
        ):
            return
        try:
            if self._lines.checkpoint is None:
                self._checkpoint()
            if self.tail:
                self._write_tail()
                self._sync_here()
        except OSError as exc:
            self._fail(exc)
            return
        self._tell(True)
        assert self._lines.checkpoint is not None
        first = self._lines.checkpoint + b"\n"
        try:
            with self._blocking():
                file = self._store.create_next(first)
        except OSError as exc:
            log.warning("the audit log stays in its file for now", extra={"error": exc.strerror})
            self._rotate_not_before_s = now_s + RETRY_S
            return
        with contextlib.suppress(OSError):
            self.tail.turn_to(file, len(first)).close()

    @contextlib.contextmanager
    def _blocking(self) -> Iterator[None]:
        """Around what may take long: the loop watches whether it returns."""
        self.blocked_since_s = self._clock.monotonic_s()
        try:
            yield
        finally:
            self.blocked_since_s = None
