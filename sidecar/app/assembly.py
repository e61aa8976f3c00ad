"""The parts of one running sidecar, put together in the order in which they need one another."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import sidecar
from sidecar.admin.server import AdminServer
from sidecar.admin.status import StatusServer
from sidecar.app.bypass import find_bypass, local_addresses
from sidecar.app.current_identity import CurrentIdentity
from sidecar.app.explain import explain
from sidecar.app.grant_events import GrantEvents
from sidecar.app.operations import Operations
from sidecar.app.rules import Rules
from sidecar.app.state import open_state_dir
from sidecar.audit.log import AuditLog, open_log
from sidecar.authz.decide import Authorizer
from sidecar.authz.reasons import Reason
from sidecar.breakglass.store import GrantBook, GrantRules, open_grant_book
from sidecar.clock import Clock
from sidecar.errors import SidecarError
from sidecar.identity.svid import Snapshot
from sidecar.metrics import SidecarMetrics
from sidecar.proxy.inbound import Inbound
from sidecar.proxy.limits import build_limits
from sidecar.proxy.listener import Listener
from sidecar.proxy.upstream import UpstreamPool, build_connect
from sidecar.review.question import parse_question
from sidecar.settings import Settings
from sidecar.sources import SvidSource, load_source
from sidecar.tls.acceptor import Acceptor
from sidecar.tls.refusal import Refusal

log = logging.getLogger(__name__)

HOUSEKEEPING_S = 1.0
JOURNAL = "grants.journal"


class Sidecar:
    """Everything that runs. :meth:`start` makes the parts; :meth:`close` ends them, the last one first.

    The order of start is the order of trust: rules and identity are proven, the log is open and the grants
    are read before anything listens; the data plane's listener opens last.
    """

    rules: Rules
    source: SvidSource
    identity: CurrentIdentity
    audit: AuditLog
    grants: GrantBook
    authorizer: Authorizer
    inbound: Inbound
    listener: Listener
    operations: Operations

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.settings = settings
        self.clock = clock
        self.metrics = SidecarMetrics()
        self.port = settings.listen.port  # the real one once it is open, which it is no more while draining
        self.drain_asked = asyncio.Event()
        self._parts = contextlib.AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_reloading = asyncio.Lock()

    async def start(self) -> None:
        """Returns when calls are served. Raises :class:`SidecarError`, and then nothing is left running."""
        try:
            await self._start()
        except BaseException:
            await self._parts.aclose()
            raise

    async def close(self) -> None:
        """Ends everything. The log comes last but for the identity, so that every ending is in it."""
        await self._parts.aclose()

    async def _start(self) -> None:
        settings, clock, metrics = self.settings, self.clock, self.metrics
        open_state_dir(settings.state_dir)
        self.rules = Rules(settings.policy, settings.break_glass_signers, clock, metrics)
        snapshot = await self._start_source()
        await self._open_audit(snapshot)
        self.identity = CurrentIdentity(snapshot, clock, metrics, self.audit.record)
        await self._open_grants(snapshot)
        self.authorizer = Authorizer(self.rules.policy, self.grants, clock)
        await self._start_data_plane(snapshot)
        await self._start_doors()
        self.source.watch(self.identity.take, self.identity.fail)
        metrics.build_info.labels(sidecar.__version__, _python_version()).set(1)
        await self.listener.start()
        self.port = self.listener.port
        self.operations.is_ready = True
        self._begin("housekeeping", self._keep_house())
        self._begin("bypass", self._look_for_bypass())
        log.info(
            "serving",
            extra={
                "spiffe_id": str(snapshot.svid.spiffe_id),
                "listen": f"{settings.listen.host}:{self.port}",
                "upstream": str(settings.upstream),
                "policy": self.rules.policy.sha256,
            },
        )

    async def _start_source(self) -> Snapshot:
        self.source = load_source(self.settings.identity, self.settings, self.clock)
        self._parts.push_async_callback(self.source.close)
        return await self.source.start()

    async def _open_audit(self, snapshot: Snapshot) -> None:
        self.audit = await open_log(
            self.settings.audit_dir,
            self.settings.state_dir / "audit.key",
            clock=self.clock,
            metrics=self.metrics,
            sinks=self.settings.audit_sinks,
            start={
                "version": sidecar.__version__,
                "spiffe_id": str(snapshot.svid.spiffe_id),
                "serial": snapshot.svid.serial,
                "policy": self.rules.policy.sha256,
            },
        )
        self._parts.push_async_callback(self.audit.close)

    async def _open_grants(self, snapshot: Snapshot) -> None:
        settings = self.settings
        events = GrantEvents(self.metrics)
        self.grants = await open_grant_book(
            settings.state_dir / JOURNAL,
            own_id=snapshot.svid.spiffe_id,
            signers=self.rules.signers,
            rules=GrantRules(settings.break_glass_max_ttl_s, settings.break_glass_approvals),
            clock=self.clock,
            on_event=events,
            at_least_entries=self.audit.recovered_journal_entries,
        )
        events.record_to(self.audit.record)
        self._parts.push_async_callback(self.grants.close)
        self.audit.journal_entries = lambda: self.grants.entries
        self.metrics.grants_active.labels().set_function(lambda: self.grants.active_count)
        self.metrics.grant_expiry.collect(
            lambda: [((name,), end_s) for name, end_s in self.grants.in_force()]
        )

    async def _start_data_plane(self, snapshot: Snapshot) -> None:
        settings, clock = self.settings, self.clock
        limits = build_limits(settings)
        self.inbound = Inbound(
            limits,
            self.authorizer,
            self.grants,
            self.audit,
            self.metrics,
            clock,
            str(snapshot.svid.spiffe_id),
            UpstreamPool(build_connect(settings.upstream), limits, clock),
        )
        self.inbound.start()
        self._parts.push_async_callback(self.inbound.close)
        self.identity.on_bundles = lambda newer: self.inbound.recheck_trust(newer.bundles, clock.now())
        acceptor = Acceptor(
            self.identity.context,
            self.inbound.make_connection,
            self._on_refused,
            settings.handshake_timeout_s,
            self.metrics,
        )
        self.listener = Listener(
            settings.listen.host,
            settings.listen.port,
            acceptor,
            settings.max_connections,
            settings.max_handshakes,
            self.metrics,
        )
        self._parts.push_async_callback(self.listener.close)

    async def _start_doors(self) -> None:
        settings = self.settings
        self.operations = Operations(
            settings,
            self.clock,
            self.identity,
            self.rules,
            self.grants,
            self.audit,
            self.inbound,
            port=lambda: self.port,
            reload=self.reload,
            drain=self.drain_asked.set,
            explain=lambda question: explain(self.authorizer, parse_question(question)),
        )
        admin = AdminServer(settings.admin, settings.admin_group, self.operations)
        status = StatusServer(
            settings.status.host, settings.status.port, self.operations.health, self.metrics.registry.render
        )
        self._parts.push_async_callback(admin.close)
        await admin.start()
        self._parts.push_async_callback(status.close)
        await status.start()

    async def reload(self) -> dict[str, Any]:
        """Reads policy and signers anew, then looks for a new SVID. Raises ProblemsError, and the old ones stay.

        Does nothing while draining: what is open then ends by the rules it began with.
        """
        async with self._is_reloading:
            if self.operations.is_draining:
                return {"reloaded": False, "detail": "draining"}
            changed = await self.rules.reload(self.audit.record)
            self.authorizer.replace_policy(self.rules.policy)
            self.grants.replace_signers(self.rules.signers)
            await self.source.reload()
            return {"reloaded": True, "changed": changed, "policy": self.rules.policy.sha256}

    async def drain(self, stop_waiting: asyncio.Event) -> int:
        """Lets open work end by itself. The number of calls that had to be cut.

        Unready at once; for the delay everything goes on, so that balancers notice; then nothing new is
        accepted, and what is open has until the deadline. ``stop_waiting`` skips what is left of both.
        """
        self.operations.is_draining = True
        self.audit.record("drain", {"delay_s": self.settings.drain_delay_s})
        log.info("draining", extra={"open_calls": self.inbound.open_calls})
        await _wait(stop_waiting, self.settings.drain_delay_s)
        self.listener.stop_accepting()
        self.inbound.begin_drain()
        drained = asyncio.ensure_future(self.inbound.wait_drained(self.settings.drain_deadline_s))
        stopped = asyncio.ensure_future(stop_waiting.wait())
        await asyncio.wait((drained, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not drained.done():
            drained.cancel()
            return self.inbound.cut_all(Reason.DRAINING)
        return drained.result()

    def _begin(self, name: str, story: Any) -> None:
        task = asyncio.get_running_loop().create_task(story, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)
        self._parts.callback(task.cancel)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the task %s failed", task.get_name(), exc_info=error)

    def _on_refused(self, refusal: Refusal) -> None:
        """A refused handshake is no call and has no caller: what the peer claimed is marked as unproven."""
        self.audit.record_handshake(refusal.source, refusal.rule, refusal.detail, refusal.claimed)

    async def _keep_house(self) -> None:
        """Lets time take effect where no call comes by."""
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            try:
                self.grants.settle()
            except SidecarError as exc:
                log.error("grants could not be looked after", extra={"error": str(exc)})

    async def _look_for_bypass(self) -> None:
        upstream = self.settings.upstream
        for address in await find_bypass(upstream, local_addresses()):
            log.warning(
                "the service can be reached around the sidecar: something answers at its port on another address "
                "of this machine; let the service listen on loopback or a Unix socket only",
                extra={"address": address, "port": upstream.port},
            )


async def _wait(event: asyncio.Event, longest_s: float) -> None:
    try:
        async with asyncio.timeout(longest_s):
            await event.wait()
    except TimeoutError:
        pass


def _python_version() -> str:
    import platform

    return platform.python_version()
