"""The caller's side of one connection: which bytes belong to which call, one call after the other.

States, and what received bytes are in each::

    HEAD      a request head, perhaps not complete; idle when there are none
    CALL      the rest of the open call's body, then the beginning of later requests, kept for their turn
    REFUSING  the same, while a refusal waits to be on disk
    REST      the rest of a body that nobody wants any more; small, or the connection ends
    LINGER    anything; dropped, so that closing does not reset the connection before the answer is read
    CLOSING   nothing any more
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Final, Protocol

from sidecar.audit.record import Outcome
from sidecar.authz.reasons import Reason
from sidecar.identity.peer import Peer
from sidecar.proxy.body import NO_BODY, Decoder
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.errors import MessageError, malformed
from sidecar.proxy.exchange import Exchange
from sidecar.proxy.forward import build_xfcc
from sidecar.proxy.head import HeadBuffer
from sidecar.proxy.lifetime import plan_lifetime
from sidecar.proxy.limits import BUFFER_HIGH_BYTES, IDLE_CHECK_S, LINGER_S, REST_BYTES, WRITE_PROGRESS_BYTES
from sidecar.proxy.problem import render_problem
from sidecar.proxy.reception import Reception
from sidecar.proxy.refusal import Refusal

log = logging.getLogger(__name__)

_HEAD: Final = 0
_CALL: Final = 1
_REFUSING: Final = 2
_REST: Final = 3
_LINGER: Final = 4
_CLOSING: Final = 5


class SecureTransport(Protocol):
    """The transport of a finished handshake; :class:`sidecar.tls.transport.TlsTransport`."""

    peer_chain: tuple[bytes, ...]
    own_not_after_s: float

    def write(self, data: bytes) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def get_write_buffer_size(self) -> int: ...


class Registry(Protocol):
    """Who keeps count of the connections."""

    def connection_opened(self, connection: Connection) -> None: ...

    def connection_closed(self, connection: Connection) -> None: ...


class Connection:
    """Implements :class:`sidecar.tls.transport.SecureProtocol`, and the caller's side of its open call.

    ``next_check_s`` is when the sweep has to look at it again; 0.0 at once.
    """

    __slots__ = (
        *(
            "_blocked_bytes",
            "_blocked_since_s",
            "_context",
            "_decoder",
            "_exchange",
            "_head_since_s",
            "_heads",
        ),
        *("_is_advancing", "_is_body_held", "_is_eof", "_is_reading_paused", "_left_bytes", "_lifetime"),
        *("_pending", "_reception", "_refusal", "_registry", "_since_s", "_state", "_transport"),
        *("is_blocked", "is_ending", "next_check_s", "peer", "xfcc"),
    )

    def __init__(self, context: ProxyContext, registry: Registry) -> None:
        self._context = context
        self._registry = registry
        self._heads = HeadBuffer(context.head_limits)
        self._exchange: Exchange | None = None
        self._refusal: Refusal | None = None
        self._decoder: Decoder | None = None
        self._pending = bytearray()
        self._state = _HEAD
        self._head_since_s: float | None = None
        self._since_s = 0.0  # when this state began
        self._left_bytes = 0
        self._is_advancing = self._is_body_held = self._is_eof = self._is_reading_paused = False
        self._blocked_since_s = 0.0
        self._blocked_bytes = 0
        self.is_blocked = False
        self.is_ending = False
        self.next_check_s = 0.0
        self.xfcc = b""

    # What the transport calls

    def connection_secured(self, transport: SecureTransport, peer: Peer) -> None:
        """The handshake has proved ``peer``; the first call may come."""
        clock, wall_s = self._context.clock, self._context.clock.wall_s()
        certificates_end_s = min(peer.not_after_s, transport.own_not_after_s)
        self._transport = transport
        self._since_s = clock.monotonic_s()
        self._lifetime = plan_lifetime(
            self._context.limits.max_connection_age_s,
            certificates_end_s,
            now_s=self._since_s,
            wall_s=wall_s,
            boot_s=clock.boottime_s(),
        )
        self._reception = Reception(self._context, peer, certificates_end_s)
        self.peer = peer
        self.xfcc = build_xfcc(self._context.own_id, peer)
        self._registry.connection_opened(self)

    def data_received(self, data: bytes) -> None:
        try:
            if self._state == _HEAD:
                self._advance(data)
            else:
                self._on_later_data(data)
        except Exception:  # noqa: BLE001 (boundary: one connection)
            self._fail()

    def eof_received(self) -> None:
        """The caller sends no more; it may still read."""
        self._is_eof = True
        try:
            if self._state == _HEAD:
                if not self._pending:
                    self._end_of_requests()
            elif self._state == _CALL and self._exchange is not None and self._exchange.decoder is not None:
                self._exchange.break_off(malformed("the request body is incomplete"))
            elif self._state in (_REST, _LINGER):
                self._close()
        except Exception:  # noqa: BLE001 (boundary: one connection)
            self._fail()

    def pause_writing(self) -> None:
        self.is_blocked = True
        if self._exchange is not None:
            self._exchange.caller_writable(False)

    def resume_writing(self) -> None:
        self.is_blocked = False
        try:
            if self._exchange is not None:
                self._exchange.caller_writable(True)
            elif self._state == _HEAD:
                self._continue()
        except Exception:  # noqa: BLE001 (boundary: one connection)
            self._fail()

    def connection_lost(self, exc: Exception | None) -> None:
        self._state = _CLOSING
        self._registry.connection_closed(self)
        exchange, self._exchange = self._exchange, None
        self._refusal = None
        self._pending.clear()
        if exchange is not None:
            exchange.caller_gone()

    # What the open call calls

    def send(self, data: bytes) -> None:
        self._transport.write(data)

    def hold_reading(self, hold: bool) -> None:
        self._is_body_held = hold
        self._update_reading()

    def refuse(self, refusal: Refusal) -> None:
        """Answers with ``refusal``, once its record is on disk where it has to be."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            self._decoder = exchange.decoder
        context, audit = self._context, self._context.audit
        self._refusal = refusal
        self._state = _REFUSING
        if not audit.available:
            self._answer_unrecorded(refusal)
            return
        data, sent = self._render(refusal)
        duration_s = context.clock.monotonic_s() - refusal.started_s
        outcome = Outcome(refusal.status, refusal.received, sent, int(duration_s * 1e6), "none")
        must_wait = audit.record_denial(
            refusal.call_id,
            refusal.wall_s,
            refusal.caller,
            refusal.intent,
            refusal.decision,
            outcome,
            refusal.trace,
        )
        self._count(refusal)
        if must_wait:
            self.next_check_s = 0.0
            audit.when_durable(lambda is_durable: self._on_durable(refusal, data, is_durable))
        else:
            self._answer(refusal, data)

    def exchange_done(self, *, close: bool) -> None:
        """The open call's answer is complete."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        try:
            self._after_answer(exchange.decoder, close=close, linger=False)
        except Exception:  # noqa: BLE001 (boundary: what comes next is another call)
            self._fail()

    def exchange_cut(self, *, abrupt: bool) -> None:
        """The open call's answer stays incomplete."""
        self._exchange = None
        if abrupt:
            self._abort()
        else:
            self._close()

    # One call after the other

    def _advance(self, data: bytes) -> None:
        """Reads heads and begins calls as long as one is done at once."""
        self._is_advancing = True
        try:
            while self._state == _HEAD and data:
                head = self._heads.feed(data)
                if head is None:
                    break
                self._begin_call(head)
                if self.is_blocked:
                    break
                data = self._take_pending() if self._state == _HEAD else b""
        except MessageError as error:
            self._refuse_head(error)
        finally:
            self._is_advancing = False
        if self._state == _HEAD and not self.is_blocked:
            self._wait_for_head()

    def _begin_call(self, head: bytes) -> None:
        started_s = self._head_since_s
        if started_s is None:
            started_s = self._context.clock.monotonic_s()
        else:
            self._head_since_s = None
        reception = self._reception
        received = reception.receive(head, self._heads.take_rest(), started_s, self)
        self._since_s = started_s
        self.next_check_s = 0.0
        if reception.rest:
            self._keep(reception.rest)
        if isinstance(received, Exchange):
            self._exchange = received
            self._state = _CALL
            if received.request.framing is not NO_BODY and (reception.body or reception.decoder is None):
                received.take_body(reception.body, is_last=reception.decoder is None)
            received.start()
        else:
            self._decoder = reception.decoder
            self.refuse(received)

    def _on_later_data(self, data: bytes) -> None:
        state = self._state
        if state == _CALL:
            exchange = self._exchange
            if exchange is not None and exchange.decoder is not None:
                self._feed_body(exchange, exchange.decoder, data)
            else:
                self._keep(data)
        elif state == _REFUSING:
            self._keep(data)
        elif state == _REST:
            self._drop_rest(data)
        elif state == _LINGER:
            self._left_bytes -= len(data)
            if self._left_bytes < 0:
                self._close()

    def _feed_body(self, exchange: Exchange, decoder: Decoder, data: bytes) -> None:
        try:
            body, rest = decoder.feed(data)
            exchange.take_body(body, is_last=decoder.done)
        except MessageError as error:
            exchange.break_off(error)
            return
        if rest:
            self._keep(rest)

    def _drop_rest(self, data: bytes) -> None:
        """The rest of a body whose call has been answered; what cannot be read to its end soon ends the
        connection."""
        decoder = self._decoder
        assert decoder is not None
        self._left_bytes -= len(data)
        try:
            _, rest = decoder.feed(data)
        except MessageError:
            self._linger()
            return
        if rest:
            self._keep(rest)
        if decoder.done:
            self._next_call()
        elif self._left_bytes < 0:
            self._linger()

    def _next_call(self) -> None:
        self._state = _HEAD
        self._decoder = None
        self._since_s = self._context.clock.monotonic_s()
        if not self._is_advancing:
            self._continue()

    def _continue(self) -> None:
        if self.is_blocked:
            return  # answers of later calls would pile up; resume_writing goes on
        if self._pending:
            self._advance(self._take_pending())
        else:
            self._wait_for_head()

    def _wait_for_head(self) -> None:
        if self._is_reading_paused:
            self._update_reading()
        if not self._heads.is_empty:
            if self._head_since_s is None:
                self._head_since_s = self._context.clock.monotonic_s()
                self.next_check_s = 0.0
        elif self._context.is_draining or self.is_ending:
            self._close()
            return
        if self._is_eof:
            self._end_of_requests()

    def _end_of_requests(self) -> None:
        if self._heads.is_empty:
            self._close()
        else:
            self._refuse_head(malformed("the connection ended inside a request head"))

    def _refuse_head(self, error: MessageError) -> None:
        started_s = self._head_since_s
        if started_s is None:
            started_s = self._context.clock.monotonic_s()
        self._head_since_s = None
        self._decoder = None
        self.refuse(self._reception.refuse_message(error, started_s))

    # Answers of our own

    def _on_durable(self, refusal: Refusal, data: bytes, is_durable: bool) -> None:
        if self._refusal is not refusal:
            return  # the caller has gone
        try:
            if is_durable:
                self._answer(refusal, data)
            else:
                self._answer_unrecorded(refusal)
        except Exception:  # noqa: BLE001 (boundary: one connection)
            self._fail()

    def _answer(self, refusal: Refusal, data: bytes) -> None:
        self._refusal = None
        self._transport.write(data)
        self._after_answer(self._decoder, close=refusal.close, linger=refusal.is_bad_message)

    def _answer_unrecorded(self, refusal: Refusal) -> None:
        """Without a record nothing is answered but this, and only the metric knows of it."""
        reason = Reason.AUDIT_UNAVAILABLE
        refusal = replace(
            refusal, status=503, reason=reason, detail="the call cannot be recorded", close=True
        )
        data, _ = self._render(refusal)
        self._count(refusal)
        self._answer(refusal, data)

    def _render(self, refusal: Refusal) -> tuple[bytes, int]:
        return render_problem(
            refusal.status,
            refusal.reason,
            refusal.detail,
            refusal.call_id,
            close=refusal.close,
            head_only=refusal.intent.method == "HEAD",
            retry_after_s=refusal.retry_after_s,
        )

    def _count(self, refusal: Refusal) -> None:
        accounts = self._context.accounts
        duration_s = self._context.clock.monotonic_s() - refusal.started_s
        accounts.count_call(
            refusal.intent.method, refusal.status, "deny", refusal.reason.value, duration_s, duration_s
        )
        if refusal.limit is not None:
            accounts.count_limit(refusal.limit)

    def _after_answer(self, decoder: Decoder | None, *, close: bool, linger: bool) -> None:
        self._is_body_held = False
        if close:
            if linger or decoder is not None or self._pending:
                self._linger()
            else:
                self._close()
        elif decoder is None:
            self._next_call()
        elif self._is_eof:
            self._close()
        else:
            self._state = _REST
            self._decoder = decoder
            self._left_bytes = REST_BYTES
            self._since_s = self._context.clock.monotonic_s()
            self.next_check_s = 0.0
            pending = self._take_pending()
            self._update_reading()
            if pending:
                self._drop_rest(pending)

    def _linger(self) -> None:
        self._left_bytes = REST_BYTES - len(self._pending)
        self._pending.clear()
        self._decoder = None
        if self._is_eof or self._left_bytes < 0:
            self._close()
            return
        self._state = _LINGER
        self._since_s = self._context.clock.monotonic_s()
        self.next_check_s = 0.0
        self._update_reading()

    def _close(self) -> None:
        if self._state != _CLOSING:
            self._state = _CLOSING
            self._since_s = self._context.clock.monotonic_s()
            self.next_check_s = 0.0
            self._transport.close()

    def _abort(self) -> None:
        self._state = _CLOSING
        self._transport.abort()

    def _fail(self) -> None:
        """Called while an unexpected exception is handled: ends what this connection does and nothing
        else."""
        log.exception("a connection of %s failed inside the sidecar", self.peer.id_text)
        try:
            if self._exchange is not None and not self._exchange.is_ended:
                self._exchange.fail_internally()
            elif self._state == _HEAD:
                self._refuse_head(MessageError(500, Reason.INTERNAL, "the sidecar failed"))
            else:
                self._abort()
        except Exception:
            log.exception("the connection could not be ended in order")
            self._abort()

    # Buffers

    def _keep(self, data: bytes) -> None:
        self._pending += data
        if len(self._pending) > BUFFER_HIGH_BYTES:
            self._update_reading()

    def _take_pending(self) -> bytes:
        if not self._pending:
            return b""
        data = bytes(self._pending)
        self._pending.clear()
        return data

    def _update_reading(self) -> None:
        pause = self._is_body_held or len(self._pending) > BUFFER_HIGH_BYTES
        if pause == self._is_reading_paused or self._state == _CLOSING:
            return
        self._is_reading_paused = pause
        if pause:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    # The sweep

    @property
    def peer_chain(self) -> tuple[bytes, ...]:
        """The chain that the peer presented, DER, leaf first."""
        return self._transport.peer_chain

    @property
    def has_call(self) -> bool:
        return self._exchange is not None

    def check(self, now_s: float, wall_s: float, boot_s: float) -> None:
        """What is due by now; the sweep calls it when ``next_check_s`` has come."""
        if self._lifetime.has_ended(wall_s, boot_s):
            self.cut(Reason.SVID_EXPIRED)
            return
        if self._is_stuck(now_s):
            self._context.accounts.count_limit("write_timeout")
            self.cut(Reason.TIMEOUT)
            return
        if now_s >= self._lifetime.announce_s:
            self.is_ending = True
        state, limits = self._state, self._context.limits
        if state == _CALL and self._exchange is not None:
            self._exchange.check(now_s, wall_s)
        elif state == _HEAD:
            self._check_head(now_s)
        elif state in (_REST, _LINGER) and now_s - self._since_s >= LINGER_S:
            self._close()
        elif (state == _CLOSING and now_s - self._since_s >= limits.write_timeout_s) or (
            state == _REFUSING and now_s - self._since_s >= limits.request_timeout_s
        ):
            self._abort()
        is_idle = self._state == _HEAD and self._head_since_s is None and not self._blocked_bytes
        self.next_check_s = now_s + IDLE_CHECK_S if is_idle else 0.0

    def drain(self) -> None:
        """Closes the connection if it is idle; else its next answer announces the end."""
        if self._state == _HEAD and self._heads.is_empty and not self._pending:
            self._close()

    def end(self, reason: Reason) -> None:
        """Ends what is open, with an answer where none has begun."""
        if self._exchange is not None:
            self._exchange.cut(reason)
        elif self._state not in (_LINGER, _CLOSING):
            self._close()

    def cut(self, reason: Reason) -> None:
        """Ends the connection at once, and an open call with it."""
        if self._exchange is not None:
            self._exchange.cut(reason, abrupt=True)
        else:
            self._abort()

    def _check_head(self, now_s: float) -> None:
        limits = self._context.limits
        if self._head_since_s is not None:
            if now_s - self._head_since_s >= limits.head_timeout_s:
                detail = "the request head was not complete in time"
                self._refuse_head(MessageError(408, Reason.TIMEOUT, detail, limit="head_timeout"))
        elif self.is_ending or self._context.is_draining:
            self._close()
        elif now_s - self._since_s >= limits.idle_timeout_s:
            self._context.accounts.count_limit("idle_timeout")
            self._close()

    def _is_stuck(self, now_s: float) -> bool:
        """Whether bytes wait for the caller and it has taken nearly none for too long."""
        size = self._transport.get_write_buffer_size()
        if not size or not self._blocked_bytes or size <= self._blocked_bytes - WRITE_PROGRESS_BYTES:
            self._blocked_bytes = size
            self._blocked_since_s = now_s
            return False
        return now_s - self._blocked_since_s >= self._context.limits.write_timeout_s
