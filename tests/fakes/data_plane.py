"""The data plane in memory: a judge, a log and grants that do as the test says, callers and a service made of
bytes."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace

from sidecar.audit.record import Caller, Decision, Intent, Outcome
from sidecar.authz.call import Call, Verdict
from sidecar.authz.reasons import Reason
from sidecar.errors import OrderRefused
from sidecar.identity.peer import Peer
from sidecar.identity.spiffe_id import parse_spiffe_id
from sidecar.metrics import SidecarMetrics
from sidecar.proxy.connection import Connection
from sidecar.proxy.inbound import Inbound
from sidecar.proxy.limits import ProxyLimits
from sidecar.proxy.upstream import UpstreamPool
from sidecar.proxy.upstream_connection import UpstreamConnection
from tests.fakes.clock import FakeClock
from tests.fakes.transports import FakeTransport

OWN_ID = "spiffe://demo.test/orders"
WEB = "spiffe://demo.test/web"
ALLOW = Verdict("allow", "policy", "sha256:0", "rule 1", "/**", "all", "team", "service", until_s=4e9)
DENY = Verdict("deny", "scope", "sha256:0", owner="team", kind="service", detail="no scope permits it")
GRANTED = replace(ALLOW, reason="grant", grant="g1", lifted=("scope",))
NEVER_S = 4e9


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the log, as it was handed over."""

    event: str
    call_id: str
    caller: Caller
    intent: Intent
    decision: Decision
    outcome: Outcome | None
    trace: str


class FakeAudit:
    """Keeps lines. They become durable when the test says :meth:`settle`, or at once in the next turn."""

    def __init__(self) -> None:
        self.available = True
        self.unrecorded = 0
        self.lines: list[Line] = []
        self.sums_denials = False
        self.waiting: list[Callable[[bool], None]] = []

    def record_call(
        self,
        call_id: str,
        wall_s: float,
        caller: Caller,
        intent: Intent,
        decision: Decision,
        outcome: Outcome | None,
        trace: str,
        *,
        is_open: bool = False,
    ) -> None:
        assert is_open == (outcome is None)
        self.lines.append(
            Line("open" if is_open else "call", call_id, caller, intent, decision, outcome, trace)
        )

    def count_unrecorded(self) -> None:
        self.unrecorded += 1

    def record_denial(
        self,
        call_id: str,
        wall_s: float,
        caller: Caller,
        intent: Intent,
        decision: Decision,
        outcome: Outcome,
        trace: str,
    ) -> bool:
        assert decision.effect == "deny"
        self.record_call(call_id, wall_s, caller, intent, decision, outcome, trace)
        return not self.sums_denials

    def when_durable(self, done: Callable[[bool], None]) -> None:
        self.waiting.append(done)

    def settle(self, is_durable: bool = True) -> None:
        """Everything recorded so far is on disk, or never will be."""
        waiting, self.waiting = self.waiting, []
        for done in waiting:
            done(is_durable)


class FakeJudge:
    """Gives ``verdict`` (or the exception, or what the function says) and remembers what it was asked."""

    def __init__(self, verdict: Verdict | Exception | Callable[[Call], Verdict] = ALLOW) -> None:
        self.generation = 1
        self.verdict = verdict
        self.review_reason: Reason | None = None
        self.calls: list[Call] = []
        self.reviews = 0

    def decide(self, call: Call) -> Verdict:
        self.calls.append(call)
        if isinstance(self.verdict, Verdict):
            return self.verdict
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict(call)

    def review(self, call: Call, verdict: Verdict) -> Reason | None:
        self.reviews += 1
        return self.review_reason


class FakeGrants:
    """Reserves uses while there are some; the test makes them durable."""

    def __init__(self) -> None:
        self.left = 1
        self.error: Exception | None = None
        self.uses: list[tuple[str, str]] = []
        self.futures: list[asyncio.Future[None]] = []

    def record_use(self, grant_id: str, call_id: str) -> asyncio.Future[None]:
        if self.error is not None:
            raise self.error
        if not self.left:
            raise OrderRefused("used-up", "no use is left")
        self.left -= 1
        self.uses.append((grant_id, call_id))
        future = asyncio.get_running_loop().create_future()
        self.futures.append(future)
        return future


class Service:
    """The upstream: each connection of the pool's is a :class:`FakeTransport` in ``links``."""

    def __init__(self) -> None:
        self.links: list[FakeTransport] = []
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def connect(self, make: Callable[[], UpstreamConnection]) -> object:
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        protocol = make()
        link = FakeTransport(protocol)
        self.links.append(link)
        protocol.connection_made(link)  # type: ignore[arg-type]
        return link

    @property
    def link(self) -> FakeTransport:
        """The newest connection."""
        return self.links[-1]


class DataPlane:
    """An :class:`Inbound` with everything around it made of memory. Use inside a running loop."""

    def __init__(
        self,
        verdict: Verdict | Exception | Callable[[Call], Verdict] = ALLOW,
        limits: ProxyLimits | None = None,
    ) -> None:
        self.limits = limits or ProxyLimits()
        self.clock = FakeClock()
        self.judge = FakeJudge(verdict)
        self.grants = FakeGrants()
        self.audit = FakeAudit()
        self.metrics = SidecarMetrics()
        self.service = Service()
        self.pool = UpstreamPool(self.service.connect, self.limits, self.clock)
        self.inbound = Inbound(
            self.limits, self.judge, self.grants, self.audit, self.metrics, self.clock, OWN_ID, self.pool
        )

    def caller(
        self, *, not_after_s: float = NEVER_S, own_not_after_s: float = NEVER_S, chain: Sequence[bytes] = ()
    ) -> FakeTransport:
        """A new connection of a proven caller."""
        connection: Connection = self.inbound.make_connection()
        transport = FakeTransport(connection)
        transport.peer_chain = tuple(chain)
        transport.own_not_after_s = own_not_after_s
        connection.connection_secured(transport, make_peer(not_after_s))
        return transport

    async def warm_caller(self) -> FakeTransport:
        """A new caller, with an idle connection to the service in the pool."""
        caller = self.caller()
        caller.feed(GET)
        await turn()
        assert self.service.link.take()
        self.service.link.feed(OK)
        assert caller.take().startswith(b"HTTP/1.1 200 ")
        self.audit.lines.clear()
        return caller

    def advance(self, seconds: float, step_s: float = 0.25) -> None:
        """Time passes, with a sweep at every step."""
        while seconds > 0:
            self.clock.advance(min(step_s, seconds))
            seconds -= step_s
            self.inbound.sweep()

    def line(self) -> Line:
        """The one line there is."""
        assert len(self.audit.lines) == 1, self.audit.lines
        return self.audit.lines[0]

    def struck(self, limit: str) -> float:
        """How often a limit struck."""
        return self.metrics.limits.labels(limit).value


def make_peer(not_after_s: float = NEVER_S, id_text: str = WEB) -> Peer:
    return Peer(parse_spiffe_id(id_text), id_text, "5f0c", "ab" * 32, not_after_s, "10.0.4.7", 1)


async def turn(count: int = 5) -> None:
    """Lets the loop do what is ready."""
    for _ in range(count):
        await asyncio.sleep(0)


GET = b"GET /orders/42 HTTP/1.1\r\nHost: orders.test\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def in_memory(test: Callable[..., Coroutine[None, None, None]]) -> Callable[..., None]:
    """Runs an async test on a loop of its own; no task may be left over."""

    @functools.wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        async def story() -> None:
            await test(*args, **kwargs)
            await turn()
            assert asyncio.all_tasks() == {asyncio.current_task()}, "a task is left over"

        async def main() -> None:
            async with asyncio.timeout(10):
                await story()

        asyncio.run(main())

    return run
