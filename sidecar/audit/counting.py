"""The log's counters as metrics: read from the threads now and then, because metrics belong to the loop."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.audit.sinks import Sink
from sidecar.metrics import Counter, SidecarMetrics


class Counting:
    """Brings ``sidecar_audit_records_total`` up to what was counted elsewhere."""

    def __init__(self, metrics: SidecarMetrics) -> None:
        self._records = metrics.audit_records
        self._pairs: list[tuple[Counter, Callable[[], int]]] = []

    def add(self, sink: str, result: str, read: Callable[[], int]) -> None:
        """``read`` gives a number that only grows."""
        self._pairs.append((self._records.labels(sink, result), read))

    def add_sink(self, name: str, sink: Sink) -> None:
        """What a copy has, and what it lacks."""
        self.add(name, "written", lambda: sink.written)
        self.add(name, "dropped", lambda: sink.dropped)

    def count(self) -> None:
        for counter, read in self._pairs:
            counter.inc(read() - counter.value)
