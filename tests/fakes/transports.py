"""Transports in memory: what is written is kept, what pauses is remembered, and the test plays the
network."""

from __future__ import annotations

from typing import Any, Protocol


class Side(Protocol):
    """What both kinds of protocol have in common."""

    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...


class FakeTransport:
    """For a protocol that stands on it: a plain asyncio transport, and a TLS one as the proxy knows it.

    Nothing leaves its buffer by itself once ``is_stuck`` is set: then ``pause_writing`` comes above ``high``
    bytes, and :meth:`flush` lets go of some. ``connection_lost`` comes when the test says :meth:`lose`, as
    from a loop.
    """

    def __init__(self, protocol: Any, high: int = 64 * 1024, low: int = 16 * 1024) -> None:
        self.protocol = protocol
        self.written = bytearray()
        self.buffered = 0
        self.most_buffered = 0
        self.writes = 0
        self.attempts = 0
        self.is_stuck = False
        self.is_paused = False
        self.is_closed = False
        self.is_aborted = False
        self.peer_chain: tuple[bytes, ...] = ()
        self.own_not_after_s = float("inf")
        self._high, self._low = high, low
        self._has_paused_writer = False

    # What protocols call

    def write(self, data: bytes) -> None:
        self.attempts += 1
        if self.is_closing():
            return
        assert data, "an empty write"
        self.writes += 1
        self.written += data
        if not self.is_stuck:
            return
        self.buffered += len(data)
        self.most_buffered = max(self.most_buffered, self.buffered)
        if self.buffered > self._high and not self._has_paused_writer:
            self._has_paused_writer = True
            self.protocol.pause_writing()

    def pause_reading(self) -> None:
        assert not self.is_closed, "paused after its end"
        assert not self.is_paused, "paused twice"
        self.is_paused = True

    def resume_reading(self) -> None:
        assert not self.is_closed, "resumed after its end"
        assert self.is_paused, "resumed twice"
        self.is_paused = False

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True

    def is_closing(self) -> bool:
        return self.is_closed

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        self._high, self._low = high, low

    def get_extra_info(self, name: str) -> None:
        return None

    # What tests call

    def take(self) -> bytes:
        """What has been written since the last time."""
        data = bytes(self.written)
        self.written.clear()
        return data

    def feed(self, data: bytes) -> None:
        """Bytes from the network, which wait while reading is paused in real life."""
        if not self.is_closed:
            self.protocol.data_received(data)

    def feed_end(self) -> None:
        self.protocol.eof_received()

    def flush(self, count: int | None = None) -> None:
        """The other side takes ``count`` bytes, or all."""
        self.buffered -= min(self.buffered, self.buffered if count is None else count)
        if self._has_paused_writer and self.buffered <= self._low:
            self._has_paused_writer = False
            self.protocol.resume_writing()

    def lose(self, exc: Exception | None = None) -> None:
        """The connection is over, by whosever doing."""
        self.is_closed = True
        self.protocol.connection_lost(exc)
