"""The record of one call while the call is open: written as `open` if it must be, as `call` exactly once."""

from __future__ import annotations

from sidecar.audit.record import Intent, Outcome
from sidecar.authz.reasons import Reason
from sidecar.proxy.accounts import Standing, build_denial
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.refusal import Refusal


class CallRecord:
    """What is known of the call so far. ``status`` is None until the answer is begun; sizes are body bytes.

    ``started_s`` is monotonic, ``wall_s`` the time that the record shows.
    """

    __slots__ = (
        *("_context", "call_id", "intent", "is_open_written", "received", "sent", "standing", "started_s"),
        *("status", "trace", "wall_s"),
    )

    def __init__(
        self,
        context: ProxyContext,
        call_id: str,
        intent: Intent,
        standing: Standing,
        trace: str,
        started_s: float,
        wall_s: float,
    ) -> None:
        self._context = context
        self.call_id = call_id
        self.intent = intent
        self.standing = standing
        self.trace = trace
        self.started_s = started_s
        self.wall_s = wall_s
        self.status: int | None = None
        self.received = 0
        self.sent = 0
        self.is_open_written = False

    def write_open(self) -> None:
        """The line `open`, before the call ends."""
        self.is_open_written = True
        standing = self.standing
        self._context.audit.record_call(
            self.call_id,
            self.wall_s,
            standing.caller,
            self.intent,
            standing.decision,
            None,
            self.trace,
            is_open=True,
        )

    def write_end(
        self,
        upstream: str,
        upstream_s: float,
        now_s: float,
        cut: str | None = None,
        reason: str | None = None,
    ) -> None:
        """The line `call`, and the metrics. ``upstream_s`` is how long the upstream was waited for.

        ``reason`` stands in the metrics instead of the verdict's when the call was permitted and failed.
        """
        standing, intent = self.standing, self.intent
        duration_s = now_s - self.started_s
        outcome = Outcome(self.status, self.received, self.sent, int(duration_s * 1e6), upstream, cut)
        self._context.audit.record_call(
            self.call_id, self.wall_s, standing.caller, intent, standing.decision, outcome, self.trace
        )
        self._context.accounts.count_call(
            intent.method,
            self.status,
            "allow",
            reason or standing.verdict.reason,
            duration_s,
            duration_s - upstream_s,
        )

    def refuse(
        self, status: int, reason: Reason, detail: str, *, close: bool, is_bad_message: bool = False
    ) -> Refusal:
        """The call as one that is refused after all; the line `call` is the refusal's then."""
        return Refusal(
            self.call_id,
            self.wall_s,
            self.started_s,
            status,
            reason,
            detail,
            self.standing.caller,
            self.intent,
            build_denial(reason, self.standing.decision),
            self.trace,
            close,
            is_bad_message,
            self.received,
        )
