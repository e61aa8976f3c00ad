"""A call that the sidecar answers itself, before anything of it has gone on: recorded, then answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from sidecar.audit.record import Caller, Decision, Intent, Outcome
from sidecar.authz.reasons import Reason
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.problem import render_problem

_STATUSES: Final = {
    Reason.RATE: 429,
    Reason.AUDIT_UNAVAILABLE: 503,
    Reason.POLICY_UNAVAILABLE: 503,
    Reason.OVERLOADED: 503,
    Reason.DRAINING: 503,
    Reason.INTERNAL: 503,
}


def status_of(reason: Reason) -> int:
    """The status of a denial: 403 but for those that the caller may try again."""
    return _STATUSES.get(reason, 403)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is answered and what is recorded.

    ``close`` ends the connection after the answer. ``started_s`` is monotonic, ``wall_s`` the record's time;
    ``received`` counts body bytes; ``limit`` is the one that struck.
    """

    call_id: str
    wall_s: float
    started_s: float
    status: int
    reason: Reason
    detail: str
    caller: Caller
    intent: Intent
    decision: Decision
    trace: str
    close: bool
    received: int = 0
    retry_after_s: int | None = None
    limit: str | None = None


Answer = Callable[[Refusal, bytes], None]
"""Takes what the caller is told at last, with its bytes."""


def answer_recorded(context: ProxyContext, refusal: Refusal, answer: Answer) -> None:
    """Records ``refusal``, and calls ``answer`` once its line is on disk; at once where it is only summed.

    If the log cannot take it, the answer is another one: 503, ``audit-unavailable``. Then the metric knows, and
    the log's line `gap` will say how many there were.
    """
    if not context.audit.available:
        context.audit.count_unrecorded()
        _answer_unrecorded(context, refusal, answer)
        return
    data, sent = _render(refusal)
    duration_s = _count(context, refusal)
    outcome = Outcome(refusal.status, refusal.received, sent, int(duration_s * 1e6), "none")
    must_wait = context.audit.record_denial(
        refusal.call_id,
        refusal.wall_s,
        refusal.caller,
        refusal.intent,
        refusal.decision,
        outcome,
        refusal.trace,
    )
    if not must_wait:
        answer(refusal, data)
        return

    def on_durable(is_durable: bool) -> None:
        if is_durable:
            answer(refusal, data)
        else:
            _answer_unrecorded(context, refusal, answer)

    context.audit.when_durable(on_durable)


def _answer_unrecorded(context: ProxyContext, refusal: Refusal, answer: Answer) -> None:
    told = replace(
        refusal,
        status=503,
        reason=Reason.AUDIT_UNAVAILABLE,
        detail="the call cannot be recorded",
        close=True,
        limit=None,
    )
    _count(context, told)
    answer(told, _render(told)[0])


def _render(refusal: Refusal) -> tuple[bytes, int]:
    return render_problem(
        refusal.status,
        refusal.reason,
        refusal.detail,
        refusal.call_id,
        close=refusal.close,
        head_only=refusal.intent.method == "HEAD",
        retry_after_s=refusal.retry_after_s,
    )


def _count(context: ProxyContext, refusal: Refusal) -> float:
    """Adds to the metrics; the call's duration so far."""
    duration_s = context.clock.monotonic_s() - refusal.started_s
    context.accounts.count_call(
        refusal.intent.method, refusal.status, "deny", refusal.reason.value, duration_s, duration_s
    )
    if refusal.limit is not None:
        context.accounts.count_limit(refusal.limit)
    return duration_s
