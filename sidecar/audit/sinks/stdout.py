"""The copy on standard output, for a platform that takes it away: the same lines, checkpoints among them."""

from __future__ import annotations

import logging
import os
import queue
import select
import threading
from typing import Final

from sidecar.clock import Clock

MAX_BYTES: Final = 8 << 20
COMPLAIN_EVERY_S: Final = 60.0
_NEWLINE: Final = 0x0A

log = logging.getLogger(__name__)


class StdoutSink:
    """Writes from a thread of its own. A reader that is slow or gone costs the copy lines, and the log nothing.

    Only whole batches are left out, so that what is there are whole lines; the missing ``seq`` show what is not, the
    counter ``dropped`` how much, and the service log says so, at most once a minute.
    """

    def __init__(self, clock: Clock, fd: int = 1, max_bytes: int = MAX_BYTES) -> None:
        self.written = 0
        self._clock = clock
        self._fd = fd
        self._max_bytes = max_bytes
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # Each of these is changed by one thread only.
        self._taken_bytes = self._done_bytes = 0
        self._not_taken = self._not_written = 0
        self._is_torn = False
        self._complained_s: float | None = None
        self._thread = threading.Thread(target=self._work, name="audit-stdout", daemon=True)

    @property
    def dropped(self) -> int:
        """Lines that the copy lacks."""
        return self._not_taken + self._not_written

    def start(self) -> None:
        self._thread.start()

    def take(self, lines: bytes) -> None:
        """Whole lines that the file has. At once; they are dropped when too much waits already."""
        if self._taken_bytes - self._done_bytes + len(lines) > self._max_bytes:
            self._not_taken += lines.count(b"\n")
            self._complain("it is read too slowly")
            return
        self._taken_bytes += len(lines)
        self._queue.put(lines)

    def close(self, timeout_s: float) -> None:
        """Waits until everything is written, no longer than ``timeout_s``."""
        self._queue.put(None)
        self._thread.join(timeout_s)

    def _work(self) -> None:
        while (lines := self._queue.get()) is not None:
            try:
                self._write(lines)
            except OSError as exc:
                self._not_written += lines.count(b"\n")
                self._complain(exc.strerror or type(exc).__name__)
            else:
                self.written += lines.count(b"\n")
            self._done_bytes += len(lines)

    def _write(self, lines: bytes) -> None:
        view = memoryview(b"\n" + lines if self._is_torn else lines)
        while view:
            try:
                count = os.write(self._fd, view)
            except BlockingIOError:  # somebody who shares the descriptor made it so
                waiter = select.poll()
                waiter.register(self._fd, select.POLLOUT)
                waiter.poll(1000)
            else:
                self._is_torn = view[count - 1] != _NEWLINE
                view = view[count:]

    def _complain(self, why: str) -> None:
        now_s = self._clock.monotonic_s()
        if self._complained_s is None or now_s - self._complained_s >= COMPLAIN_EVERY_S:
            self._complained_s = now_s
            log.warning(
                "the copy of the audit log on stdout lacks lines",
                extra={"dropped": self.dropped, "error": why},
            )
