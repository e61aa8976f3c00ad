"""The audit log as the event loop sees it: records go in at once, and whoever must waits until they are on disk.

Nothing here writes, syncs or encodes a call. Records are collected for a few milliseconds, handed to the thread of
:mod:`sidecar.audit.threads`, and what becomes of them is watched: an error of the disk, one that does not return, or
more waiting records than are kept make the log unavailable, and then no call may be let through.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from sidecar.audit.batch import Batch, Event, Handle, Loop, Thread
from sidecar.audit.counting import Counting
from sidecar.audit.record import Caller, Decision, Entry, Intent, Outcome, encode_body, format_ts
from sidecar.audit.refusals import Refusals
from sidecar.audit.sinks import Sink
from sidecar.audit.waiters import Done, Waiters
from sidecar.clock import Clock
from sidecar.errors import AuditUnavailable
from sidecar.metrics import SidecarMetrics

FLUSH_S: Final = 0.005
WATCH_S: Final = 0.25
HANG_S: Final = 2.0
SUM_S: Final = 1.0
CLOSE_S: Final = 5.0
SINK_CLOSE_S: Final = 1.0
MAX_WAITING_RECORDS: Final = 100_000
MAX_WAITING_BYTES: Final = 64 << 20
RECORD_BYTES: Final = 600  # a record beside its path or body, in memory

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Outage:
    """A time in which calls are refused because they could not be recorded."""

    from_s: float
    cause: str
    refused: int = 0
    lost: int = 0


class AuditLog:
    """Belongs to one event loop. Made by :func:`sidecar.audit.log.open_log`.

    ``recovered_journal_entries`` is what the last checkpoint said of the journal of grants when the log was opened,
    None if there was none. ``journal_entries`` is asked for each new checkpoint; it is called in another thread.
    """

    def __init__(
        self,
        loop: Loop,
        clock: Clock,
        metrics: SidecarMetrics,
        thread: Thread,
        *,
        recovered_journal_entries: int | None = None,
        sinks: Mapping[str, Sink] | None = None,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._thread = thread
        self._writer = thread.writer
        self._tail = thread.writer.tail
        self._release = release
        self._sinks = dict(sinks or {})
        self.recovered_journal_entries = recovered_journal_entries
        self.journal_entries: Callable[[], int] = lambda: recovered_journal_entries or 0
        self._pending: list[Entry | Event] = []
        self._pending_size = self._handed = self._handed_size = 0
        self._pending_since_s = 0.0
        self._waiters = Waiters()
        self._flush_handle: Handle | None = None
        self._is_urgent = False
        self._watch_handle: Handle | None = None
        self._sum_handle: Handle | None = None
        self._refusals = Refusals()
        self._outage: _Outage | None = None
        self._closed = False
        self._lost = 0
        self._counting = Counting(metrics)
        self._counting.add("file", "written", lambda: self._tail.written_records)
        self._counting.add("file", "summed", lambda: self._refusals.summed)
        self._counting.add("file", "lost", lambda: self._lost)
        for name, sink in self._sinks.items():
            self._counting.add_sink(name, sink)
        metrics.audit_queue_depth.labels().set_function(lambda: self.waiting)
        metrics.audit_oldest_unshipped.labels().set_function(self._oldest_age_s)

    # What others ask

    @property
    def available(self) -> bool:
        """Whether a call may be let through. 0.2 us."""
        if self._outage is not None or self._closed:
            return False
        tail = self._tail
        if (
            self._handed + len(self._pending) - tail.written_records < MAX_WAITING_RECORDS
            and self._handed_size + self._pending_size - tail.written_size < MAX_WAITING_BYTES
        ):
            return True
        self._begin_outage("more records wait than are kept")
        return False

    @property
    def trouble(self) -> str | None:
        """Why calls are refused; None while they are not."""
        return None if self._outage is None else self._outage.cause

    @property
    def seq(self) -> int:
        """The number of the last line that was written."""
        return self._writer.seq

    @property
    def waiting(self) -> int:
        """How many records the kernel does not have yet."""
        return self._handed + len(self._pending) - self._tail.written_records

    # What is recorded

    def record_call(
        self,
        call_id: str,
        wall_s: float,
        caller: Caller,
        intent: Intent,
        decision: Decision,
        outcome: Outcome | None,
        trace: str,
        *,
        is_open: bool = False,
    ) -> None:
        """The line `call` of a call that has ended, or `open` of one that goes on. 0.4 us; never refused.

        Also while the log is not available: what has happened is kept until it can be written.
        """
        event = "open" if is_open else "call"
        self._pending.append((event, call_id, wall_s, caller, intent, decision, outcome, trace))
        path = intent.path
        self._pending_size += RECORD_BYTES if path is None else RECORD_BYTES + len(path)
        if self._flush_handle is None:
            self._begin_batch()

    def record_denial(
        self,
        call_id: str,
        wall_s: float,
        caller: Caller,
        intent: Intent,
        decision: Decision,
        outcome: Outcome,
        trace: str,
    ) -> bool:
        """The line `call` of a refused call: True, and the answer waits for :meth:`when_durable`.

        False when it is one of too many: it is counted, and a line `denials` will tell. While the log is not available
        it counts as refused without a record, and waiting for it says so.
        """
        if not self.available:
            self.count_unrecorded()
            return True
        if self._refusals.admit_call(caller.id, decision.reason, call_id, self._clock.monotonic_s(), wall_s):
            self.record_call(call_id, wall_s, caller, intent, decision, outcome, trace)
            return True
        self._expect_sums()
        return False

    def record_handshake(self, source: str, rule: str, detail: str, claimed: str | None) -> None:
        """The line `handshake` of a refused one; many of one address and rule are summed in lines `handshakes`.

        ``claimed`` is what the peer said that it is. Nobody has proved it.
        """
        now_s, wall_s = self._clock.monotonic_s(), self._clock.wall_s()
        line = self._refusals.admit_handshake(source, rule, detail, claimed, now_s, wall_s)
        if line is None:
            self._expect_sums()
        else:
            self.record(*line)

    def record(self, event: str, body: Mapping[str, object]) -> None:
        """A line of any other event; the members of ``body`` stand beside those of every line.

        ValueError for a name or a member that no line can have. While more waits than is kept it is lost, and counted
        in the line `gap`.
        """
        data = encode_body(event, body)
        if self._closed:
            log.error("a record came after the end of the audit log", extra={"event": event})
            return
        outage = self._outage
        if outage is not None and self.waiting >= MAX_WAITING_RECORDS:
            outage.lost += 1
            self._lost += 1
            return
        self._pending.append((event, self._clock.wall_s(), data))
        self._pending_size += len(data) + RECORD_BYTES
        if self._flush_handle is None:
            self._begin_batch()

    def count_unrecorded(self) -> None:
        """A call was refused because it could not be recorded; the line `gap` will tell how many."""
        if self._outage is not None:
            self._outage.refused += 1

    # Who waits

    def when_durable(self, done: Done) -> None:
        """Calls ``done`` on the loop, later: True once everything recorded so far is on disk, else False."""
        if self._closed or self._outage is not None:
            self._loop.call_soon(done, False)
            return
        if not self._pending and not self._waiters and self._tail.synced_records == self._handed:
            self._loop.call_soon(done, True)
            return
        self._waiters.add(done)
        if not self._is_urgent:
            # Not at once: what else this turn of the loop brings goes to disk with it.
            if self._flush_handle is None:
                self._pending_since_s = self._clock.monotonic_s()
            else:
                self._flush_handle.cancel()
            self._is_urgent = True
            self._flush_handle = self._loop.call_soon(self._flush)

    async def sync(self) -> None:
        """Returns when everything recorded so far is on disk. Raises :class:`AuditUnavailable`."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.when_durable(lambda on_disk: None if future.done() else future.set_result(on_disk))
        if not await future:
            raise AuditUnavailable(f"the audit log cannot be written: {self.trouble or 'it is closed'}")

    async def close(self) -> None:
        """Writes the last records and a checkpoint, and waits until they are on disk. Harmless when repeated.

        Raises :class:`AuditUnavailable` when that fails or takes more than :data:`CLOSE_S`.
        """
        if self._closed:
            return
        for event, body in self._refusals.collect(None):
            self.record(event, body)
        self.record("stop", {})
        for handle in (self._flush_handle, self._watch_handle, self._sum_handle):
            if handle is not None:
                handle.cancel()
        self._flush()
        self._closed = True
        try:
            async with asyncio.timeout(CLOSE_S):
                on_disk = await self._finish()
        except TimeoutError:
            # The thread may still write: the directory stays locked until this process is gone.
            self._waiters.refuse_all()
            raise AuditUnavailable(
                f"the audit log could not be ended: the disk gave no answer within {CLOSE_S:g} s"
            ) from None
        for sink in self._sinks.values():
            await asyncio.get_running_loop().run_in_executor(None, sink.close, SINK_CLOSE_S)
        self._counting.count()
        self._release()
        self._waiters.refuse_all()
        if not on_disk:
            raise AuditUnavailable(f"the audit log's last records are not on disk: {self._writer.trouble}")

    async def _finish(self) -> bool:
        loop = asyncio.get_running_loop()
        finished: asyncio.Future[bool] = loop.create_future()

        def settle(on_disk: bool) -> None:
            if not finished.done():
                finished.set_result(on_disk)

        def finish(on_disk: bool) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has not waited
                loop.call_soon_threadsafe(settle, on_disk)

        self._thread.finish(finish)
        return await finished

    # Timers

    def _begin_batch(self) -> None:
        self._pending_since_s = self._clock.monotonic_s()
        self._flush_handle = self._loop.call_later(FLUSH_S, self._flush)

    def _flush(self) -> None:
        self._flush_handle, self._is_urgent = None, False
        if not self._pending and not self._waiters:
            return
        if self._closed:
            log.error("records came after the end of the audit log", extra={"count": len(self._pending)})
            return
        batch = Batch(self._pending, self._pending_since_s, self._pending_size)
        if self._waiters:
            batch.tickets.append(self._waiters.take_ticket())
        self._handed += len(self._pending)
        self._handed_size += self._pending_size
        self._pending, self._pending_size = [], 0
        self._thread.put(batch)
        self._keep_watch()

    def _keep_watch(self) -> None:
        if self._watch_handle is None and not self._closed:
            self._watch_handle = self._loop.call_later(WATCH_S, self._watch)

    def _watch(self) -> None:
        self._watch_handle = None
        self._counting.count()
        since_s = self._thread.blocked_since_s()
        if since_s is not None and self._clock.monotonic_s() - since_s > HANG_S:
            self._begin_outage("the disk gives no answer")
        elif self._writer.trouble is None and self.waiting < MAX_WAITING_RECORDS // 2:
            self._end_outage()
        if self._outage is not None or self._handed != self._tail.synced_records:
            self._keep_watch()

    def _expect_sums(self) -> None:
        if self._sum_handle is None:
            self._sum_handle = self._loop.call_later(SUM_S, self._on_sums)

    def _on_sums(self) -> None:
        self._sum_handle = None
        for event, body in self._refusals.collect(self._clock.monotonic_s()):
            self.record(event, body)
        if self._refusals.has_sums:
            self._expect_sums()

    # What the threads tell

    def on_settled(self, tickets: list[int], on_disk: bool) -> None:
        """These tickets are on disk, or nobody knows."""
        self._waiters.settle(tickets, on_disk)

    def on_troubled(self, trouble: str) -> None:
        """The disk failed."""
        self._begin_outage(trouble)

    def on_recovered(self) -> None:
        """The disk has everything again."""
        self._end_outage()

    # Outages

    def _begin_outage(self, cause: str) -> None:
        if self._outage is not None:
            return
        self._outage = _Outage(self._clock.wall_s(), cause)
        log.error("the audit log cannot be written; calls are refused", extra={"cause": cause})
        self._loop.call_soon(self._waiters.refuse_all)
        self._keep_watch()

    def _end_outage(self) -> None:
        outage, self._outage = self._outage, None
        if outage is None:
            return
        body = {
            "from": format_ts(outage.from_s),
            "to": format_ts(self._clock.wall_s()),
            "cause": outage.cause,
        }
        self.record("gap", {**body, "refused": outage.refused, "lost": outage.lost})
        extra = {"refused": outage.refused, "lost": outage.lost}
        log.warning("the audit log can be written again", extra=extra)

    def _oldest_age_s(self) -> float:
        times = [self._pending_since_s] if self._pending else []
        if (since_s := self._writer.oldest_s) is not None:
            times.append(since_s)
        return max(0.0, self._clock.monotonic_s() - min(times)) if times else 0.0
