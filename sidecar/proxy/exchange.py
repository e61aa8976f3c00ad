"""One permitted call: from the verdict to its record, between the caller's connection and one of the
upstream's.

The order of a call::

    start ──(a grant or strict scope: on disk first)──► pool ──► head, with the first of the body ──► body
                                                                                                       │
    record ◄── last byte ◄── answer, piece by piece ◄── interim answers, answer's head ◄───────────────┘

INVARIANT: a call ends exactly once, in :meth:`Exchange._end` or :meth:`Exchange._refuse`, and that writes its
record. While nothing has gone upstream it can still become a refusal; after that its failures are outcomes of
a permitted call.
"""

from __future__ import annotations

import logging
from typing import Final, Protocol

from sidecar.authz.call import Call
from sidecar.authz.reasons import Reason
from sidecar.proxy.answer import write_answer_head
from sidecar.proxy.answer_reader import AnswerReader
from sidecar.proxy.body import LAST_CHUNK, Decoder, encode_chunk
from sidecar.proxy.call_record import CallRecord
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.deadlines import Late, Progress, find_overdue
from sidecar.proxy.errors import MessageError, UpstreamError, too_large, upstream_invalid, upstream_timeout
from sidecar.proxy.forward import write_request_head
from sidecar.proxy.limits import BUFFER_HIGH_BYTES, OPEN_LINE_AFTER_S, SWEEP_S
from sidecar.proxy.opening import open_durably
from sidecar.proxy.problem import render_problem
from sidecar.proxy.refusal import Refusal, status_of
from sidecar.proxy.request import Request
from sidecar.proxy.upstream_connection import UpstreamConnection

log = logging.getLogger(__name__)

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_IDEMPOTENT: Final = frozenset(["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])


class CallerSide(Protocol):
    """The caller's connection, as its open call sees it."""

    xfcc: bytes
    is_blocked: bool
    """Whether the caller lets what is written pile up."""
    is_ending: bool
    """Whether answers announce that this connection ends."""

    def send(self, data: bytes) -> None: ...

    def hold_reading(self, hold: bool) -> None:
        """Whether the rest of the request's body has to wait."""
        ...

    def refuse(self, refusal: Refusal) -> None:
        """Instead of the call."""
        ...

    def exchange_done(self, *, close: bool) -> None:
        """The answer is complete."""
        ...

    def exchange_cut(self, *, abrupt: bool) -> None:
        """The answer will never be complete: what there is of it must not look so."""
        ...


class Exchange:
    """Made when the verdict is to allow; ``start`` is called once.

    ``decoder`` reads the request's body and is None as soon as the request is complete.
    """

    __slots__ = (
        *(
            "_active_s",
            "_caller",
            "_close",
            "_context",
            "_forwarded_s",
            "_generation",
            "_head_is_sent",
            "_held",
        ),
        *("_held_bytes", "_is_chunked", "_is_upstream_blocked", "_monotonic", "_retried", "_upstream"),
        *("call", "decoder", "is_ended", "record", "request"),
    )

    def __init__(
        self,
        context: ProxyContext,
        caller: CallerSide,
        request: Request,
        call: Call,
        record: CallRecord,
        decoder: Decoder | None,
    ) -> None:
        self._context = context
        self._caller = caller
        self._monotonic = context.clock.monotonic_s
        self._active_s = self._forwarded_s = record.started_s
        self._generation = context.judge.generation
        self._upstream: UpstreamConnection | None = None
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._head_is_sent = False
        self._is_upstream_blocked = False
        self._is_chunked = False
        self._retried = False
        self._close = False
        self.request = request
        self.call = call
        self.record = record
        self.decoder = decoder
        self.is_ended = False
        context.open_calls += 1

    def start(self) -> None:
        """Goes as far as it can at once. What the verdict rests on is made durable first."""
        verdict = self.record.standing.verdict
        if verdict.grant is None and not verdict.audit_strict:
            self._reach_upstream()
        elif self._context.pool.is_exhausted:
            self._refuse(503, Reason.OVERLOADED, "all connections to the service are busy")
        else:
            open_durably(self._context, self.record, self._on_opened)

    # The caller's side

    def take_body(self, body: bytes, *, is_last: bool) -> None:
        """The next decoded bytes of the request's body. Raises 413."""
        record = self.record
        record.received += len(body)
        limit = self._context.limits.max_body_bytes
        if limit is not None and record.received > limit:
            raise too_large(413, "the request body is too large", "body_bytes")
        self._active_s = self._monotonic()
        if self.request.framing.chunked:
            body = encode_chunk(body) if body else b""
            if is_last:
                body += LAST_CHUNK
        if is_last:
            self.decoder = None
            self._forwarded_s = self._active_s
        if not body:
            return
        if self._head_is_sent and self._upstream is not None:
            self._upstream.write(body)
            return
        self._held.append(body)
        self._held_bytes += len(body)
        if self._upstream is not None:
            self._send_head(self._upstream)
        elif self._held_bytes > BUFFER_HIGH_BYTES:
            self._caller.hold_reading(True)

    def break_off(self, error: MessageError) -> None:
        """The body turned out to be bad, or ended too early: the upstream's request ends without its end."""
        if error.limit is not None:
            self._context.accounts.count_limit(error.limit)
        if self._head_is_sent or self.record.is_open_written:
            self._fail(error.status, error.reason, error.detail, "incomplete", cut=error.reason)
        else:
            self._refuse(error.status, error.reason, error.detail, is_bad_message=True)

    def caller_gone(self) -> None:
        """The caller's connection is lost; the upstream's request is aborted."""
        self._end("incomplete")

    def caller_writable(self, writable: bool) -> None:
        """Whether the caller reads, or what is written piles up."""
        if self._upstream is not None:
            if writable:
                self._upstream.resume_reading()
            else:
                self._upstream.pause_reading()

    # The way to the upstream

    def _on_opened(self, reason: Reason | None) -> None:
        if self.is_ended:
            return
        try:
            if reason is None:
                self._reach_upstream()
            elif reason is Reason.AUDIT_UNAVAILABLE:
                self._refuse(503, reason, "the call cannot be recorded")
            else:
                self._refuse(status_of(reason), reason, "the grant for this call has no use left")
        except Exception:  # noqa: BLE001 (boundary: one call)
            self.fail_internally()

    def _reach_upstream(self, *, fresh: bool = False) -> None:
        try:
            connection = self._context.pool.acquire(self, fresh=fresh)
        except UpstreamError as error:
            self._on_upstream_error(error)
            return
        if connection is not None:
            self._take_upstream(connection)

    def upstream_ready(self, connection: UpstreamConnection) -> None:
        """From the pool, later."""
        try:
            self._take_upstream(connection)
        except Exception:  # noqa: BLE001 (boundary: one call)
            self.fail_internally()

    def upstream_refused(self, error: UpstreamError) -> None:
        """From the pool, later."""
        try:
            self._on_upstream_error(error)
        except Exception:  # noqa: BLE001 (boundary: one call)
            self.fail_internally()

    def _take_upstream(self, connection: UpstreamConnection) -> None:
        self._upstream = connection
        connection.reader.begin(self.request.method)
        if self._caller.is_blocked:
            connection.pause_reading()
        if self.decoder is None or self._held:
            self._send_head(connection)
            return
        # The head waits for the body's first bytes: one packet less, and a body that is broken from its beginning
        # has no head upstream. When they do not come, the sweep sends the head alone.
        self._forwarded_s = self._monotonic()
        if self.request.expects_continue:
            self._caller.send(CONTINUE)

    def _send_head(self, connection: UpstreamConnection) -> None:
        record = self.record
        head = write_request_head(self.request, self._caller.xfcc, record.call_id, record.trace)
        self._head_is_sent = True
        self._forwarded_s = self._active_s = self._monotonic()
        if self._held:
            head = b"".join([head, *self._held])
            self._held = []
            self._held_bytes = 0
            self._caller.hold_reading(False)
        connection.write(head)

    # The upstream's side

    def upstream_data(self, data: bytes) -> None:
        """Bytes of the answer, in any slicing."""
        try:
            self._relay(data)
        except UpstreamError as error:
            self._on_upstream_error(error)
        except Exception:  # noqa: BLE001 (boundary: one call)
            self.fail_internally()

    def upstream_lost(self, exc: Exception | None) -> None:
        """The end of the upstream's connection; None if in order."""
        try:
            self._on_upstream_lost(exc)
        except Exception:  # noqa: BLE001 (boundary: one call)
            self.fail_internally()

    def upstream_writable(self, writable: bool) -> None:
        """Whether the upstream reads the body."""
        self._is_upstream_blocked = not writable
        self._caller.hold_reading(not writable)

    def _relay(self, data: bytes) -> None:
        upstream = self._upstream
        assert upstream is not None
        if not self._head_is_sent:  # an idle connection's last words, such as 408; nothing was asked yet
            upstream.discard()
            self._on_upstream_lost(None)
            return
        self._active_s = self._monotonic()
        reader = upstream.reader
        body = reader.feed(data)
        if reader.interim:
            self._pass_interim(reader)
        if self.record.status is None:
            if reader.answer is None:
                return
            if reader.has_excess:
                raise upstream_invalid("the service sent more than its answer")
            self._caller.send(self._begin_answer(reader, body))
        elif body or reader.is_done:
            self._caller.send(self._frame(body, is_last=reader.is_done))
        if reader.is_done:
            self._finish(upstream)

    def _begin_answer(self, reader: AnswerReader, body: bytes) -> bytes:
        answer, record = reader.answer, self.record
        assert answer is not None
        self._close = close = self._is_last()
        record.status = answer.status
        is_http10 = self.request.is_http10
        head = write_answer_head(answer, record.call_id, close, is_http10=is_http10)
        if answer.framing.length is None:
            self._is_chunked = not is_http10
            return head + self._frame(body, is_last=reader.is_done)
        record.sent = len(body)
        return head + body

    def _frame(self, body: bytes, *, is_last: bool) -> bytes:
        self.record.sent += len(body)
        if not self._is_chunked:
            return body
        framed = encode_chunk(body) if body else b""
        return framed + LAST_CHUNK if is_last else framed

    def _pass_interim(self, reader: AnswerReader) -> None:
        interim, reader.interim = reader.interim, []
        if self.request.is_http10:
            return  # RFC 9110 15.2: it knows no interim answers
        for answer in interim:
            self._caller.send(write_answer_head(answer, self.record.call_id, False))

    def _finish(self, upstream: UpstreamConnection | None) -> None:
        is_reusable = upstream is not None and self.decoder is None and upstream.reader.may_be_reused
        self._upstream = None if is_reusable else upstream
        self._end("ok")
        if upstream is not None and is_reusable:
            upstream.release()
        self._caller.exchange_done(close=self._close)

    def _on_upstream_lost(self, exc: Exception | None) -> None:
        upstream, self._upstream = self._upstream, None
        assert upstream is not None
        if self.record.status is not None:
            if exc is None and upstream.reader.end():
                self._caller.send(self._frame(b"", is_last=True))
                self._finish(None)
            else:
                self._cut_answer("incomplete")
        elif self._may_retry(upstream):
            self._retried = True
            self._head_is_sent = False
            self._reach_upstream(fresh=True)
        else:
            detail = "the service closed the connection before it answered"
            self._fail(502, Reason.UPSTREAM_INVALID, detail, "incomplete")

    def _may_retry(self, upstream: UpstreamConnection) -> bool:
        """Once, on a new connection, if the upstream cannot have begun to work on the call, or may do so
        twice."""
        if self._retried or upstream.reader.has_read or self.record.standing.verdict.grant is not None:
            return False
        if self._head_is_sent and not (
            upstream.uses > 1 and self.request.framing.is_empty and self.request.method in _IDEMPOTENT
        ):
            return False
        return self._context.pool.may_retry()

    # The sweep

    def check(self, now_s: float, wall_s: float) -> None:
        """What is due: the `open` line, a new look at the verdict, a head that waited for its body,
        deadlines."""
        record = self.record
        if not record.is_open_written and now_s - record.started_s >= OPEN_LINE_AFTER_S:
            record.write_open()
        self._review(wall_s)
        upstream = self._upstream
        if self.is_ended:
            return
        if upstream is not None and not self._head_is_sent and now_s - self._forwarded_s >= SWEEP_S:
            self._send_head(upstream)
        waits_for_caller = self._caller.is_blocked or (
            self.decoder is not None and record.status is None and not self._is_upstream_blocked
        )
        progress = Progress(
            record.started_s,
            self._active_s,
            self._forwarded_s if self._head_is_sent and self.decoder is None else None,
            record.status is not None,
            record.standing.verdict.streaming,
            waits_for_caller,
        )
        overdue = find_overdue(progress, self._context.limits, now_s)
        if overdue is not None:
            self._time_out(*overdue)

    def _review(self, wall_s: float) -> None:
        judge, verdict = self._context.judge, self.record.standing.verdict
        generation = judge.generation
        if generation == self._generation and (verdict.until_s is None or wall_s < verdict.until_s):
            return
        reason = judge.review(self.call, verdict)
        if reason is None:
            self._generation = generation
        else:
            self.cut(reason)

    def _time_out(self, limit: str, late: Late) -> None:
        self._context.accounts.count_limit(limit)
        if late is Late.CALLER:
            detail = "the request was not complete in time"
            self._fail(408, Reason.TIMEOUT, detail, "incomplete", cut=Reason.TIMEOUT)
        else:
            error = upstream_timeout("the service did not answer in time")
            self._fail(error.status, error.reason, error.detail, error.outcome)

    # Endings

    def cut(self, reason: Reason, *, abrupt: bool = False) -> None:
        """Ends the call for ``reason``: with a problem answer if none has begun and not ``abrupt``, else in
        the middle."""
        outcome = "incomplete" if self._head_is_sent else "none"
        if abrupt:
            self._cut_answer(outcome, cut=reason, abrupt=True)
        else:
            detail = "the call may no longer go on"
            self._fail(status_of(reason), reason, detail, outcome, cut=reason, abrupt=True)

    def fail_internally(self) -> None:
        """Called while an unexpected exception is handled: ends this call and no other."""
        log.exception("call %s failed inside the sidecar", self.record.call_id)
        try:
            if not self.is_ended:
                self._fail(500, Reason.INTERNAL, "the sidecar failed", "incomplete", cut=Reason.INTERNAL)
        except Exception:
            log.exception("call %s could not be ended in order", self.record.call_id)
            self._caller.exchange_cut(abrupt=True)

    def _is_last(self) -> bool:
        return self.request.close or self._caller.is_ending or self._context.is_draining

    def _on_upstream_error(self, error: UpstreamError) -> None:
        if error.limit is not None:
            self._context.accounts.count_limit(error.limit)
        if error.reason is Reason.OVERLOADED and not self.record.is_open_written:
            self._refuse(error.status, error.reason, error.detail)
        else:
            self._fail(error.status, error.reason, error.detail, error.outcome)

    def _refuse(self, status: int, reason: Reason, detail: str, *, is_bad_message: bool = False) -> None:
        """Not permitted after all; nothing has gone upstream."""
        self._leave()
        close = is_bad_message or self._is_last() or self.decoder is not None
        self._caller.refuse(
            self.record.refuse(status, reason, detail, close=close, is_bad_message=is_bad_message)
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
        record = self.record
        if record.status is not None:
            self._cut_answer(outcome, cut=cut, abrupt=abrupt, reason=reason)
            return
        close = cut is not None or self.decoder is not None or self._is_last()
        head_only = self.request.method == "HEAD"
        data, length = render_problem(
            status, reason, detail, record.call_id, close=close, head_only=head_only
        )
        record.status = status
        record.sent = 0 if head_only else length
        self._end(outcome, cut=cut, reason=reason)
        self._caller.send(data)
        self._caller.exchange_done(close=close)

    def _cut_answer(
        self, outcome: str, *, cut: Reason | None = None, abrupt: bool = False, reason: Reason | None = None
    ) -> None:
        self._end(outcome, cut=cut, reason=reason or cut)
        self._caller.exchange_cut(abrupt=abrupt)

    def _end(self, outcome: str, *, cut: Reason | None = None, reason: Reason | None = None) -> None:
        self._leave()
        now_s = self._monotonic()
        upstream_s = self._active_s - self._forwarded_s if self._head_is_sent else 0.0
        self.record.write_end(outcome, max(upstream_s, 0.0), now_s, cut, reason)

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
