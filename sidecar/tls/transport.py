"""A secured connection: an asyncio protocol on the raw transport, a transport to the protocol above it."""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol

from sidecar.errors import UnavailableError
from sidecar.identity.peer import Peer
from sidecar.tls.linger import Linger
from sidecar.tls.records import Records

log = logging.getLogger(__name__)

BUFFER_HIGH_BYTES: Final = 64 * 1024
"""Above this much unsent, ``pause_writing`` is called; at :data:`BUFFER_LOW_BYTES`, ``resume_writing``."""
BUFFER_LOW_BYTES: Final = 16 * 1024
WRITE_PIECE_BYTES: Final = 256 * 1024
"""How much is encrypted at once, so that a large write is not held twice."""
SILENT_BYTES: Final = 64 * 1024
"""How much may come in a row without any data in it: key updates and empty records are work for nothing."""
REPLY_BYTES: Final = 1024 * 1024
"""How much may lie unsent when OpenSSL has something of its own to send: a peer can ask for key updates without end
and read none of them."""


class SecureProtocol(Protocol):
    """What a finished handshake is handed to.

    ``connection_lost`` is called once, and last, if ``connection_secured`` was called. An exception in any
    of them ends the connection.
    """

    def connection_secured(self, transport: TlsTransport, peer: Peer) -> None:
        """The handshake has proved ``peer``."""
        ...

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> None:
        """The peer sends no more, by close_notify or by FIN; it may still read."""
        ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...


class _Nobody:
    """The protocol above a connection that is over."""

    __slots__ = ()

    def connection_secured(self, transport: TlsTransport, peer: Peer) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...


class Closed(Protocol):
    """Who keeps count of the open connections."""

    def connection_closed(self) -> None:
        """One that was accepted is over."""
        ...


_NOBODY: Final = _Nobody()


class TlsTransport(asyncio.Protocol):
    """Plaintext to and from ``protocol``, ciphertext to and from ``raw``. Made by the acceptor; one loop's, no threads.

    ``peer_chain`` is the judged chain, DER, leaf first; ``own_not_after_s`` the end of the own SVID that this
    connection began with. ``eof_is_clean`` is None until ``eof_received``, then whether the peer said so in
    close_notify: a bare FIN can be a third party's, and cut a message short.
    """

    __slots__ = (
        *("_failure", "_has_fin", "_held", "_is_closing", "_is_detour", "_is_end_due", "_is_paused"),
        *("_is_raw_held", "_linger", "_protocol", "_raw", "_records", "_release", "_silent_bytes", "_watch"),
        *("eof_is_clean", "own_not_after_s", "peer_chain"),
    )

    def __init__(
        self,
        raw: asyncio.Transport,
        records: Records,
        protocol: SecureProtocol,
        watch: Closed,
        *,
        peer_chain: tuple[bytes, ...] = (),
        own_not_after_s: float = float("inf"),
    ) -> None:
        self._raw = raw
        self._records = records
        self._protocol = protocol
        self._watch = watch
        self.peer_chain = peer_chain
        self.own_not_after_s = own_not_after_s
        self.eof_is_clean: bool | None = None
        self._failure: Exception | None = None
        self._linger: Linger | None = None
        self._is_closing = self._is_paused = self._is_raw_held = self._is_end_due = self._has_fin = False
        self._is_detour = False  # whether received bytes go another way than straight to the protocol
        self._held = bytearray()
        self._release: asyncio.Handle | None = None
        self._silent_bytes = 0

    # For the acceptor

    def start(self, peer: Peer, rest: bytes) -> None:
        """Hands the connection over, then what came in behind the handshake."""
        try:
            self._protocol.connection_secured(self, peer)
        except Exception as exc:  # noqa: BLE001 -- boundary: one connection
            self._fail(exc)
        if rest:
            self.data_received(rest)

    # For the protocol above

    def write(self, data: bytes) -> None:
        """Sends ``data`` in the order of the calls; nothing once the connection is closing."""
        if self._is_closing or not data:
            return
        try:
            if len(data) <= WRITE_PIECE_BYTES:
                self._raw.write(self._records.encrypt(data))
            else:
                for place in range(0, len(data), WRITE_PIECE_BYTES):
                    self._raw.write(self._records.encrypt(data[place : place + WRITE_PIECE_BYTES]))
        except UnavailableError as exc:
            self._fail(exc)

    def pause_reading(self) -> None:
        """No ``data_received`` and no ``eof_received`` until :meth:`resume_reading`."""
        if self._is_paused or self._is_closing:
            return
        self._is_paused = self._is_detour = True
        self._hold_raw(True)

    def resume_reading(self) -> None:
        """Goes on, first with what came while reading was paused, but never within this call."""
        if not self._is_paused or self._is_closing:
            return
        self._is_paused = False
        if self._release is not None:
            return
        if self._held or self._is_end_due:
            self._release = asyncio.get_running_loop().call_soon(self._go_on)
        else:
            self._go_on()

    def close(self) -> None:
        """Sends what has been written, close_notify and FIN; ``connection_lost`` comes once the peer has closed too,
        or a moment later.
        """
        if self._is_closing:
            return
        self._end()
        if self._raw.is_closing():
            return
        if notice := self._records.close():
            self._raw.write(notice)
        self._hold_raw(False)
        self._linger = Linger(self._raw, is_ended=self._has_fin)

    def abort(self) -> None:
        """Ends the connection now; what is unsent is lost."""
        self._end()
        self._raw.abort()

    def is_closing(self) -> bool:
        return self._is_closing

    def get_write_buffer_size(self) -> int:
        """Ciphertext that the peer has not taken yet, in bytes."""
        return self._raw.get_write_buffer_size()

    # For the raw transport

    def data_received(self, data: bytes) -> None:
        if self._is_detour and not self._is_wanted(data):
            return
        try:
            records = self._records
            if plaintext := records.decrypt(data):
                self._silent_bytes = 0
                self._protocol.data_received(plaintext)
            else:
                self._note_silence(len(data))
            if records.has_news:
                self._hear_news()
        except Exception as exc:  # noqa: BLE001 -- boundary: one connection; whatever it is, it ends this one
            self._fail(exc)

    def eof_received(self) -> bool:
        """FIN. True as long as there is something left to send."""
        self._has_fin = True
        if self._is_closing:
            return False
        self._note_end(is_clean=False)
        return True

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        if self._linger is not None:
            self._linger.cancel()
        protocol, self._protocol = self._protocol, _NOBODY
        try:
            protocol.connection_lost(self._failure or exc)
        except Exception:
            log.exception("the end of a connection was not taken well")
        finally:
            self._watch.connection_closed()

    # Within

    def _is_wanted(self, data: bytes) -> bool:
        """Whether ``data`` is to be decrypted now; keeps it for later, or drops it, if not."""
        if self._is_closing:
            if self._linger is not None:
                self._linger.drop(len(data))
        elif self.eof_is_clean is None:  # TLS: what comes after close_notify does not count
            self._held += data
        return False

    def _go_on(self) -> None:
        """Reading is no longer paused."""
        self._release = None
        if self._is_closing or self._is_paused:
            return
        self._is_detour = self.eof_is_clean is not None
        if self._held:
            held, self._held = bytes(self._held), bytearray()
            self.data_received(held)
        if self._is_end_due and not self._is_paused:
            self._tell_end()
        if not (self._is_paused or self._is_closing):
            self._hold_raw(False)

    def _hold_raw(self, hold: bool) -> None:
        if hold == self._is_raw_held or self._raw.is_closing():
            return
        self._is_raw_held = hold
        if hold:
            self._raw.pause_reading()
        else:
            self._raw.resume_reading()

    def _hear_news(self) -> None:
        reply = self._records.take_reply()
        if reply and not self._is_closing:
            if self._raw.get_write_buffer_size() > REPLY_BYTES:
                raise UnavailableError("the peer does not read")
            self._raw.write(reply)
        if self._records.is_ended:
            self._note_end(is_clean=True)

    def _note_silence(self, size: int) -> None:
        self._silent_bytes += size
        if self._silent_bytes > SILENT_BYTES:
            raise UnavailableError("the peer sends records without data")

    def _note_end(self, *, is_clean: bool) -> None:
        if self.eof_is_clean is not None or self._is_closing:
            return
        self.eof_is_clean = is_clean
        self._is_detour = self._is_end_due = True
        if not self._is_paused and self._release is None:
            self._tell_end()

    def _tell_end(self) -> None:
        self._is_end_due = False
        try:
            self._protocol.eof_received()
        except Exception as exc:  # noqa: BLE001 -- boundary: one connection
            self._fail(exc)

    def _fail(self, exc: Exception) -> None:
        """Ends the connection for a reason, which ``connection_lost`` hears; the peer gets an alert if there is one."""
        if not isinstance(exc, UnavailableError):
            log.error("a connection failed", exc_info=exc)
        if self._failure is None:
            self._failure = exc
        if alert := self._records.close():
            self._raw.write(alert)
        self.abort()

    def _end(self) -> None:
        """From here on nothing is delivered and nothing written."""
        self._is_closing = self._is_detour = True
        self._is_end_due = False
        self._held = bytearray()
        if self._release is not None:
            self._release.cancel()
            self._release = None
