"""What is said about a call: the parts of its record, built once where they repeat, and its metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sidecar.audit.record import Caller, Decision
from sidecar.authz.call import Verdict
from sidecar.authz.reasons import Reason
from sidecar.clock import rfc3339_s
from sidecar.identity.peer import Peer
from sidecar.metrics import Counter, SidecarMetrics

DIRECTION: Final = "inbound"
METHODS: Final = frozenset(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
"""Methods with a label of their own; a stranger's invention is counted under ``other``."""
_MAX_STANDINGS: Final = 64
_MAX_REMEMBERED: Final = 1000
_LAST_SECOND: Final = 253_402_300_799  # of the year 9999, which certificates use for "never"


@dataclass(slots=True)
class Standing:
    """A verdict, what every record under it says of caller and decision, and the counter of such verdicts."""

    verdict: Verdict
    caller: Caller
    decision: Decision
    counter: Counter


class Standings:
    """The standings of one peer. A verdict that is remembered is one object, and so is its standing."""

    __slots__ = ("_accounts", "_caller", "_known", "_peer", "_until_s", "_until_text")

    def __init__(self, peer: Peer, accounts: Accounts) -> None:
        self._peer = peer
        self._accounts = accounts
        self._known: dict[int, Standing] = {}
        self._caller = build_caller(peer)
        self._until_s: float | None = None
        self._until_text: str | None = None

    def find(self, verdict: Verdict) -> Standing:
        """The standing under ``verdict``; 0.2 us where this very object has been seen before, else 1 us."""
        known = self._known.get(id(verdict))
        if known is not None and known.verdict is verdict:
            return known
        if len(self._known) >= _MAX_STANDINGS:
            self._known.clear()
        known = self._known[id(verdict)] = self._build(verdict)
        return known

    def _build(self, verdict: Verdict) -> Standing:
        caller = self._caller
        if (verdict.owner, verdict.kind, verdict.environment) != (caller.owner, caller.kind, caller.env):
            self._caller = caller = build_caller(self._peer, verdict)
        if verdict.until_s != self._until_s:
            self._until_s = verdict.until_s
            self._until_text = None if verdict.until_s is None else format_time(verdict.until_s)
        decision = Decision(
            verdict.effect,
            verdict.reason,
            verdict.rule,
            verdict.policy,
            verdict.grant,
            verdict.lifted,
            self._until_text,
        )
        counter = self._accounts.find_verdicts(verdict.effect, verdict.reason)
        return Standing(verdict, caller, decision, counter)


def build_caller(peer: Peer, verdict: Verdict | None = None) -> Caller:
    """Who calls; without a verdict nothing is known of its place in the policy."""
    owner, kind, environment = (
        (None, None, None) if verdict is None else (verdict.owner, verdict.kind, verdict.environment)
    )
    return Caller(peer.id_text, peer.serial, "mtls", owner, kind, peer.source, environment)


def build_denial(reason: Reason, decision: Decision | None = None) -> Decision:
    """A denial for ``reason``, by the same policy as ``decision`` if there was one."""
    return Decision("deny", reason.value, None, None if decision is None else decision.policy)


def format_time(wall_s: float) -> str:
    """RFC 3339 in whole seconds, rounded down: a window is never shown longer than it is."""
    return rfc3339_s(min(wall_s, _LAST_SECOND))


class Accounts:
    """The data plane's metrics, with their children at hand."""

    __slots__ = ("_duration", "_metrics", "_overhead", "_requests", "_verdicts")

    def __init__(self, metrics: SidecarMetrics) -> None:
        self._metrics = metrics
        self._duration = metrics.request_duration.labels(DIRECTION)
        self._overhead = metrics.request_overhead.labels(DIRECTION)
        self._requests: dict[tuple[str | None, int | None, str, str], Counter] = {}
        self._verdicts: dict[tuple[str, str], Counter] = {}

    def find_verdicts(self, effect: str, reason: str) -> Counter:
        """The counter of verdicts with this effect and reason."""
        counter = self._verdicts.get((effect, reason))
        if counter is None:
            counter = self._verdicts[effect, reason] = self._metrics.verdicts.labels(effect, reason)
        return counter

    def count_call(
        self,
        method: str | None,
        status: int | None,
        effect: str,
        reason: str,
        duration_s: float,
        overhead_s: float,
    ) -> None:
        """One call that has ended; ``status`` None when no answer was begun. 0.5 us."""
        counter = self._requests.get((method, status, effect, reason))
        if counter is None:
            counter = self._find_requests(method, status, effect, reason)
        counter.value += 1
        self._duration.observe(duration_s)
        self._overhead.observe(overhead_s)

    def count_limit(self, name: str) -> None:
        """The limit called ``name`` struck."""
        self._metrics.limits.labels(name).inc()

    def _find_requests(self, method: str | None, status: int | None, effect: str, reason: str) -> Counter:
        label = method if method in METHODS else "other"
        code = "none" if status is None else str(status)
        counter = self._metrics.requests.labels(DIRECTION, label, code, effect, reason)
        # The caller chooses the method and the upstream the status: both are remembered up to a bound.
        if label == method and len(self._requests) < _MAX_REMEMBERED:
            self._requests[method, status, effect, reason] = counter
        return counter
