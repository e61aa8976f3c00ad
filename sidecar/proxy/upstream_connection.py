"""One connection to the upstream: bytes between its transport and the call that holds it."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Protocol, cast

from sidecar.proxy.answer_reader import AnswerReader
from sidecar.proxy.errors import UpstreamError
from sidecar.proxy.limits import BUFFER_HIGH_BYTES, BUFFER_LOW_BYTES

_UNASKED = select.POLLIN | select.POLLRDHUP


class UpstreamUser(Protocol):
    """The call that asks for a connection, and holds it from ``upstream_ready`` until it is given back or
    lost."""

    def upstream_ready(self, connection: UpstreamConnection) -> None:
        """The connection that was not there at once."""
        ...

    def upstream_refused(self, error: UpstreamError) -> None:
        """There will be none."""
        ...

    def upstream_data(self, data: bytes) -> None: ...

    def upstream_lost(self, exc: Exception | None) -> None:
        """The upstream ended the connection (None: in order); it is no longer held."""
        ...

    def upstream_writable(self, writable: bool) -> None:
        """Whether the upstream takes what is written, or lets it pile up."""
        ...


class Home(Protocol):
    """Where a connection goes when its call is done."""

    def take_back(self, connection: UpstreamConnection) -> None: ...

    def forget(self, connection: UpstreamConnection) -> None: ...


class UpstreamConnection(asyncio.Protocol):
    """Made by the pool for each connection; between calls ``user`` is None.

    Whatever comes in while nobody asked, end of stream included, ends it: an answer that nobody asked for
    would be taken for the answer to the next call.
    """

    __slots__ = (
        *("_home", "_transport", "idle_since_s", "is_open", "is_paused", "poll", "reader", "user", "uses"),
        "write",
    )

    def __init__(self, home: Home, max_head_bytes: int) -> None:
        self._home = home
        self.poll: select.poll | None = None
        self.write: Callable[[bytes], None] = _drop
        self._transport: asyncio.Transport | None = None
        self.reader = AnswerReader(max_head_bytes)
        self.user: UpstreamUser | None = None
        self.uses = 0
        self.idle_since_s = 0.0
        self.is_open = False
        self.is_paused = False

    def pause_reading(self) -> None:
        if self._transport is not None and self.is_open and not self.is_paused:
            self.is_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and self.is_open and self.is_paused:
            self.is_paused = False
            self._transport.resume_reading()

    def release(self, now_s: float) -> None:
        """Gives it back whole: the answer has been read to its end and may be followed by another request."""
        self.user = None
        self.idle_since_s = now_s
        if self.is_paused:
            self.resume_reading()
        if self.is_open:
            self._home.take_back(self)

    def discard(self) -> None:
        """Throws it away with everything in it; the upstream sees its request end."""
        self.user = None
        if self.is_open:
            self.is_open = False
            self._home.forget(self)
            assert self._transport is not None
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.write = self._transport.write
        self._transport.set_write_buffer_limits(high=BUFFER_HIGH_BYTES, low=BUFFER_LOW_BYTES)
        self.is_open = True
        link = transport.get_extra_info("socket")
        if link is not None:
            self.poll = select.poll()
            self.poll.register(link.fileno(), _UNASKED)

    def data_received(self, data: bytes) -> None:
        user = self.user
        if user is not None:
            user.upstream_data(data)
        elif self.is_open:
            self.discard()

    def eof_received(self) -> None:
        self._ended(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(exc)
        self._transport = self.poll = None
        self.write = _drop

    def pause_writing(self) -> None:
        if self.user is not None:
            self.user.upstream_writable(False)

    def resume_writing(self) -> None:
        if self.user is not None:
            self.user.upstream_writable(True)

    def _ended(self, exc: Exception | None) -> None:
        user = self.user
        self.discard()
        if user is not None:
            user.upstream_lost(exc)


def _drop(data: bytes) -> None:
    """Where there is no connection any more."""
