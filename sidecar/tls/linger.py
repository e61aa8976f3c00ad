"""The last moment of a connection: our last words go out, what still comes in is dropped."""

from __future__ import annotations

import asyncio
from typing import Final

LINGER_S: Final = 1.0
LINGER_BYTES: Final = 64 * 1024
FLUSH_S: Final = 30.0


class Linger:
    """Ends ``raw`` in order: what was written, FIN, and then reading until the peer has closed too, which it may have
    done already (``is_ended``).

    A socket that is closed with unread bytes in it, or that gets more of them, answers with a reset, which
    can take an answer or an alert out of the peer's hands before it is read. So bytes are dropped for at
    most a second or 64 KiB. A peer that does not read gets 30 s for what is still unsent.
    """

    __slots__ = ("_bytes", "_raw", "_timer", "_waited_s")

    def __init__(self, raw: asyncio.Transport, *, is_ended: bool) -> None:
        self._raw = raw
        self._bytes = 0
        self._waited_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        if is_ended:
            raw.close()
        else:
            try:
                raw.write_eof()
            except OSError:  # the peer is gone already
                raw.abort()
                return
        self._wait()

    def drop(self, size: int) -> None:
        """Notes ``size`` bytes that came in and were thrown away."""
        self._bytes += size
        if self._bytes > LINGER_BYTES:
            self._end()

    def cancel(self) -> None:
        """The connection is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LINGER_S, self._on_time)

    def _on_time(self) -> None:
        self._waited_s += LINGER_S
        if self._raw.get_write_buffer_size() and self._waited_s < FLUSH_S:
            self._wait()
        else:
            self._end()

    def _end(self) -> None:
        self.cancel()
        self._raw.abort()
