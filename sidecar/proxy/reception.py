"""From the bytes of a request head to a permitted call or a refusal: parse, then ask for the one verdict."""

from __future__ import annotations

from sidecar.audit.record import Intent
from sidecar.authz.call import Call
from sidecar.authz.reasons import Reason
from sidecar.identity.peer import Peer
from sidecar.proxy.accounts import Standing, Standings, build_caller, build_denial
from sidecar.proxy.body import NO_BODY, Decoder, build_decoder
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.errors import MessageError, too_large
from sidecar.proxy.exchange import Exchange
from sidecar.proxy.limits import REST_BYTES
from sidecar.proxy.open_call import CallerSide
from sidecar.proxy.refusal import Refusal, status_of
from sidecar.proxy.request import Request, parse_request

_NOTHING_KNOWN = Intent(None, None)


class Reception:
    """Receives the calls of one connection, one at a time.

    After :meth:`receive`: ``decoder`` reads the rest of the request's body (None when there is none),
    ``body`` is the part of it that came with the head, and ``rest`` is what followed the request.
    """

    __slots__ = (
        *("_context", "_ends_s", "_last_head", "_last_request", "_nobody", "_peer", "_standings"),
        *("body", "decoder", "rest"),
    )

    def __init__(self, context: ProxyContext, peer: Peer, certificates_end_s: float) -> None:
        self._context = context
        self._peer = peer
        self._ends_s = certificates_end_s
        self._standings = Standings(peer, context.accounts)
        self._nobody = build_caller(peer)
        self._last_head = b""
        self._last_request: Request | None = None
        self.body = b""
        self.decoder: Decoder | None = None
        self.rest = b""

    def receive(self, head: bytes, rest: bytes, started_s: float, side: CallerSide) -> Exchange | Refusal:
        """The call that this head begins. Never raises :class:`MessageError`."""
        context = self._context
        wall_s = context.clock.wall_s()
        call_id = context.ids.new(wall_s)
        request: Request | None = None
        self.body, self.rest, self.decoder = b"", rest, None
        try:
            # Callers repeat themselves: the same bytes are the same request, which is never changed.
            if head == self._last_head:
                request = self._last_request
            if request is None:
                request = parse_request(head, context.head_limits)
                self._last_head, self._last_request = head, request
            if request.framing is not NO_BODY:
                self._begin_body(request)
        except MessageError as error:
            return self.refuse_message(error, started_s, request, call_id, wall_s)
        trace = self._continue_trace(request)
        if not context.audit.available:
            detail = "the call cannot be recorded"
            return self._refuse(Reason.AUDIT_UNAVAILABLE, detail, request, call_id, started_s, wall_s, trace)
        if wall_s >= self._ends_s:
            detail = "a certificate of this connection has ended"
            return self._refuse(Reason.SVID_EXPIRED, detail, request, call_id, started_s, wall_s, trace)
        target = request.target
        call = Call(
            self._peer, request.method, target.path, target.segments, request.purpose, request.has_task
        )
        verdict = context.judge.decide(call)
        standing = self._standings.find(verdict)
        standing.counter.value += 1
        intent = Intent(request.method, target.path, verdict.route, verdict.scope, request.purpose)
        if verdict.effect != "allow":
            return self._deny(standing, intent, request, side, call_id, started_s, wall_s, trace)
        return Exchange(
            context,
            side,
            request,
            call,
            intent,
            standing,
            self.decoder,
            call_id,
            trace,
            started_s,
            wall_s,
        )

    def forget(self) -> None:
        """Keeps nothing of the last request; for a connection that has become idle."""
        self._last_head, self._last_request = b"", None

    def refuse_message(
        self,
        error: MessageError,
        started_s: float,
        request: Request | None = None,
        call_id: str | None = None,
        wall_s: float | None = None,
    ) -> Refusal:
        """What cannot be read as a request, or not in one way only; the connection ends after the answer."""
        context = self._context
        if wall_s is None:
            wall_s = context.clock.wall_s()
        trace, span = context.ids.new_trace()
        return Refusal(
            call_id or context.ids.new(wall_s),
            wall_s,
            started_s,
            error.status,
            error.reason,
            error.detail,
            self._nobody,
            _intent(request),
            build_denial(error.reason),
            f"00-{trace}-{span}-01",
            close=True,
            received=0 if request is None else len(self.body),
            limit=error.limit,
        )

    def _begin_body(self, request: Request) -> None:
        """Reads what came with the head, so that a body that is broken from its beginning is refused with
        it."""
        limit, length = self._context.limits.max_body_bytes, request.framing.length
        decoder = build_decoder(request.framing)
        self.body, self.rest = decoder.feed(self.rest)
        if limit is not None and max(len(self.body), length or 0) > limit:
            raise too_large(413, "the request body is too large", "body")
        self.decoder = None if decoder.done else decoder

    def _continue_trace(self, request: Request) -> str:
        if request.trace is None:
            trace, span = self._context.ids.new_trace()
            return f"00-{trace}-{span}-01"
        trace, flags = request.trace
        return f"00-{trace}-{self._context.ids.new_span()}-{flags}"

    def _deny(
        self,
        standing: Standing,
        intent: Intent,
        request: Request,
        side: CallerSide,
        call_id: str,
        started_s: float,
        wall_s: float,
        trace: str,
    ) -> Refusal:
        verdict = standing.verdict
        reason = verdict.denial
        is_last = request.close or side.is_ending or self._context.is_draining
        return Refusal(
            call_id,
            wall_s,
            started_s,
            status_of(reason),
            reason,
            verdict.detail,
            standing.caller,
            intent,
            standing.decision,
            trace,
            close=is_last or not self._is_rest_small(request),
            received=len(self.body),
            retry_after_s=verdict.retry_after_s if reason is Reason.RATE else None,
        )

    def _is_rest_small(self, request: Request) -> bool:
        """Whether the body that nobody wants can be read to its end, so that the connection can go on."""
        if self.decoder is None:
            return True
        length = request.framing.length
        return not request.expects_continue and length is not None and length - len(self.body) <= REST_BYTES

    def _refuse(
        self,
        reason: Reason,
        detail: str,
        request: Request,
        call_id: str,
        started_s: float,
        wall_s: float,
        trace: str,
    ) -> Refusal:
        return Refusal(
            call_id,
            wall_s,
            started_s,
            status_of(reason),
            reason,
            detail,
            self._nobody,
            _intent(request),
            build_denial(reason),
            trace,
            close=True,
            received=len(self.body),
        )


def _intent(request: Request | None) -> Intent:
    if request is None:
        return _NOTHING_KNOWN
    return Intent(request.method, request.target.path, None, None, request.purpose)
