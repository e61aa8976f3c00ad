"""What the admin socket can ask of the running sidecar."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from sidecar import __version__
from sidecar.admin.health import Check, Health, Probe
from sidecar.admin.peercred import PeerCred
from sidecar.app.current_identity import CurrentIdentity, describe
from sidecar.app.rules import Rules
from sidecar.audit.log import AuditLog
from sidecar.breakglass.store import GrantBook
from sidecar.clock import Clock, rfc3339
from sidecar.settings import Settings


class Traffic(Protocol):
    """The data plane, as far as the operator asks about it."""

    @property
    def connections(self) -> int: ...

    @property
    def open_calls(self) -> int: ...


class Operations:
    """Answers for :class:`sidecar.admin.server.AdminServer`; each operation leaves an ``admin`` record."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        identity: CurrentIdentity,
        rules: Rules,
        grants: GrantBook,
        audit: AuditLog,
        traffic: Traffic,
        *,
        port: Callable[[], int],
        reload: Callable[[], Awaitable[dict[str, Any]]],
        drain: Callable[[], None],
        explain: Callable[[bytes], dict[str, Any]],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._identity = identity
        self._rules = rules
        self._grants = grants
        self._audit = audit
        self._traffic = traffic
        self._port = port
        self._reload = reload
        self._drain = drain
        self._explain = explain
        self._began_s = clock.monotonic_s()
        self.is_ready = False
        self.is_draining = False

    def status(self) -> dict[str, Any]:
        """Everything an operator asks first; no secret among it."""
        policy = self._rules.policy
        return {
            "spiffe_id": str(self._identity.snapshot.svid.spiffe_id),
            "version": __version__,
            "pid": os.getpid(),
            "uptime_s": round(self._clock.monotonic_s() - self._began_s),
            "ready": self.health("readyz").ok,
            "draining": self.is_draining,
            "listen": f"{self._settings.listen.host}:{self._port()}",
            "upstream": str(self._settings.upstream),
            "svid": {**describe(self._identity.snapshot), "trouble": self._identity.trouble},
            "policy": {
                "file": str(self._settings.policy),
                "sha256": policy.sha256,
                "loaded_at": rfc3339(self._rules.loaded_at),
                "identities": len(policy.identities),
            },
            "break_glass": {
                "signers": len(self._rules.signers.names),
                "approvals": self._settings.break_glass_approvals,
                "grants_in_force": self._grants.active_count,
                "entries": self._grants.entries,
            },
            "audit": {
                "directory": str(self._settings.audit_dir),
                "available": self._audit.available,
                "lines": self._audit.seq,
            },
            "connections": self._traffic.connections,
            "open_calls": self._traffic.open_calls,
        }

    def grants(self) -> list[dict[str, Any]]:
        """Every grant that is known, ended ones included while they are remembered."""
        return self._grants.listing()

    def explain(self, question: bytes) -> dict[str, Any]:
        """What would become of a call now. Raises ConfigurationError when ``question`` is none."""
        return self._explain(question)

    async def submit_order(self, data: bytes, peer: PeerCred) -> dict[str, Any]:
        """Judges a signed order. Raises OrderRefused; who handed it in changes nothing but the record."""
        self._record("order", peer, bytes=len(data))
        return await self._grants.submit_order(data)

    async def reload(self, peer: PeerCred) -> dict[str, Any]:
        """Reads policy, signers and SVID anew. Raises ProblemsError; what was in force then stays so."""
        self._record("reload", peer)
        return await self._reload()

    async def drain(self, peer: PeerCred) -> dict[str, Any]:
        """Begins to drain, as SIGTERM does."""
        self._record("drain", peer)
        self._drain()
        return {
            "draining": True,
            "delay_s": self._settings.drain_delay_s,
            "deadline_s": self._settings.drain_deadline_s,
        }

    def health(self, kind: Probe) -> Health:
        """``livez``: the loop answers. ``readyz``: calls would be served."""
        if kind == "livez":
            return Health((Check("loop", True),))
        return Health(
            (
                Check("started", self.is_ready, "the listener is not open"),
                Check("identity", self._identity.is_fit(), "the own SVID has ended"),
                Check("audit", self._audit.available, "the audit log cannot be written"),
                Check("not-draining", not self.is_draining, "it drains"),
            )
        )

    def _record(self, operation: str, peer: PeerCred, **more: object) -> None:
        self._audit.record("admin", {"operation": operation, "uid": peer.uid, "pid": peer.pid, **more})
