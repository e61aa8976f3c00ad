"""Carries one permitted call: its request to the upstream, the answer to the caller, both piece by piece.

::

    start ──(a grant or strict scope: on disk first)──► pool ──► head, with the first of the body ──► body
                                                                                                       │
    record ◄── last byte ◄── answer, piece by piece ◄── interim answers, answer's head ◄───────────────┘

A call without body whose verdict needs nothing on disk goes through :meth:`Exchange.start` and one
:meth:`Exchange.upstream_data` without waiting for anything else.
"""

from __future__ import annotations

from typing import Final

from sidecar.authz.reasons import Reason
from sidecar.proxy.answer import write_answer_head
from sidecar.proxy.answer_reader import AnswerReader
from sidecar.proxy.body import LAST_CHUNK, NO_BODY, encode_chunk
from sidecar.proxy.errors import MessageError, UpstreamError, too_large, upstream_invalid
from sidecar.proxy.forward import write_request_head
from sidecar.proxy.limits import BUFFER_HIGH_BYTES, SWEEP_S
from sidecar.proxy.open_call import OpenCall
from sidecar.proxy.opening import open_durably
from sidecar.proxy.refusal import status_of
from sidecar.proxy.upstream_connection import UpstreamConnection

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_IDEMPOTENT: Final = frozenset(["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])


class Exchange(OpenCall):
    """Made when the verdict is to allow; ``start`` is called once."""

    __slots__ = ("_close", "_held", "_held_bytes", "_is_chunked", "_retried")

    def start(self, body: bytes) -> None:
        """Goes as far as it can at once, with what came of the body together with the head.

        What the verdict rests on is made durable first.
        """
        self._close = self._is_chunked = self._retried = False
        self._held: list[bytes] = []
        self._held_bytes = 0
        if self.request.framing is not NO_BODY and (body or self.decoder is None):
            self.take_body(body, is_last=self.decoder is None)
        verdict = self.standing.verdict
        if verdict.grant is None and not verdict.audit_strict:
            self._reach_upstream()
        elif self._context.pool.is_exhausted:
            self._refuse(503, Reason.OVERLOADED, "all connections to the service are busy")
        else:
            open_durably(self._context, verdict, self.call_id, self.write_open, self._on_opened)

    # The caller's side

    def take_body(self, body: bytes, *, is_last: bool) -> None:
        """The next decoded bytes of the request's body. Raises 413."""
        self._received += len(body)
        limit = self._context.limits.max_body_bytes
        if limit is not None and self._received > limit:
            raise too_large(413, "the request body is too large", "body")
        self.active_s = self._monotonic()
        if self.request.framing.chunked:
            body = encode_chunk(body) if body else b""
            if is_last:
                body += LAST_CHUNK
        if is_last:
            self.decoder = None
            self._forwarded_s = self.active_s
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
        """The body is bad or ended too early: the upstream's request stays without its end."""
        if not self._has_gone_on and not self._is_open_written:
            self._refuse(error.status, error.reason, error.detail, close=True, limit=error.limit)
            return
        if error.limit is not None:
            self._context.accounts.count_limit(error.limit)
        self._fail(error.status, error.reason, error.detail, "incomplete", cut=error.reason)

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
            # The disk may have taken its time: a grant that was revoked meanwhile opens nothing.
            reason = reason or self._context.judge.review(self.call, self.standing.verdict)
            if reason is None:
                self._reach_upstream()
            else:
                self._refuse(status_of(reason), reason, "what this call rests on is not there any more")
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
        # The head waits for the body's first bytes: one packet less, and a body that is broken from its
        # beginning has no head upstream. When they do not come, the sweep sends the head alone.
        self._forwarded_s = self._monotonic()
        if self.request.expects_continue:
            self._caller.send(CONTINUE)

    def _send_head(self, connection: UpstreamConnection) -> None:
        head = write_request_head(self.request, self._caller.xfcc, self.call_id, self._trace)
        self._head_is_sent = self._has_gone_on = True
        self._forwarded_s = self.active_s = self._monotonic()
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
            upstream = self._upstream
            if upstream is not None and self._head_is_sent:
                self.active_s = self._monotonic()
                self._relay(upstream, data)
            elif upstream is not None:  # an idle connection's last words, such as 408; nothing was asked yet
                upstream.discard()
                self._on_upstream_lost(None)
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

    def _relay(self, upstream: UpstreamConnection, data: bytes) -> None:
        reader = upstream.reader
        body = reader.feed(data)
        if reader.interim:
            self._pass_interim(reader)
        if self._status is None:
            if reader.answer is None:
                return
            if reader.has_excess:
                raise upstream_invalid("the service sent more than its answer")
            self._caller.send(self._begin_answer(reader, body))
        elif body or reader.is_done:
            framed = self._frame(body, is_last=reader.is_done)
            if framed:
                self._caller.send(framed)
        if reader.is_done:
            self._finish(upstream)

    def _begin_answer(self, reader: AnswerReader, body: bytes) -> bytes:
        answer, request, context = reader.answer, self.request, self._context
        assert answer is not None
        self._close = close = request.close or self._caller.is_ending or context.is_draining
        self._status = answer.status
        is_http10 = request.is_http10
        head = write_answer_head(answer, self.call_id, close, is_http10=is_http10)
        if answer.framing.length is None:
            self._is_chunked = not is_http10
            return head + self._frame(body, is_last=reader.is_done)
        self.sent = len(body)
        return head + body

    def _frame(self, body: bytes, *, is_last: bool) -> bytes:
        self.sent += len(body)
        if not self._is_chunked:
            return body
        framed = encode_chunk(body) if body else b""
        return framed + LAST_CHUNK if is_last else framed

    def _pass_interim(self, reader: AnswerReader) -> None:
        interim, reader.interim = reader.interim, ()
        if self.request.is_http10:
            return  # RFC 9110 15.2: it knows no interim answers
        for answer in interim:
            self._caller.send(write_answer_head(answer, self.call_id, False))

    def _finish(self, upstream: UpstreamConnection) -> None:
        """The answer is complete: :meth:`_end`, but the connection is kept if it can be."""
        self.is_ended = True
        self._upstream = None
        self._context.open_calls -= 1
        self._write_end("ok")
        if self.decoder is None and upstream.reader.may_be_reused:
            upstream.release(self.active_s)
        else:
            upstream.discard()
        self._caller.call_done(close=self._close)

    def _on_upstream_lost(self, exc: Exception | None) -> None:
        upstream, self._upstream = self._upstream, None
        assert upstream is not None
        if self._status is not None:
            if exc is None and upstream.reader.end():
                last = self._frame(b"", is_last=True)
                if last:
                    self._caller.send(last)
                self._finish(upstream)
            else:
                self._cut_answer("incomplete", reason=Reason.UPSTREAM_INVALID)
        elif self._may_retry(upstream):
            self._retried = True
            self._head_is_sent = False
            self._reach_upstream(fresh=True)
        else:
            detail = "the service closed the connection before it answered"
            self._fail(502, Reason.UPSTREAM_INVALID, detail, "incomplete")

    def _may_retry(self, upstream: UpstreamConnection) -> bool:
        """Once, on a new connection, if the upstream cannot have begun with the call, or may do it twice."""
        if self._retried or upstream.reader.has_read or self.standing.verdict.grant is not None:
            return False
        if self._head_is_sent and not (
            upstream.uses > 1 and self.request.framing.is_empty and self.request.method in _IDEMPOTENT
        ):
            return False
        return self._context.pool.may_retry()

    def check(self, now_s: float, wall_s: float, *, review: bool) -> None:
        """Also sends a head that has waited for its body long enough."""
        super().check(now_s, wall_s, review=review)
        upstream = self._upstream
        if upstream is not None and not self._head_is_sent and now_s - self._forwarded_s >= SWEEP_S:
            self._send_head(upstream)
