"""The inbound data plane: its connections, the sweep over them, and its orderly end."""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import datetime

from sidecar.authz.reasons import Reason
from sidecar.clock import Clock
from sidecar.identity.bundle import Bundles
from sidecar.metrics import SidecarMetrics
from sidecar.proxy.accounts import Accounts
from sidecar.proxy.connection import Connection
from sidecar.proxy.context import Audit, GrantUses, Judge, ProxyContext
from sidecar.proxy.head import HeadLimits
from sidecar.proxy.limits import SWEEP_S, ProxyLimits
from sidecar.proxy.trust import TrustCheck
from sidecar.proxy.upstream import UpstreamPool

log = logging.getLogger(__name__)


class Inbound:
    """Makes a :class:`Connection` for each accepted socket and looks after all of them.

    ``start`` begins the sweep, four times a second; everything that depends on time is done there.
    """

    def __init__(
        self,
        limits: ProxyLimits,
        judge: Judge,
        grants: GrantUses,
        audit: Audit,
        metrics: SidecarMetrics,
        clock: Clock,
        own_id: str,
        pool: UpstreamPool,
    ) -> None:
        head_limits = HeadLimits(
            limits.max_request_line_bytes, limits.max_header_bytes, limits.max_header_fields
        )
        self._context = ProxyContext(
            limits, head_limits, judge, grants, audit, Accounts(metrics), pool, clock, own_id
        )
        self._clock = clock
        self._pool = pool
        self._connections: set[Connection] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._trust: TrustCheck | None = None
        self._empty: asyncio.Event | None = None
        self._generation = judge.generation

    @property
    def connections(self) -> int:
        """Open connections whose handshake is finished."""
        return len(self._connections)

    @property
    def open_calls(self) -> int:
        """Permitted calls that have not ended."""
        return self._context.open_calls

    @property
    def is_draining(self) -> bool:
        return self._context.is_draining

    def make_connection(self) -> Connection:
        """For the acceptor, one per socket."""
        return Connection(self._context, self)

    def start(self) -> None:
        """Begins the sweep on the running loop."""
        self._plan_sweep()

    async def close(self) -> None:
        """Ends the sweep, every connection that is left, and the pool."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._trust is not None:
            self._trust.cancel()
        self.cut_all(Reason.DRAINING)
        await self._pool.close()

    def connection_opened(self, connection: Connection) -> None:
        """From the connection, once its handshake is finished."""
        self._connections.add(connection)

    def connection_closed(self, connection: Connection) -> None:
        """From the connection, when it is lost."""
        self._connections.discard(connection)
        if not self._connections and self._empty is not None:
            self._empty.set()

    def sweep(self) -> None:
        """Whatever is due by now: on connections, on open calls, in the pool. 0.1 us per connection with
        nothing due."""
        clock = self._clock
        now_s, wall_s, boot_s = clock.monotonic_s(), clock.wall_s(), clock.boottime_s()
        generation = self._context.judge.generation
        review = generation != self._generation
        self._generation = generation
        due = [connection for connection in self._connections if connection.next_check_s <= now_s]
        for connection in due:
            try:
                connection.check(now_s, wall_s, boot_s, review=review)
            except Exception:
                log.exception("a connection could not be checked")
                connection.cut(Reason.INTERNAL)
        self._pool.sweep(now_s)

    def recheck_trust(self, bundles: Bundles, now: datetime) -> None:
        """After a change of bundles: whoever would not be let in any more is cut, within a second.

        Judged in small portions, so that calls go on in between; a later change begins anew.
        """
        if self._trust is not None:
            self._trust.cancel()
        self._trust = TrustCheck(bundles, now, list(self._connections))
        self._trust.start()

    def begin_drain(self) -> None:
        """From now on answers announce the end of their connection, and idle connections are closed."""
        self._context.is_draining = True
        for connection in list(self._connections):
            connection.drain()

    async def wait_drained(self, deadline_s: float) -> int:
        """Waits ``deadline_s`` seconds at most for the last connection, then cuts. The number of calls that
        were cut."""
        self._empty = asyncio.Event()
        if self._connections:
            try:
                async with asyncio.timeout(deadline_s):
                    await self._empty.wait()
            except TimeoutError:
                pass
        return self.cut_all(Reason.DRAINING)

    def cut_all(self, reason: Reason) -> int:
        """Ends every connection and every open call for ``reason``; the number of calls."""
        calls = self.open_calls
        for connection in list(self._connections):
            try:
                connection.end(reason)
            except Exception:
                log.exception("a connection could not be ended")
        return calls

    def _plan_sweep(self) -> None:
        # Jittered, so that many sidecars that were started together do not act together.
        delay_s = SWEEP_S * random.uniform(0.9, 1.0)  # noqa: S311 (not a secret)
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_timer)

    def _on_timer(self) -> None:
        self._plan_sweep()
        self.sweep()
