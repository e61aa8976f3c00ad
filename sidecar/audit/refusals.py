"""Refusals that come in masses, as lines: each for itself, or a second's worth in one. Pure."""

from __future__ import annotations

from typing import Any, Final

from sidecar.audit.record import format_ts
from sidecar.audit.summing import Sum, Summing

LONGEST_CLAIM: Final = 2048
LONGEST_DETAIL: Final = 512

Line = tuple[str, dict[str, Any]]
"""An event and its body."""


class Refusals:
    """What is admitted gets its own line; the rest is in :meth:`collect` once its second is over."""

    def __init__(self) -> None:
        self._calls = Summing()
        self._handshakes = Summing()
        self.summed = 0

    @property
    def has_sums(self) -> bool:
        """Whether :meth:`collect` will have something."""
        return self._calls.has_sums or self._handshakes.has_sums

    def admit_call(self, caller: str, reason: str, call_id: str, now_s: float, wall_s: float) -> bool:
        """Whether the refused call gets its own line."""
        admitted = self._calls.admit((caller, reason), now_s, wall_s, call_id)
        self.summed += not admitted
        return admitted

    def admit_handshake(
        self, source: str, rule: str, detail: str, claimed: str | None, now_s: float, wall_s: float
    ) -> Line | None:
        """The refused handshake's own line, if it gets one. What the peer claimed is marked as unproven."""
        if not self._handshakes.admit((source, rule), now_s, wall_s, ""):
            self.summed += 1
            return None
        claim = None if claimed is None else claimed[:LONGEST_CLAIM]
        body = {"source": source, "rule": rule, "detail": detail[:LONGEST_DETAIL], "claimed": claim}
        return "handshake", {**body, "unverified": True}

    def collect(self, now_s: float | None) -> list[Line]:
        """The lines of all seconds that are over, or of everything when ``now_s`` is None."""
        if now_s is None:
            calls, handshakes = self._calls.collect_all(), self._handshakes.collect_all()
        else:
            calls, handshakes = self._calls.collect(now_s), self._handshakes.collect(now_s)
        lines = [("denials", _describe_calls(each)) for each in calls]
        return lines + [("handshakes", _describe_handshakes(each)) for each in handshakes]


def _describe_calls(each: Sum) -> dict[str, Any]:
    caller, reason = each.kind
    return {
        "caller": {"id": caller or None},
        "decision": {"effect": "deny", "reason": reason},
        **_describe(each),
        "first": each.first,
        "last": each.last,
    }


def _describe_handshakes(each: Sum) -> dict[str, Any]:
    source, rule = each.kind
    return {"source": source or None, "rule": rule, **_describe(each)}


def _describe(each: Sum) -> dict[str, Any]:
    return {"count": each.count, "from": format_ts(each.from_s), "to": format_ts(each.to_s)}
