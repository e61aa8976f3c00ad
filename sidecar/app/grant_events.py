"""What happens to grants, told three times: in the audit log, in a metric, in the service log."""

from __future__ import annotations

import logging
from typing import Any

from sidecar.audit.record import Record
from sidecar.metrics import SidecarMetrics

log = logging.getLogger(__name__)

# What an operator has to see even where only warnings are kept; the rest is information.
_LOUD = frozenset({"submit", "use", "unbacked", "overdue", "void", "clock", "recovered"})


class GrantEvents:
    """The listener of a grant book. Until the log is there, what happens is kept and then recorded."""

    def __init__(self, metrics: SidecarMetrics) -> None:
        self._metrics = metrics
        self._record: Record | None = None
        self._early: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, body: dict[str, Any]) -> None:
        result = str(body.get("result", "ok"))
        self._metrics.grant_events.labels(event, result).inc()
        level = logging.WARNING if event in _LOUD or result != "ok" else logging.INFO
        log.log(level, "break-glass %s", event, extra=_as_extra(body))
        if self._record is None:
            self._early.append((event, body))
        else:
            self._record("grant", _as_record(event, body))

    def record_to(self, record: Record) -> None:
        """From now on events go to ``record`` as well, and those that came before."""
        self._record = record
        for event, body in self._early:
            record("grant", _as_record(event, body))
        self._early.clear()


def _as_record(event: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"what": event, **body}


def _as_extra(body: dict[str, Any]) -> dict[str, Any]:
    # Names of logging's own may not be given; none of them is worth another word here.
    return {
        f"grant_{name}" if name in ("name", "message", "args") else name: value
        for name, value in body.items()
    }
