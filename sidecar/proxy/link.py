"""The caller's transport and the bytes that wait for their turn: flow control and the ways to close."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from sidecar.proxy.context import ProxyContext
from sidecar.proxy.limits import BUFFER_HIGH_BYTES, WRITE_PROGRESS_BYTES


class SecureTransport(Protocol):
    """The transport of a finished handshake; :class:`sidecar.tls.transport.TlsTransport`."""

    @property
    def peer_chain(self) -> tuple[bytes, ...]: ...
    @property
    def own_not_after_s(self) -> float: ...

    def write(self, data: bytes) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def get_write_buffer_size(self) -> int: ...


class CallerLink:
    """Base of :class:`sidecar.proxy.connection.Connection`, which knows what the bytes are.

    ``_pending`` holds bytes of later calls. Reading pauses while there are too many of them, or while the
    open call cannot take more of its body. ``is_closing``: nothing is read or written any more.
    """

    __slots__ = (
        *("_context", "_is_body_held", "_is_reading_paused", "_pending", "_since_s", "_transport"),
        *("_waiting", "is_blocked", "is_closing", "next_check_s", "send"),
    )

    def __init__(self, context: ProxyContext) -> None:
        self._context = context
        self._transport: SecureTransport
        self._pending = bytearray()
        self._is_body_held = self._is_reading_paused = False
        self._since_s = 0.0  # when the present state began
        self._waiting: _Waiting | None = None
        self.is_blocked = self.is_closing = False
        self.next_check_s = 0.0
        self.send: Callable[[bytes], None]

    @property
    def peer_chain(self) -> tuple[bytes, ...]:
        """The chain that the peer presented, DER, leaf first."""
        return self._transport.peer_chain

    def hold_reading(self, hold: bool) -> None:
        """Whether the rest of the open call's body has to wait."""
        self._is_body_held = hold
        self._update_reading()

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
        if pause == self._is_reading_paused or self.is_closing:
            return
        self._is_reading_paused = pause
        if pause:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _close(self) -> None:
        """In order: what has been written still leaves."""
        if not self.is_closing:
            self.is_closing = True
            self._since_s = self._context.clock.monotonic_s()
            self.next_check_s = 0.0
            self._transport.close()

    def _abort(self) -> None:
        self.is_closing = True
        self._transport.abort()

    def _is_stuck(self, now_s: float, call_id: str, sent: int) -> bool:
        """Whether bytes wait for the caller and it has taken nearly none of them for too long.

        Told by what has left the buffer: ``sent`` bytes of the answer of ``call_id`` have gone into it.
        """
        size = self._transport.get_write_buffer_size()
        waiting = self._waiting
        if (
            not size
            or waiting is None
            or waiting.call_id != call_id
            or sent - size >= waiting.taken + WRITE_PROGRESS_BYTES
        ):
            self._waiting = _Waiting(now_s, call_id, sent - size) if size else None
            return False
        return now_s - waiting.since_s >= self._context.limits.write_timeout_s


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Bytes wait for the caller: since when, in which call, and how many it had taken by then."""

    since_s: float
    call_id: str
    taken: int
