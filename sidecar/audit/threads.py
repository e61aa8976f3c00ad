"""The two threads behind a log: one writes, one waits for the disk."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Final

from sidecar.audit.batch import Batch, Notify, SyncJob
from sidecar.audit.writer import Writer
from sidecar.clock import Clock

Message = Batch | tuple[SyncJob, OSError | None] | None
"""Records, the end of a sync, or None: finish."""

_NAMES: Final = ("audit-writer", "audit-sync")

log = logging.getLogger(__name__)


class SyncThread:
    """Syncs one job after the other; tells its tickets of success, then the writer how it ended."""

    def __init__(self, clock: Clock, notify: Notify, done: Callable[[SyncJob, OSError | None], None]) -> None:
        self._clock = clock
        self._notify = notify
        self._done = done
        self._jobs: queue.SimpleQueue[SyncJob | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=_NAMES[1], daemon=True)
        self.blocked_since_s: float | None = None

    def start(self) -> None:
        self._thread.start()

    def begin(self, job: SyncJob) -> None:
        self._jobs.put(job)

    def stop(self) -> None:
        """Ends the thread once it is idle."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            error: OSError | None = None
            self.blocked_since_s = self._clock.monotonic_s()
            try:
                job.file.sync()
            except OSError as exc:
                error = exc
            self.blocked_since_s = None
            if job.tickets and error is None:
                self._notify.settled(job.tickets, True)
            self._done(job, error)


class WriterThread:
    """Runs a :class:`Writer`: hands it what arrives and wakes it when something is due."""

    def __init__(
        self, make_writer: Callable[[Callable[[SyncJob], None]], Writer], clock: Clock, notify: Notify
    ) -> None:
        self._notify = notify
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._sync = SyncThread(clock, notify, lambda job, error: self._inbox.put((job, error)))
        self.writer = make_writer(self._begin_sync)
        self._running = 0
        self._finishing = False
        self._finished: Callable[[bool], None] | None = None
        self._thread = threading.Thread(target=self._work, name=_NAMES[0], daemon=True)
        self.put = self._inbox.put
        """Hands over a batch; from any thread, at once."""

    def start(self) -> None:
        self._sync.start()
        self._thread.start()

    def finish(self, finished: Callable[[bool], None]) -> None:
        """Writes what is left and ends; ``finished`` is called in the thread, with whether everything is on disk."""
        self._finished = finished
        self._inbox.put(None)

    def blocked_since_s(self) -> float | None:
        """Since when an operation on the disk has not returned (monotonic); None while none is running."""
        times = [
            since_s
            for since_s in (self.writer.blocked_since_s, self._sync.blocked_since_s)
            if since_s is not None
        ]
        return min(times) if times else None

    def _begin_sync(self, job: SyncJob) -> None:
        self._running += 1
        self._sync.begin(job)

    def _work(self) -> None:
        on_disk = False
        try:
            self._serve()
            on_disk = self.writer.finish()
        except Exception as exc:  # the thread's end is a log that cannot be written
            log.exception("the audit log's writer failed")
            self.writer.trouble = f"its writer failed: {type(exc).__name__}"
            self._notify.troubled(self.writer.trouble)
            self._refuse_rest()
        self._sync.stop()
        if self._finished is not None:
            self._finished(on_disk)

    def _serve(self) -> None:
        """Until it is told to finish and no sync is running."""
        writer = self.writer
        while not self._finishing or self._running:
            try:
                message = self._inbox.get(timeout=None if self._finishing else writer.due_in_s())
            except queue.Empty:
                writer.tick()
                continue
            if message is None:
                self._finishing = True
            else:
                self._handle(message)
            if writer.due_in_s() == 0:
                writer.tick()

    def _handle(self, message: Batch | tuple[SyncJob, OSError | None]) -> None:
        if isinstance(message, Batch):
            self.writer.take(message)
        else:
            self._running -= 1
            self.writer.synced(*message)

    def _refuse_rest(self) -> None:
        """Nobody waits for ever: what still arrives is told that it is not on disk, until the end."""
        tickets = self.writer.abandon()
        if tickets:
            self._notify.settled(tickets, False)
        while not self._finishing:
            message = self._inbox.get()
            self._finishing = message is None
            if isinstance(message, Batch) and message.tickets:
                self._notify.settled(message.tickets, False)
