"""What every connection of the data plane shares, and the ports through which it asks its neighbours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from sidecar.audit.record import Caller, Decision, Intent, Outcome
from sidecar.authz.call import Call, Verdict
from sidecar.authz.reasons import Reason
from sidecar.clock import Clock
from sidecar.proxy.accounts import Accounts
from sidecar.proxy.head import HeadLimits
from sidecar.proxy.limits import ProxyLimits
from sidecar.proxy.request_id import RequestIds
from sidecar.proxy.upstream import UpstreamPool


class Judge(Protocol):
    """The one decision; :class:`sidecar.authz.decide.Authorizer`."""

    @property
    def generation(self) -> int: ...

    def decide(self, call: Call) -> Verdict: ...

    def review(self, call: Call, verdict: Verdict) -> Reason | None: ...


class GrantUses(Protocol):
    """Where a grant's use is reserved at once and made durable soon; the grant book."""

    def record_use(self, grant_id: str, call_id: str) -> asyncio.Future[None]: ...


class Audit(Protocol):
    """The log of calls; :class:`sidecar.audit.log.AuditLog`."""

    @property
    def available(self) -> bool: ...

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
    ) -> None: ...

    def record_denial(
        self,
        call_id: str,
        wall_s: float,
        caller: Caller,
        intent: Intent,
        decision: Decision,
        outcome: Outcome,
        trace: str,
    ) -> bool: ...

    def count_unrecorded(self) -> None: ...

    def when_durable(self, done: Callable[[bool], None]) -> None: ...


@dataclass(slots=True)
class ProxyContext:
    """Services, limits and the little state that is common to all connections."""

    limits: ProxyLimits
    head_limits: HeadLimits
    judge: Judge
    grants: GrantUses
    audit: Audit
    accounts: Accounts
    pool: UpstreamPool
    clock: Clock
    own_id: str
    ids: RequestIds = field(default_factory=RequestIds)
    is_draining: bool = False
    open_calls: int = 0
