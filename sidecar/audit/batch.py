"""What passes between the event loop and the log's two threads, and what each part asks of the others: their ports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from sidecar.audit.record import Entry

if TYPE_CHECKING:
    from sidecar.audit.writer import Writer

Event = tuple[str, float, bytes]
"""Any other line: event, Unix seconds, the encoded body."""


@dataclass(slots=True)
class Batch:
    """Records in their order, the oldest from ``since_s`` (monotonic).

    ``tickets`` wait until these records, and all before them, are on disk. ``size`` is what they are thought to take.
    """

    entries: list[Entry | Event]
    since_s: float
    size: int = 0
    tickets: list[int] = field(default_factory=list)


class File(Protocol):
    """One file of the log; :class:`sidecar.audit.directory.LogFile`."""

    def write(self, data: bytes | memoryview, offset: int) -> int: ...

    def sync(self) -> None: ...

    def truncate(self, size: int) -> None: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class SyncJob:
    """Everything written before the job is made: the first ``blobs`` blobs ever, ``records`` records ever."""

    file: File
    blobs: int
    records: int
    tickets: list[int]


class Store(Protocol):
    """Where files and reserve are; :class:`sidecar.audit.directory.LogDirectory`."""

    def create_next(self, first: bytes) -> File: ...

    def make_reserve(self) -> None: ...

    def free_reserve(self) -> None: ...


class Copy(Protocol):
    """A copy behind the file. ``take`` gets whole lines that are in the file; it never blocks and never raises."""

    def take(self, lines: bytes) -> None: ...


class Notify(Protocol):
    """How the threads tell the loop; callable from any thread."""

    def settled(self, tickets: list[int], on_disk: bool) -> None:
        """Each ticket once; whether what it waited for is on disk."""
        ...

    def troubled(self, trouble: str) -> None:
        """Nothing can be written from now on."""
        ...

    def recovered(self) -> None:
        """Everything that was kept is on disk, and more can be written."""
        ...


class Loop(Protocol):
    """What is used of an event loop."""

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> Handle: ...

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Handle: ...


class Handle(Protocol):
    """A callback that is to come."""

    def cancel(self) -> None: ...


class Thread(Protocol):
    """The writer and its thread; :class:`sidecar.audit.threads.WriterThread`."""

    writer: Writer

    @property
    def put(self) -> Callable[[Batch], None]: ...

    def blocked_since_s(self) -> float | None: ...

    def finish(self, finished: Callable[[bool], None]) -> None: ...
