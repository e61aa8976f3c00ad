"""The pool of connections to the upstream: handed over at once when one is idle, made when none is."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from sidecar.authz.reasons import Reason
from sidecar.clock import Clock
from sidecar.proxy.errors import UpstreamError, upstream_unreachable
from sidecar.proxy.limits import ProxyLimits
from sidecar.proxy.upstream_connection import UpstreamConnection, UpstreamUser
from sidecar.settings.values import Upstream

log = logging.getLogger(__name__)

RETRY_SHARE: Final = 5
"""One retry for this many calls at most, so that a failing upstream is not buried under its own retries."""
RETRY_BURST: Final = 10

Connect = Callable[[Callable[[], UpstreamConnection]], Awaitable[object]]
"""Opens one connection with the protocol that the argument makes. Raises OSError."""


def build_connect(upstream: Upstream) -> Connect:
    """Connects to ``upstream``. A name, such as ``localhost``, is resolved each time."""

    async def connect(make: Callable[[], UpstreamConnection]) -> object:
        loop = asyncio.get_running_loop()
        if upstream.kind == "unix":
            return await loop.create_unix_connection(make, upstream.path)
        return await loop.create_connection(make, upstream.host, upstream.port)

    return connect


@dataclass(frozen=True, slots=True)
class _Wait:
    until_s: float
    fresh: bool


class UpstreamPool:
    """At most ``max_upstream_connections``; the one used last is used next, so that the surplus can age and go.

    Calls that find none idle wait in order for one to be made or given back: as many as there may be
    connections, beyond those for whom one is being made, and no longer than they would wait for an answer.
    """

    __slots__ = (
        *(
            "_clock",
            "_connect",
            "_connecting",
            "_idle",
            "_is_reachable",
            "_limits",
            "_open",
            "_retried",
            "_taken",
        ),
        "_waits",
    )

    def __init__(self, connect: Connect, limits: ProxyLimits, clock: Clock) -> None:
        self._connect = connect
        self._limits = limits
        self._clock = clock
        self._idle: deque[UpstreamConnection] = deque()
        self._open: set[UpstreamConnection] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._waits: dict[UpstreamUser, _Wait] = {}
        self._is_reachable = True
        self._taken = 0
        self._retried = 0

    @property
    def size(self) -> int:
        """Connections that are open or being made."""
        return len(self._open) + len(self._connecting)

    @property
    def idle_count(self) -> int:
        return len(self._idle)

    @property
    def is_exhausted(self) -> bool:
        """Whether a call that asks now would be refused."""
        waiting = len(self._waits) - len(self._connecting)
        return not self._idle and waiting >= self._limits.max_upstream_connections

    def may_retry(self) -> bool:
        """Whether one more retry stays within :data:`RETRY_SHARE`."""
        return self._retried < RETRY_BURST + self._taken // RETRY_SHARE

    def acquire(self, user: UpstreamUser, *, fresh: bool = False) -> UpstreamConnection | None:
        """An idle connection, now held by ``user``; None if ``user`` will be told. About 1 us when one is idle.

        ``fresh`` is for a retry: it never gets one that has been used. Raises 503 when too many wait already.
        """
        self._taken += 1
        if fresh:
            self._retried += 1
        else:
            idle = self._idle
            while idle:
                connection = idle.pop()
                poll = connection.poll
                if poll is None or not poll.poll(0):
                    connection.user = user
                    connection.uses += 1
                    return connection
                connection.discard()
        self._wait(user, fresh)
        return None

    def cancel(self, user: object) -> None:
        """``user`` waits no longer; nothing happens if it does not wait."""
        self._waits.pop(user, None)  # type: ignore[call-overload]

    def take_back(self, connection: UpstreamConnection) -> None:
        """From a call that is done with it; the next one that waits gets it at once."""
        if self._waits and self._hand_over(connection, is_new=False):
            return
        self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """It is closed; its place is free."""
        self._open.discard(connection)
        if connection.user is None:
            try:
                self._idle.remove(connection)
            except ValueError:
                pass  # it was held, or has just been taken out
        self._fill()

    def sweep(self, now_s: float) -> None:
        """Closes what has been idle too long, and refuses who has waited too long."""
        oldest_s = now_s - self._limits.upstream_idle_timeout_s
        while self._idle and self._idle[0].idle_since_s <= oldest_s:
            self._idle.popleft().discard()
        late = [user for user, wait in self._waits.items() if wait.until_s <= now_s]
        for user in late:
            del self._waits[user]
            user.upstream_refused(overloaded())

    async def close(self) -> None:
        """Ends every connection, also those being made."""
        tasks = list(self._connecting)
        for task in tasks:
            task.cancel()
        self._waits.clear()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in list(self._open):
            connection.discard()

    def _wait(self, user: UpstreamUser, fresh: bool) -> None:
        limits = self._limits
        if len(self._waits) - len(self._connecting) >= limits.max_upstream_connections:
            raise overloaded()
        self._waits[user] = _Wait(self._clock.monotonic_s() + limits.upstream_response_timeout_s, fresh)
        if fresh and self._idle and self.size >= limits.max_upstream_connections:
            self._idle.popleft().discard()
        else:
            self._fill()

    def _fill(self) -> None:
        while len(self._connecting) < len(self._waits) and self.size < self._limits.max_upstream_connections:
            task = asyncio.get_running_loop().create_task(self._make(), name="upstream connection")
            self._connecting.add(task)

    async def _make(self) -> None:
        connection = UpstreamConnection(self, self._limits.max_response_head_bytes)
        trouble: str | None = None
        try:
            async with asyncio.timeout(self._limits.upstream_connect_timeout_s):
                await self._connect(lambda: connection)
        except asyncio.CancelledError:
            connection.discard()
            raise
        except TimeoutError:
            trouble = "no answer in time"
        except OSError as exc:
            trouble = exc.strerror or type(exc).__name__
        except Exception as exc:  # noqa: BLE001 (boundary: whatever it is, a call waits for the answer)
            trouble = type(exc).__name__
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._connecting.discard(task)
        self._note(trouble)
        if trouble is None and connection.is_open:
            self._open.add(connection)
            if not self._hand_over(connection, is_new=True):
                connection.release(self._clock.monotonic_s())
            return
        connection.discard()
        if self._waits:
            user = next(iter(self._waits))
            del self._waits[user]
            user.upstream_refused(unreachable())
        self._fill()

    def _hand_over(self, connection: UpstreamConnection, *, is_new: bool) -> bool:
        for user, wait in self._waits.items():
            if is_new or not wait.fresh:
                del self._waits[user]
                connection.user = user
                connection.uses += 1
                user.upstream_ready(connection)
                return True
        return False

    def _note(self, trouble: str | None) -> None:
        """One line when the upstream stops answering and one when it answers again, not one per call."""
        if (trouble is None) == self._is_reachable:
            return
        self._is_reachable = trouble is None
        if trouble is None:
            log.info("the upstream can be reached again")
        else:
            log.warning("the upstream cannot be reached: %s", trouble)


def unreachable() -> UpstreamError:
    """503: no connection could be made."""
    return upstream_unreachable("the service behind this sidecar cannot be reached")


def overloaded() -> UpstreamError:
    """503: all connections are busy, and as many calls as may wait do, or this one has waited long enough."""
    return UpstreamError(
        503,
        Reason.OVERLOADED,
        "none",
        "all connections to the service are busy",
        limit="upstream_connections",
    )
