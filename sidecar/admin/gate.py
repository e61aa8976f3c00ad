"""The door of a listener: who is let in, how many at once, and for how long, before HTTP sees a byte."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

Admit = Callable[[asyncio.Transport, RequestHandler], bool]


class Gate:
    """A protocol factory around aiohttp's server.

    ``admit`` is asked first; a connection that it refuses is cut without an answer. Above ``limit``
    connections the oldest one goes, and every one goes after ``life_s`` if that is set, so that idle
    strangers cannot keep a probe from getting through. aiohttp itself has neither limit.
    """

    def __init__(
        self,
        server: web.Server,
        *,
        limit: int,
        life_s: float | None = None,
        admit: Admit | None = None,
        left: Callable[[RequestHandler], None] | None = None,
    ) -> None:
        self.server = server
        self.limit = limit
        self.life_s = life_s
        self.admit = admit
        self.left = left
        self.entered: dict[_Entrance, None] = {}  # in the order of arrival

    def __call__(self) -> asyncio.Protocol:
        return _Entrance(self)


class _Entrance(asyncio.Protocol):
    """One connection; hands everything to aiohttp's handler once it is let in."""

    __slots__ = ("_gate", "_handler", "_timer", "_transport")

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._handler: RequestHandler | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        link = cast(asyncio.Transport, transport)  # uvloop's is none by class
        gate, handler = self._gate, self._gate.server()
        if gate.admit is not None and not gate.admit(link, handler):
            link.abort()
            return
        if len(gate.entered) >= gate.limit:
            next(iter(gate.entered)).cut()
        gate.entered[self] = None
        self._handler, self._transport = handler, link
        if gate.life_s is not None:
            self._timer = asyncio.get_running_loop().call_later(gate.life_s, self.cut)
        handler.connection_made(transport)

    def cut(self) -> None:
        """Ends the connection at once. It leaves the count now, as ``connection_lost`` comes a turn later."""
        self._gate.entered.pop(self, None)
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._handler is not None:
            self._handler.data_received(data)

    def eof_received(self) -> bool | None:
        if self._handler is not None:
            self._handler.eof_received()
        return None

    def pause_writing(self) -> None:
        if self._handler is not None:
            self._handler.pause_writing()

    def resume_writing(self) -> None:
        if self._handler is not None:
            self._handler.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gate.entered.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
        if self._handler is not None:
            self._handler.connection_lost(exc)
            if self._gate.left is not None:
                self._gate.left(self._handler)
            self._handler = None
