from __future__ import annotations

from sidecar.audit.counting import Counting
from sidecar.metrics import SidecarMetrics


class Copy:
    written = 4
    dropped = 1

    def start(self) -> None: ...

    def take(self, lines: bytes) -> None: ...

    def close(self, timeout_s: float) -> None: ...


def test_counters_follow_what_is_counted_elsewhere():
    metrics = SidecarMetrics()
    counting = Counting(metrics)
    number = 3
    counting.add("file", "written", lambda: number)
    counting.add_sink("stdout", Copy())
    for number in (3, 3, 8):
        counting.count()
        assert metrics.audit_records.labels("file", "written").value == number
    assert metrics.audit_records.labels("stdout", "written").value == 4
    assert metrics.audit_records.labels("stdout", "dropped").value == 1
