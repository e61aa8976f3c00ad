"""The server's side of TLS: from an accepted socket to a proved peer, or to a refusal."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable
from typing import Final, Protocol, cast

from OpenSSL import SSL

from sidecar.errors import IdentityError, SidecarError
from sidecar.metrics import SidecarMetrics
from sidecar.tls.context import ServerContext, explain
from sidecar.tls.judgement import Judgement, proven_peer
from sidecar.tls.linger import Linger
from sidecar.tls.records import Scratch, build_records, drain
from sidecar.tls.refusal import (
    CHAIN,
    INTERNAL,
    NO_CERTIFICATE,
    NOT_TLS,
    PEER_ALERT,
    PROTOCOL,
    TIMEOUT,
    TOO_LARGE,
    UNAVAILABLE,
    VERSION,
    Refusal,
)
from sidecar.tls.transport import BUFFER_HIGH_BYTES, BUFFER_LOW_BYTES, Closed, SecureProtocol, TlsTransport

log = logging.getLogger(__name__)

HANDSHAKE_BYTES: Final = 72 * 1024
"""The most that a peer may send before it is proved: 64 KiB of certificates, and the rest of a handshake."""

_HEADER_BYTES: Final = 5
_RECORD_BYTES: Final = 16384 + 256
_HANDSHAKE_RECORD: Final = 22
_RULES: Final = {
    "peer did not return a certificate": NO_CERTIFICATE,
    "unsupported protocol": VERSION,
}
_LIMITS: Final = {TIMEOUT: "handshake_timeout", TOO_LARGE: "handshake_bytes", CHAIN: "peer_chain"}


class Watch(Closed, Protocol):
    """Who keeps count of handshakes and connections; each is called once for each accepted socket."""

    def handshake_settled(self, handshake: Handshake) -> None:
        """It is no longer in progress, whatever came of it."""
        ...


class Acceptor:
    """Makes the protocol for each accepted connection; for one event loop.

    ``context`` gives the context in force or raises a SidecarError when there is none; ``make`` the
    protocol for a peer that has been proved. ``on_refused`` hears of each handshake that was refused, not
    of those that the other side merely left. Handshakes are counted in ``metrics``.
    """

    def __init__(
        self,
        context: Callable[[], ServerContext],
        make: Callable[[], SecureProtocol],
        on_refused: Callable[[Refusal], None],
        handshake_timeout_s: float,
        metrics: SidecarMetrics,
    ) -> None:
        self.context = context
        self.make = make
        self.on_refused = on_refused
        self.handshake_timeout_s = handshake_timeout_s
        self.metrics = metrics
        self.scratch = Scratch()

    def accept(self, watch: Watch) -> Handshake:
        """The protocol for one socket that has just been accepted."""
        return Handshake(self, watch)


class Handshake(asyncio.Protocol):
    """One handshake on one raw transport, within the deadline. At its end it hands the transport over, or closes it.

    OpenSSL gets whole records, one at a time: what is no TLS never reaches it, what it may be sent is
    counted, and when it says that the handshake is done, the bytes behind are ours to keep in order.
    """

    __slots__ = (
        *(
            "_acceptor",
            "_connection",
            "_context",
            "_fed_bytes",
            "_is_settled",
            "_judgement",
            "_linger",
            "_raw",
        ),
        *("_received", "_source", "_timer", "_watch", "is_started"),
    )

    def __init__(self, acceptor: Acceptor, watch: Watch) -> None:
        self._acceptor = acceptor
        self._watch = watch
        self._raw: asyncio.Transport | None = None
        self._connection: SSL.Connection | None = None
        self._context: ServerContext | None = None
        self._judgement = Judgement()
        self._received = bytearray()
        self._fed_bytes = 0
        self._source = ""
        self._timer: asyncio.TimerHandle | None = None
        self._linger: Linger | None = None
        self._is_settled = False
        self.is_started = False

    @property
    def has_spoken(self) -> bool:
        """Whether the peer has sent anything that a handshake begins with."""
        return self._fed_bytes > 0

    def cancel(self) -> None:
        """Ends it now if it is still in progress; the peer is told nothing."""
        self._leave("cancelled")

    def abandon(self) -> None:
        """The socket was lost before a transport was made of it."""
        self._leave("closed")
        self._watch.connection_closed()

    # For the raw transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        raw = cast(asyncio.Transport, transport)
        self.is_started = True
        self._raw = raw
        if self._is_settled:
            raw.abort()
            return
        self._source = source_of(raw.get_extra_info("peername"))
        timeout_s = self._acceptor.handshake_timeout_s
        self._timer = asyncio.get_running_loop().call_later(timeout_s, self._on_timeout)
        try:
            raw.set_write_buffer_limits(high=BUFFER_HIGH_BYTES, low=BUFFER_LOW_BYTES)
            self._context = self._acceptor.context()
            self._connection = self._context.begin(self._judgement)
        except SidecarError as exc:
            self._refuse(UNAVAILABLE, str(exc))
        except Exception as exc:  # noqa: BLE001 -- boundary: one handshake
            self._break(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_settled:
            if self._linger is not None:
                self._linger.drop(len(data))
            return
        self._received += data
        try:
            self._advance()
        except IdentityError as exc:
            self._refuse(exc.rule, str(exc))
        except SSL.Error as exc:
            reason = explain(exc)
            rule = _RULES.get(reason, PEER_ALERT if "alert" in reason else PROTOCOL)
            self._refuse(*(self._judgement.refusal or (rule, reason)))
        except Exception as exc:  # noqa: BLE001 -- boundary: one handshake
            self._break(exc)

    def eof_received(self) -> bool:
        self._leave("closed")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave("closed")
        if self._linger is not None:
            self._linger.cancel()
        self._watch.connection_closed()

    # Within

    def _advance(self) -> None:
        """Feeds OpenSSL with what is complete. Raises IdentityError, SSL.Error; whatever else is a fault of ours."""
        received, connection = self._received, self._connection
        assert connection is not None and self._raw is not None
        while (size := self._measure_record(received)) and size <= len(received):
            self._fed_bytes += size
            if self._fed_bytes > HANDSHAKE_BYTES:
                raise IdentityError(TOO_LARGE, f"the handshake has more than {HANDSHAKE_BYTES} bytes")
            connection.bio_write(bytes(received[:size]))
            del received[:size]
            if self._is_done(connection):
                self._secure(connection, self._raw)
                return

    def _measure_record(self, received: bytearray) -> int:
        """The size of the record at the front, header included; 0 if even that is not there yet."""
        is_first = self._fed_bytes == 0
        if received and is_first and received[0] != _HANDSHAKE_RECORD:
            raise IdentityError(NOT_TLS, "what came is not TLS")
        if len(received) < _HEADER_BYTES:
            return 0
        size = int.from_bytes(received[3:5], "big")
        if received[1] != 3 or size > _RECORD_BYTES:
            raise IdentityError(NOT_TLS, "what came is not TLS")
        return _HEADER_BYTES + size

    def _is_done(self, connection: SSL.Connection) -> bool:
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            self._flush(connection)
            return False
        # Not flushed: what OpenSSL sends now (tickets that nobody needs) can go with the first answer.
        return True

    def _flush(self, connection: SSL.Connection) -> None:
        assert self._raw is not None
        if data := drain(connection):
            self._raw.write(data)

    def _secure(self, connection: SSL.Connection, raw: asyncio.Transport) -> None:
        context, judgement, acceptor = self._context, self._judgement, self._acceptor
        assert context is not None
        peer = proven_peer(connection, judgement, self._source, context.generation)
        connection.set_app_data(None)
        protocol = acceptor.make()
        secured = TlsTransport(
            raw,
            build_records(connection, acceptor.scratch),
            protocol,
            self._watch,
            peer_chain=judgement.chain,
            own_not_after_s=context.own_not_after_s,
        )
        rest = bytes(self._received)
        self._settle("ok", "")
        raw.set_protocol(secured)
        secured.start(peer, rest)

    def _refuse(self, rule: str, detail: str) -> None:
        """Refuses, with the alert that OpenSSL has made, if it has."""
        refusal = Refusal(rule, detail, self._judgement.claimed(), self._source)
        connection, raw = self._connection, self._raw
        if not self._settle("refused", rule):
            return
        assert raw is not None
        if rule in _LIMITS:
            self._acceptor.metrics.limits.labels(_LIMITS[rule]).inc()
        if connection is not None and rule != NOT_TLS:
            self._flush(connection)
        if rule == TIMEOUT:
            raw.abort()
        else:
            self._linger = Linger(raw, is_ended=False)
        try:
            self._acceptor.on_refused(refusal)
        except Exception:
            log.exception("a refused handshake could not be reported")

    def _break(self, exc: Exception) -> None:
        log.error("a handshake failed", exc_info=exc)
        self._refuse(INTERNAL, f"{type(exc).__name__} in the handshake")

    def _leave(self, how: str) -> None:
        if self._settle("left", how) and self._raw is not None:
            self._raw.abort()

    def _on_timeout(self) -> None:
        self._refuse(TIMEOUT, f"the handshake took longer than {self._acceptor.handshake_timeout_s:g} s")

    def _settle(self, result: str, reason: str) -> bool:
        """Notes that it is over, once; drops what it needed. False if it was over already."""
        if self._is_settled:
            return False
        self._is_settled = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._connection = self._context = None
        self._judgement = Judgement()
        self._received = bytearray()
        self._acceptor.metrics.handshakes.labels("inbound", result, reason).inc()
        self._watch.handshake_settled(self)
        return True


def source_of(peername: object) -> str:
    """The address in a socket's ``peername`` without port and zone; IPv4 as itself. Empty for other sockets."""
    if not isinstance(peername, tuple) or not peername:
        return ""
    host = str(peername[0]).partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return str(getattr(address, "ipv4_mapped", None) or address)
