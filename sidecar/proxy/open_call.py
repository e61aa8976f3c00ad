"""A permitted call while it is open: what it holds, what its record will say, and the ways in which it ends.

INVARIANT: a call ends exactly once, in :meth:`OpenCall._end` or :meth:`OpenCall._refuse`, and that writes its
line `call`. As long as nothing has gone upstream it can still become a refusal; after that its failures are
outcomes of a permitted call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from sidecar.audit.record import Intent, Outcome
from sidecar.authz.call import Call
from sidecar.authz.reasons import Reason
from sidecar.proxy.accounts import Standing, build_denial
from sidecar.proxy.body import Decoder
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.deadlines import Late, Progress, find_overdue
from sidecar.proxy.errors import UpstreamError
from sidecar.proxy.limits import OPEN_LINE_AFTER_S
from sidecar.proxy.problem import render_problem
from sidecar.proxy.refusal import Refusal, status_of
from sidecar.proxy.request import Request
from sidecar.proxy.upstream_connection import UpstreamConnection

log = logging.getLogger(__name__)


class CallerSide(Protocol):
    """The caller's connection, as its open call sees it.

    ``is_blocked``: the caller lets what is written pile up. ``is_ending``: answers announce the connection's
    end.
    """

    xfcc: bytes
    is_blocked: bool
    is_ending: bool
    send: Callable[[bytes], None]

    def hold_reading(self, hold: bool) -> None:
        """Whether the rest of the request's body has to wait."""
        ...

    def refuse(self, refusal: Refusal) -> None:
        """Instead of the call."""
        ...

    def call_done(self, *, close: bool) -> None:
        """The answer is complete."""
        ...

    def call_cut(self, *, abrupt: bool) -> None:
        """The answer will never be complete: what there is of it must not look so."""
        ...


class OpenCall:
    """Base of :class:`sidecar.proxy.exchange.Exchange`, which moves the bytes.

    ``decoder`` reads the request's body and is None as soon as the request is complete. ``_head_is_sent`` is about the
    connection that is held now, ``_has_gone_on`` about any. Times but ``wall_s`` are monotonic: when the call began,
    when a body byte last moved (``active_s``; in the end, the end), when the request was last written to.
    """

    __slots__ = (
        *(
            "_caller",
            "_context",
            "_forwarded_s",
            "_has_gone_on",
            "_head_is_sent",
            "_is_open_written",
        ),
        *("_is_upstream_blocked", "_monotonic", "_received", "_started_s", "_status", "_trace", "_upstream"),
        *(
            "_wall_s",
            "active_s",
            "call",
            "call_id",
            "decoder",
            "intent",
            "is_ended",
            "request",
            "sent",
            "standing",
        ),
    )

    def __init__(
        self,
        context: ProxyContext,
        caller: CallerSide,
        request: Request,
        call: Call,
        intent: Intent,
        standing: Standing,
        decoder: Decoder | None,
        call_id: str,
        trace: str,
        started_s: float,
        wall_s: float,
    ) -> None:
        self._context = context
        self._caller = caller
        self._monotonic = context.clock.monotonic_s
        self._started_s = self.active_s = self._forwarded_s = started_s
        self._wall_s = wall_s
        self._trace = trace
        self._upstream: UpstreamConnection | None = None
        self._status: int | None = None
        self._received = self.sent = 0
        self._has_gone_on = self._head_is_sent = self._is_open_written = False
        self._is_upstream_blocked = self.is_ended = False
        self.request = request
        self.call = call
        self.intent = intent
        self.standing = standing
        self.decoder = decoder
        self.call_id = call_id
        context.open_calls += 1

    # The record

    def write_open(self) -> None:
        """The line `open`, which says that the call has been permitted and goes on."""
        self._is_open_written = True
        standing = self.standing
        self._context.audit.record_call(
            self.call_id,
            self._wall_s,
            standing.caller,
            self.intent,
            standing.decision,
            None,
            self._trace,
            is_open=True,
        )

    def _write_end(self, outcome: str, cut: Reason | None = None, reason: Reason | None = None) -> None:
        """The line `call`, and the metrics; there ``reason`` stands for the verdict's if the call has failed."""
        standing, intent, status, context = self.standing, self.intent, self._status, self._context
        now_s = self._monotonic()
        duration_s = now_s - self._started_s
        context.audit.record_call(
            self.call_id,
            self._wall_s,
            standing.caller,
            intent,
            standing.decision,
            Outcome(
                status,
                self._received,
                self.sent,
                int(duration_s * 1e6),
                outcome,
                None if cut is None else cut.value,
            ),
            self._trace,
        )
        waited_s = self.active_s - self._forwarded_s if self._head_is_sent else 0.0
        self.active_s = now_s
        context.accounts.count_call(
            intent.method,
            status,
            "allow",
            standing.verdict.reason if reason is None else reason.value,
            duration_s,
            duration_s - waited_s if waited_s > 0.0 else duration_s,
        )

    # The sweep

    def check(self, now_s: float, wall_s: float, *, review: bool) -> None:
        """What is due by now: a new look at the verdict, the `open` line, deadlines.

        ``review`` says that policy or grants have changed since the last sweep.
        """
        verdict = self.standing.verdict
        if review or (verdict.until_s is not None and wall_s >= verdict.until_s):
            reason = self._context.judge.review(self.call, verdict)
            if reason is not None:
                self.cut(reason)
                return
        if not self._is_open_written and now_s - self._started_s >= OPEN_LINE_AFTER_S:
            self.write_open()
        overdue = find_overdue(self._measure(), self._context.limits, now_s)
        if overdue is not None:
            self._time_out(*overdue)

    def _measure(self) -> Progress:
        is_request_open = self.decoder is not None
        waits_for_caller = self._caller.is_blocked or (
            is_request_open and self._status is None and not self._is_upstream_blocked
        )
        return Progress(
            self._started_s,
            self.active_s,
            self._forwarded_s if self._head_is_sent and not is_request_open else None,
            has_answer=self._status is not None,
            is_streaming=self.standing.verdict.streaming,
            waits_for_caller=waits_for_caller,
        )

    def _time_out(self, limit: str, late: Late) -> None:
        self._context.accounts.count_limit(limit)
        if late is Late.CALLER:
            detail = "the request was not complete in time"
            self._fail(408, Reason.TIMEOUT, detail, "incomplete", cut=Reason.TIMEOUT)
        else:
            detail = "the service did not answer in time"
            self._fail(504, Reason.UPSTREAM_TIMEOUT, detail, "timeout")

    # Endings

    def cut(self, reason: Reason, *, abrupt: bool = False) -> None:
        """Ends the call: with a problem answer if none has begun and not ``abrupt``, else in the middle."""
        outcome = "incomplete" if self._has_gone_on else "none"
        if abrupt:
            self._cut_answer(outcome, cut=reason, reason=reason, abrupt=True)
        else:
            detail = "the call may not go on"
            self._fail(status_of(reason), reason, detail, outcome, cut=reason, abrupt=True)

    def caller_gone(self) -> None:
        """The caller's connection is lost; the upstream's request is aborted."""
        self._end("incomplete" if self._has_gone_on else "none")

    def fail_internally(self) -> None:
        """Called while an unexpected exception is handled: ends this call and no other."""
        log.exception("call %s failed inside the sidecar", self.call_id)
        try:
            if not self.is_ended:
                self._fail(500, Reason.INTERNAL, "the sidecar failed", "incomplete", cut=Reason.INTERNAL)
        except Exception:
            log.exception("call %s could not be ended in order", self.call_id)
            self._caller.call_cut(abrupt=True)

    def _is_last(self) -> bool:
        return self.request.close or self._caller.is_ending or self._context.is_draining

    def _on_upstream_error(self, error: UpstreamError) -> None:
        if error.limit is not None:
            self._context.accounts.count_limit(error.limit)
        if error.reason is Reason.OVERLOADED and not self._has_gone_on and not self._is_open_written:
            self._refuse(error.status, error.reason, error.detail)
        else:
            self._fail(error.status, error.reason, error.detail, error.outcome)

    def _refuse(
        self,
        status: int,
        reason: Reason,
        detail: str,
        *,
        close: bool = False,
        limit: str | None = None,
    ) -> None:
        """Not permitted after all; nothing has gone upstream."""
        self._leave()
        self._caller.refuse(
            Refusal(
                self.call_id,
                self._wall_s,
                self._started_s,
                status,
                reason,
                detail,
                self.standing.caller,
                self.intent,
                build_denial(reason, self.standing.decision),
                self._trace,
                close=close or self.decoder is not None or self._is_last(),
                received=self._received,
                limit=limit,
            )
        )

    def _fail(
        self,
        status: int,
        reason: Reason,
        detail: str,
        outcome: str,
        *,
        cut: Reason | None = None,
        abrupt: bool = False,
    ) -> None:
        """A permitted call fails: with a problem answer if none has begun, else by a cut that can be seen."""
        if self._status is not None:
            self._cut_answer(outcome, cut=cut, reason=reason, abrupt=abrupt)
            return
        close = cut is not None or self.decoder is not None or self._is_last()
        data, self.sent = render_problem(
            status, reason, detail, self.call_id, close=close, head_only=self.request.method == "HEAD"
        )
        self._status = status
        self._end(outcome, cut=cut, reason=reason)
        self._caller.send(data)
        self._caller.call_done(close=close)

    def _cut_answer(
        self, outcome: str, *, cut: Reason | None = None, reason: Reason | None = None, abrupt: bool = False
    ) -> None:
        self._end(outcome, cut=cut, reason=reason)
        self._caller.call_cut(abrupt=abrupt)

    def _end(self, outcome: str, *, cut: Reason | None = None, reason: Reason | None = None) -> None:
        self._leave()
        self._write_end(outcome, cut, reason)

    def _leave(self) -> None:
        """Gives up everything that is held elsewhere."""
        self.is_ended = True
        context, upstream = self._context, self._upstream
        context.open_calls -= 1
        if upstream is not None:
            self._upstream = None
            upstream.discard()
        elif not self._head_is_sent:
            context.pool.cancel(self)
