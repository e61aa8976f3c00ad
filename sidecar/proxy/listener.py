"""The inbound listener: accepts as many connections as there may be, and lets the others wait or go."""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
from typing import Final

from sidecar.metrics import SidecarMetrics
from sidecar.proxy.binding import bind_listeners
from sidecar.tls.acceptor import Acceptor, Handshake

log = logging.getLogger(__name__)

ACCEPTS_PER_TURN: Final = 64
"""How many connections are accepted before the loop turns to others."""
RESERVED_DESCRIPTORS: Final = 64
"""Descriptors that connections must leave to admin, status, audit and upstream."""
SILENT_S: Final = 0.5
"""While all handshakes that may be are in progress, one whose peer has said nothing for this long makes room."""
SLOW_S: Final = 2.0
"""And one that has begun, but is not done after this long. Without a shortage the full deadline holds for both."""
PAUSE_S: Final = 0.25
"""How long accepting rests when the system has no descriptor or memory left: the backlog stays readable."""


class Listener:
    """Listens on ``host`` and ``port`` and has ``acceptor`` take each connection through its handshake.

    While ``max_handshakes`` are in progress, later connections wait in the kernel's backlog, until the oldest one
    that dawdles is given up: who opens sockets and stays silent must not keep others out. Beyond
    ``max_connections``, or if few descriptors are left, one more is accepted and closed at once, so that
    its peer knows, and counted. Runs on the loop that :meth:`start` is called on.
    """

    def __init__(
        self,
        host: str,
        port: int,
        acceptor: Acceptor,
        max_connections: int,
        max_handshakes: int,
        metrics: SidecarMetrics,
    ) -> None:
        self._host = host
        self._asked_port = port
        self._acceptor = acceptor
        self._max_connections = max_connections
        self._max_handshakes = max_handshakes
        self._limits = metrics.limits
        self._open = metrics.connections.labels("inbound")
        self._listeners: list[socket.socket] = []
        self._handshakes: dict[Handshake, float] = {}  # with the time of accepting, oldest first
        self._tasks: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._room: asyncio.TimerHandle | None = None
        self._is_accepting = False
        self._is_full = False
        self._descriptor_limit = 0
        self.connections = 0

    @property
    def port(self) -> int:
        """The port that is listened on; the kernel's choice if 0 was asked for. Only while it is open."""
        return int(self._listeners[0].getsockname()[1])

    async def start(self) -> None:
        """Listens. Raises ConfigurationError or UnavailableError, which say what to do."""
        self._loop = asyncio.get_running_loop()
        self._descriptor_limit = _descriptor_limit()
        self._listeners = await bind_listeners(self._host, self._asked_port)
        self._begin_accepting()

    def stop_accepting(self) -> None:
        """Closes the listening sockets and ends handshakes that are not finished; open connections stay."""
        self._stop_reading()
        for timer in (self._pause, self._room):
            if timer is not None:
                timer.cancel()
        self._pause = self._room = None
        listeners, self._listeners = self._listeners, []
        for each in listeners:
            each.close()
        for handshake in list(self._handshakes):
            handshake.cancel()

    async def close(self) -> None:
        """As :meth:`stop_accepting`, and waits until nothing of it is left; harmless when repeated."""
        self.stop_accepting()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # For the acceptor's protocols

    def handshake_settled(self, handshake: Handshake) -> None:
        self._handshakes.pop(handshake, None)
        self._begin_accepting()

    def connection_closed(self) -> None:
        self.connections -= 1
        self._open.dec()

    # Within

    def _begin_accepting(self) -> None:
        if self._is_accepting or self._pause is not None or len(self._handshakes) >= self._max_handshakes:
            return
        for each in self._listeners:
            self._loop.add_reader(each, self._on_readable, each)
        self._is_accepting = bool(self._listeners)

    def _stop_reading(self) -> None:
        if self._is_accepting:
            for each in self._listeners:
                self._loop.remove_reader(each)
        self._is_accepting = False

    def _on_readable(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            if len(self._handshakes) >= self._max_handshakes:
                self._limits.labels("handshakes").inc()
                if not self._make_room():
                    self._stop_reading()
                    return
            try:
                link, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:
                self._rest(exc)
                return
            self._take(link)

    def _make_room(self) -> bool:
        """Gives up the oldest handshake that dawdles; whether there was one. Else looks again when one will."""
        now_s, soonest_s = self._loop.time(), SLOW_S
        for handshake, since_s in self._handshakes.items():
            left_s = since_s + (SLOW_S if handshake.has_spoken else SILENT_S) - now_s
            if left_s <= 0:
                handshake.cancel()
                return True
            soonest_s = min(soonest_s, left_s)
        if self._room is None:
            self._room = self._loop.call_later(soonest_s, self._look_for_room)
        return False

    def _look_for_room(self) -> None:
        self._room = None
        if len(self._handshakes) < self._max_handshakes or self._make_room():
            self._begin_accepting()

    def _take(self, link: socket.socket) -> None:
        limit = self._struck(link)
        if limit is not None:
            self._limits.labels(limit).inc()
            if not self._is_full:
                log.warning("a connection was closed at once: no more are allowed", extra={"limit": limit})
            self._is_full = True
            link.close()
            return
        self._is_full = False
        link.setblocking(False)
        handshake = self._acceptor.accept(self)
        self.connections += 1
        self._open.inc()
        self._handshakes[handshake] = self._loop.time()
        task = self._loop.create_task(self._connect(link, handshake), name=f"accept-{link.fileno()}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _struck(self, link: socket.socket) -> str | None:
        """The limit that has no room for one more connection."""
        if self.connections >= self._max_connections:
            return "connections"
        # The kernel gives the lowest number that is free, so a high one says that all below it are taken.
        if link.fileno() >= self._descriptor_limit - RESERVED_DESCRIPTORS:
            return "descriptors"
        return None

    async def _connect(self, link: socket.socket, handshake: Handshake) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: handshake, link)
        except Exception as exc:  # noqa: BLE001 -- boundary: one connection
            log.debug("an accepted connection was lost: %s", exc)
            if not handshake.is_started:
                handshake.abandon()
            link.close()

    def _rest(self, exc: OSError) -> None:
        """Nothing can be accepted now; waits a moment, because the socket stays readable and the loop would spin."""
        if exc.errno in (errno.EMFILE, errno.ENFILE):
            self._limits.labels("descriptors").inc()
        log.warning("no connection can be accepted", extra={"error": exc.strerror, "pause_s": PAUSE_S})
        self._stop_reading()
        self._pause = self._loop.call_later(PAUSE_S, self._on_rested)

    def _on_rested(self) -> None:
        self._pause = None
        self._begin_accepting()


def _descriptor_limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft
