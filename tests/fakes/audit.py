"""A log's surroundings that do what a test says: a disk that fails, a loop and threads that stand still, log keys."""

from __future__ import annotations

import errno
import heapq
import os
from collections.abc import Callable, Iterable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.audit.batch import Batch, Event, SyncJob
from sidecar.audit.chain import LogKey, show_key
from sidecar.audit.lines import Lines, Place
from sidecar.audit.record import Caller, Decision, Entry, Intent, Outcome, encode_body
from sidecar.audit.writer import Writer
from tests.fakes.clock import FakeClock

WALL_S = 1_795_520_000.0
LOG = "0123456789abcdef0123456789abcdef"
CALLER = Caller("spiffe://demo.test/web", "5f0c", "mtls", "team-shop", "service", "10.0.4.7", "prod")
INTENT = Intent("GET", "/orders/42", "/orders/**", "orders:read", "checkout")
ALLOW = Decision("allow", "policy", "policy.yaml:7", "sha256:" + "a" * 64, until="2026-11-24T13:00:00Z")
DENY = Decision("deny", "scope", None, "sha256:" + "a" * 64)
OUTCOME = Outcome(200, 0, 764, 812, "ok")


def make_key(seed: int = 1) -> LogKey:
    """A key that is the same in every run."""
    return LogKey(Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


def call(number: int, wall_s: float = WALL_S) -> Entry:
    """The record of an allowed call with this number."""
    return ("call", f"call-{number}", wall_s, CALLER, INTENT, ALLOW, OUTCOME, "00-1-2-01")


def event(name: str, wall_s: float = WALL_S, **body: object) -> Event:
    return (name, wall_s, encode_body(name, body))


def start(key: LogKey, log: str = LOG, **more: object) -> Event:
    """The record with which a log begins."""
    return event("start", WALL_S, log=log, public_key=show_key(key.public), **more)


def make_lines(key: LogKey, calls: int, every: int = 10, log: str = LOG, entries: int = 0) -> list[bytes]:
    """A whole log of one file: its start, calls, a checkpoint after every so many lines and at the end."""
    lines = Lines(Place(log), key, lambda: entries)
    data = lines.encode([start(key, log)])
    for number in range(calls):
        data += lines.encode([call(number)])
        if lines.unsigned >= every:
            data += lines.sign(WALL_S + number)
    if lines.checkpoint is None:
        data += lines.sign(WALL_S + calls)
    return data.splitlines(keepends=True)


class FakeFile:
    """What the kernel has is ``data``; what the disk has ``synced``. Every operation asks the disk first."""

    def __init__(self, disk: FakeDisk, first: bytes = b"") -> None:
        self._disk = disk
        self.data = bytearray(first)
        self.synced = bytes(first)
        self.is_closed = False

    def write(self, data: bytes | memoryview, offset: int) -> int:
        taken = self._disk.ask("write", len(data))
        growth = offset + taken - len(self.data)
        room = self._disk.room()
        if growth > room:
            taken -= growth - room
            if taken <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.data[offset : offset + taken] = data[:taken]
        return taken

    def sync(self) -> None:
        try:
            self._disk.ask("sync", 0)
        except OSError:
            # As the kernel may: what could not be written is dropped, and the next sync has nothing to complain of.
            kept = len(self.synced)
            self.data[kept:] = bytes(len(self.data) - kept)
            raise
        self.synced = bytes(self.data)

    def truncate(self, size: int) -> None:
        self._disk.ask("truncate", size)
        del self.data[size:]

    def close(self) -> None:
        self.is_closed = True


class FakeDisk:
    """A store whose room is bounded and whose operations a test may let fail.

    ``fault`` is asked for each operation (name and number, from 0): it may raise, or give how many bytes a write takes.
    """

    def __init__(self, capacity: int = 1 << 30, reserve: int = 0) -> None:
        self.capacity = capacity
        self.reserve = reserve
        self.reserved = reserve
        self.filler = 0
        self.files: list[FakeFile] = [FakeFile(self)]
        self.fault: Callable[[str, int], int | None] = lambda operation, number: None
        self.operations: list[str] = []

    def room(self) -> int:
        return self.capacity - self.reserved - self.filler - sum(len(file.data) for file in self.files)

    def ask(self, operation: str, size: int) -> int:
        self.operations.append(operation)
        taken = self.fault(operation, len(self.operations) - 1)
        return size if taken is None else min(size, taken)

    def create_next(self, first: bytes) -> FakeFile:
        self.ask("create", 0)
        self.files.append(FakeFile(self, first))
        return self.files[-1]

    def make_reserve(self) -> None:
        self.ask("reserve", 0)
        if self.reserved < self.reserve:
            if self.room() < self.reserve:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.reserved = self.reserve

    def free_reserve(self) -> None:
        self.reserved = 0

    def lines(self) -> list[bytes]:
        """All lines, repeated checkpoints included."""
        return b"".join(bytes(file.data) for file in self.files).splitlines(keepends=True)

    def named(self, *, synced: bool = False) -> list[tuple[str, list[bytes]]]:
        """Names and lines of the files, as verification wants them."""
        return [
            (f"{number:08d}.jsonl", (file.synced if synced else bytes(file.data)).splitlines(keepends=True))
            for number, file in enumerate(self.files, start=1)
        ]


class FakeThread:
    """A writer whose threads run only when a test says so. Stands where :class:`WriterThread` stands."""

    def __init__(self, clock: FakeClock, disk: FakeDisk | None = None, **options: Any) -> None:
        self.clock = clock
        self.disk = disk or FakeDisk()
        self.key = make_key()
        self.settled_tickets: list[tuple[int, bool]] = []
        self.jobs: list[SyncJob] = []
        self.batches: list[Batch] = []
        self.listener: Any = None
        self.hung_since_s: float | None = None
        self.finish_with: Callable[[bool], None] | None = None
        self.writer = Writer(
            self.disk, self.disk.files[0], Place(LOG), self.key, clock, self, self.jobs.append, **options
        )

    def put(self, batch: Batch) -> None:
        self.batches.append(batch)

    def blocked_since_s(self) -> float | None:
        return self.hung_since_s

    def finish(self, finished: Callable[[bool], None]) -> None:
        self.run()
        finished(self.writer.finish())

    def run(self) -> None:
        """Everything that the threads have to do, until they would wait."""
        while self.batches or self.jobs:
            self.run_writer()
            self.run_sync()
        if self.writer.due_in_s() == 0:
            self.writer.tick()
            if self.jobs:
                self.run()

    def run_writer(self) -> None:
        """What was handed over is written; nothing is synced."""
        while self.batches:
            self.writer.take(self.batches.pop(0))

    def run_sync(self) -> None:
        """The sync that waits, if one does."""
        for job in list(self.jobs):
            self.jobs.remove(job)
            error: OSError | None = None
            try:
                job.file.sync()
            except OSError as exc:
                error = exc
            if job.tickets and error is None:
                self.settled(job.tickets, True)
            self.writer.synced(job, error)

    def settled(self, tickets: list[int], on_disk: bool) -> None:
        self.settled_tickets += [(ticket, on_disk) for ticket in tickets]
        if self.listener is not None:
            self.listener.on_settled(tickets, on_disk)

    def troubled(self, trouble: str) -> None:
        if self.listener is not None:
            self.listener.on_troubled(trouble)

    def recovered(self) -> None:
        if self.listener is not None:
            self.listener.on_recovered()


class FakeLoop:
    """Callbacks in the order in which they are due; :meth:`run` lets time go on for them."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._due: list[tuple[float, int, FakeHandle]] = []
        self._count = 0

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> FakeHandle:
        return self.call_later(0.0, callback, *args)

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> FakeHandle:
        handle = FakeHandle(callback, args)
        self._count += 1
        heapq.heappush(self._due, (self._clock.monotonic_s() + delay, self._count, handle))
        return handle

    def pending(self) -> int:
        """How many callbacks are still to come."""
        return sum(not handle.is_cancelled for _, _, handle in self._due)

    def run(self, seconds: float = 0.0, between: Callable[[], None] = lambda: None) -> None:
        """Calls what is due within the time, moving the clock; ``between`` after each."""
        end_s = self._clock.monotonic_s() + seconds
        between()
        while self._due and self._due[0][0] <= end_s + 1e-9:
            due_s, _, handle = heapq.heappop(self._due)
            self._clock.advance(max(0.0, due_s - self._clock.monotonic_s()))
            if not handle.is_cancelled:
                handle.call()
            between()
        self._clock.advance(max(0.0, end_s - self._clock.monotonic_s()))
        between()


class FakeHandle:
    def __init__(self, callback: Callable[..., Any], args: Iterable[Any]) -> None:
        self._callback = callback
        self._args = tuple(args)
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def call(self) -> None:
        self._callback(*self._args)


def fail(number: int) -> OSError:
    """The error with this number, as the system words it."""
    return OSError(number, os.strerror(number))
