"""The caller's side of one connection: which bytes belong to which call, one call after the other.

States, and what received bytes are in each::

    HEAD      a request head, perhaps not complete; idle when there are none
    CALL      the rest of the open call's body, then the beginning of later requests, kept for their turn
    REFUSING  the same, while a refusal waits to be on disk
    REST      the rest of a body that nobody wants any more; small, or the connection ends

Once it is closing, bytes are nothing any more; the transport reads and drops some, so that closing does not
reset the connection before the last answer has been read.
"""

from __future__ import annotations

import logging
from typing import Final, Protocol

from sidecar.authz.reasons import Reason
from sidecar.identity.peer import Peer
from sidecar.proxy.body import Decoder
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.errors import MessageError, malformed
from sidecar.proxy.exchange import Exchange
from sidecar.proxy.forward import build_xfcc
from sidecar.proxy.head import HeadBuffer
from sidecar.proxy.lifetime import plan_lifetime
from sidecar.proxy.limits import IDLE_CHECK_S, REST_BYTES, REST_S
from sidecar.proxy.link import CallerLink, SecureTransport
from sidecar.proxy.reception import Reception
from sidecar.proxy.refusal import Refusal, answer_recorded

log = logging.getLogger(__name__)

_HEAD: Final = 0
_CALL: Final = 1
_REFUSING: Final = 2
_REST: Final = 3


class Registry(Protocol):
    """Who keeps count of the connections."""

    def connection_opened(self, connection: Connection) -> None: ...

    def connection_closed(self, connection: Connection) -> None: ...


class Connection(CallerLink):
    """Implements :class:`sidecar.tls.transport.SecureProtocol`, and the caller's side of its open call.

    ``next_check_s`` is when the sweep has to look at it again; 0.0 at once.
    """

    __slots__ = (
        *("_decoder", "_exchange", "_head_since_s", "_heads", "_is_advancing", "_is_eof", "_left_bytes"),
        *("_lifetime", "_reception", "_refusal", "_registry", "_state", "is_ending", "peer", "xfcc"),
    )

    def __init__(self, context: ProxyContext, registry: Registry) -> None:
        super().__init__(context)
        self._registry = registry
        self._heads = HeadBuffer(context.head_limits)
        self._exchange: Exchange | None = None
        self._refusal: str | None = None  # the id of the call whose refusal waits
        self._decoder: Decoder | None = None
        self._state = _HEAD
        self._head_since_s: float | None = None
        self._left_bytes = 0
        self._is_advancing = self._is_eof = False
        self.is_ending = False
        self.xfcc = b""

    # What the transport calls

    def connection_secured(self, transport: SecureTransport, peer: Peer) -> None:
        """The handshake has proved ``peer``; the first call may come."""
        context, clock = self._context, self._context.clock
        certificates_end_s = min(peer.not_after_s, transport.own_not_after_s)
        self._transport = transport
        self.send = transport.write
        self._since_s = clock.monotonic_s()
        self._lifetime = plan_lifetime(
            context.limits.max_connection_age_s,
            certificates_end_s,
            now_s=self._since_s,
            wall_s=clock.wall_s(),
            boot_s=clock.boottime_s(),
        )
        self._reception = Reception(context, peer, certificates_end_s)
        self.peer = peer
        self.xfcc = build_xfcc(context.own_id, peer)
        self._registry.connection_opened(self)

    def data_received(self, data: bytes) -> None:
        try:
            if self._state == _HEAD and not self.is_closing:
                self._advance(data)
            else:
                self._on_later_data(data)
        except Exception:  # noqa: BLE001 (boundary: one connection)
            self._fail()

    def eof_received(self) -> None:
        """The caller sends no more; it may still read."""
        self._is_eof = True
        try:
            if self.is_closing:
                return
            if self._state == _HEAD:
                if not self._pending:
                    self._end_of_requests()
            elif self._state == _REST:
                self._close()
            elif self._exchange is not None and self._exchange.decoder is not None:
                self._exchange.break_off(malformed("the request body is incomplete"))
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
            elif self._state == _HEAD and not self.is_closing and not self._is_advancing:
                self._continue()
        except Exception:  # noqa: BLE001 (boundary: one connection)
            self._fail()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closing = True
        self._registry.connection_closed(self)
        exchange, self._exchange = self._exchange, None
        self._refusal = None
        self._pending.clear()
        if exchange is not None:
            exchange.caller_gone()

    # What the open call calls

    def refuse(self, refusal: Refusal) -> None:
        """Answers with ``refusal``, once its record is on disk where it has to be."""
        self._exchange = None
        self._refusal = refusal.call_id
        self._state = _REFUSING
        self.next_check_s = 0.0
        answer_recorded(self._context, refusal, self._answer_refusal)

    def call_done(self, *, close: bool) -> None:
        """The open call's answer is complete."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        decoder = exchange.decoder
        try:
            # In one step where nothing is left over and nobody waits: the case that counts.
            if not (
                close
                or decoder is not None
                or self._pending
                or self._is_eof
                or self._is_reading_paused
                or self._is_body_held
                or self.is_ending
                or self.is_blocked
                or self._context.is_draining
            ):
                self._state = _HEAD
                self._since_s = exchange.active_s
            else:
                self._after_answer(decoder, close=close)
        except Exception:  # noqa: BLE001 (boundary: what comes next is another call)
            self._fail()

    def call_cut(self, *, abrupt: bool) -> None:
        """The open call's answer stays incomplete."""
        self._exchange = None
        if abrupt:
            self._abort()
        else:
            self._close()

    # One call after the other

    def _advance(self, data: bytes) -> None:
        """Reads heads and begins calls, as long as each one is done at once."""
        self._is_advancing = True
        try:
            while data:
                head = self._heads.feed(data)
                if head is None:
                    break
                self._begin_call(head)
                if self._state != _HEAD or self.is_closing or self.is_blocked:
                    return
                data = self._take_pending()
        except MessageError as error:
            self._refuse_head(error)
            return
        finally:
            self._is_advancing = False
        self._wait_for_head()

    def _begin_call(self, head: bytes) -> None:
        started_s = self._head_since_s
        if started_s is None:
            started_s = self._context.clock.monotonic_s()
        else:
            self._head_since_s = None
        self._since_s = started_s
        self.next_check_s = 0.0
        reception = self._reception
        received = reception.receive(head, self._heads.take_rest(), started_s, self)
        if reception.rest:
            self._keep(reception.rest)
        if isinstance(received, Exchange):
            self._exchange = received
            self._state = _CALL
            received.start(reception.body)
        else:
            self._decoder = reception.decoder
            self.refuse(received)

    def _on_later_data(self, data: bytes) -> None:
        state = self._state
        if self.is_closing:
            return
        if state in (_CALL, _REFUSING):
            exchange = self._exchange
            if exchange is not None and exchange.decoder is not None:
                self._feed_body(exchange, exchange.decoder, data)
            else:
                self._keep(data)
        else:
            self._drop_rest(data)

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
        """Of a body whose call has been answered; what cannot be read to its end soon ends the connection."""
        decoder = self._decoder
        assert decoder is not None
        self._left_bytes -= len(data)
        try:
            _, rest = decoder.feed(data)
        except MessageError:
            self._close()
            return
        if rest:
            self._keep(rest)
        if decoder.done:
            self._next_call()
        elif self._left_bytes < 0:
            self._close()

    def _after_answer(self, decoder: Decoder | None, *, close: bool) -> None:
        self._is_body_held = False
        if close or (decoder is not None and self._is_eof):
            self._close()
        elif decoder is None:
            self._next_call()
        else:
            self._state = _REST
            self._decoder = decoder
            self._left_bytes = REST_BYTES
            self._since_s = self._context.clock.monotonic_s()
            pending = self._take_pending()
            self._update_reading()
            if pending:
                self._drop_rest(pending)

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

    def _answer_refusal(self, refusal: Refusal, data: bytes) -> None:
        if self._refusal != refusal.call_id or self.is_closing:
            return  # the caller has gone
        self._refusal = None
        try:
            self.send(data)
            self._after_answer(self._decoder, close=refusal.close)
        except Exception:  # noqa: BLE001 (boundary: one connection)
            self._fail()

    def _fail(self) -> None:
        """Called while an unexpected exception is handled: ends what this connection does, nothing else."""
        log.exception("a connection of %s failed inside the sidecar", self.peer.id_text)
        try:
            if self._exchange is not None and not self._exchange.is_ended:
                self._exchange.fail_internally()
            elif self._state == _HEAD and not self.is_closing:
                self._refuse_head(MessageError(500, Reason.INTERNAL, "the sidecar failed"))
            else:
                self._abort()
        except Exception:
            log.exception("the connection could not be ended in order")
            self._abort()

    # The sweep, and what comes from above

    def check(self, now_s: float, wall_s: float, boot_s: float, *, review: bool) -> None:
        """What is due by now; the sweep calls it when ``next_check_s`` has come."""
        if self.is_closing:
            if now_s - self._since_s >= self._context.limits.write_timeout_s:
                self._abort()
        elif self._lifetime.has_ended(wall_s, boot_s):
            self.cut(Reason.SVID_EXPIRED)
        elif self._is_stuck(now_s, *self._answered()):
            self._context.accounts.count_limit("write_timeout")
            self.cut(Reason.TIMEOUT)
        else:
            self.is_ending = now_s >= self._lifetime.announce_s
            self._check_state(now_s, wall_s, review=review)
        is_idle = (
            self._state == _HEAD
            and not self.is_closing
            and self._head_since_s is None
            and self._waiting is None
        )
        self.next_check_s = 0.0
        if is_idle:
            self.next_check_s = now_s + IDLE_CHECK_S
            self._reception.forget()

    def drain(self) -> None:
        """Closes the connection if it is idle; else its next answer announces the end."""
        if self._state == _HEAD and self._heads.is_empty and not self._pending:
            self._close()

    def end(self, reason: Reason) -> None:
        """Ends what is open, with an answer where none has begun."""
        if self._exchange is not None:
            self._exchange.cut(reason)
        else:
            self._close()

    def cut(self, reason: Reason) -> None:
        """Ends the connection at once, and an open call with it."""
        if self._exchange is not None:
            self._exchange.cut(reason, abrupt=True)
        else:
            self._abort()

    def _answered(self) -> tuple[str, int]:
        """The open call and how much of its answer has been written; nothing without one."""
        exchange = self._exchange
        return ("", 0) if exchange is None else (exchange.call_id, exchange.sent)

    def _check_state(self, now_s: float, wall_s: float, *, review: bool) -> None:
        limits, since_s = self._context.limits, now_s - self._since_s
        if self._exchange is not None:
            self._exchange.check(now_s, wall_s, review=review)
        elif self._head_since_s is not None:
            if now_s - self._head_since_s >= limits.head_timeout_s:
                detail = "the request head was not complete in time"
                self._refuse_head(MessageError(408, Reason.TIMEOUT, detail, limit="head_timeout"))
        elif self._state == _HEAD:
            if since_s >= limits.idle_timeout_s:
                self._context.accounts.count_limit("idle_timeout")
                self._close()
            elif self.is_ending or self._context.is_draining:
                self._close()
        elif self._state == _REFUSING:
            if since_s >= limits.request_timeout_s:
                self._abort()
        elif since_s >= REST_S:
            self._close()
