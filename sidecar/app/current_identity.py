"""The identity in force: the newest good snapshot, and the TLS context made from it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from sidecar.audit.record import Record
from sidecar.clock import Clock, rfc3339
from sidecar.errors import SidecarError, UnavailableError
from sidecar.identity.bundle import Bundle
from sidecar.identity.svid import Snapshot
from sidecar.metrics import SidecarMetrics
from sidecar.tls.context import ServerContext, build_server_context

log = logging.getLogger(__name__)


class CurrentIdentity:
    """Takes snapshots from a source; hands out the context for new handshakes while the own SVID lasts.

    ``record`` writes an audit event, ``on_bundles`` hears of bundles that are not the ones before, so that
    open connections can be judged anew.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        clock: Clock,
        metrics: SidecarMetrics,
        record: Record,
        on_bundles: Callable[[Snapshot], None] = lambda snapshot: None,
    ) -> None:
        self._clock = clock
        self._metrics = metrics
        self._record = record
        self.on_bundles = on_bundles
        self._context = build_server_context(snapshot, clock)
        self.snapshot = snapshot
        self.trouble: str | None = None
        metrics.svid_not_after.labels().set(snapshot.svid.not_after.timestamp())
        metrics.bundle_not_after.collect(self._bundle_ends)

    @property
    def not_after(self) -> datetime:
        """The own SVID's end."""
        return self.snapshot.svid.not_after

    def is_fit(self) -> bool:
        """Whether the own SVID still holds, to the second."""
        return self._clock.wall_s() < self.not_after.timestamp()

    def context(self) -> ServerContext:
        """The context for one new handshake. :class:`UnavailableError` once the own SVID has ended."""
        if not self.is_fit():
            raise UnavailableError(f"the own SVID ended at {rfc3339(self.not_after)}")
        return self._context

    def take(self, snapshot: Snapshot) -> None:
        """Puts ``snapshot`` in force if a context can be made from it, else keeps what is."""
        try:
            context = build_server_context(snapshot, self._clock)
        except SidecarError as exc:
            self.fail(exc)
            return
        before, self.snapshot, self._context = self.snapshot, snapshot, context
        self.trouble = None
        svid = snapshot.svid
        self._metrics.svid_rotations.labels("ok").inc()
        self._metrics.svid_not_after.labels().set(svid.not_after.timestamp())
        self._record("svid", {"result": "ok", **describe(snapshot)})
        log.info("SVID taken over", extra={"serial": svid.serial, "not_after": rfc3339(svid.not_after)})
        if before.bundles != snapshot.bundles:
            self.on_bundles(snapshot)

    def fail(self, error: SidecarError) -> None:
        """A source could not give a new snapshot: the last good one stays, until its own end."""
        self.trouble = str(error)
        self._metrics.svid_rotations.labels("failed").inc()
        self._record("svid", {"result": "failed", "error": str(error), **describe(self.snapshot)})
        log.warning(
            "the SVID could not be renewed; the last good one stays in force",
            extra={"error": str(error), "not_after": rfc3339(self.not_after)},
        )

    def _bundle_ends(self) -> list[tuple[tuple[str], float]]:
        return [
            ((name,), end) for name, bundle in self.snapshot.bundles.items() if (end := _end_s(bundle)) > 0
        ]


def describe(snapshot: Snapshot) -> dict[str, object]:
    """A snapshot as records and ``sidecar status`` show it; JSON's types."""
    return {
        "spiffe_id": str(snapshot.svid.spiffe_id),
        "serial": snapshot.svid.serial,
        "not_after": rfc3339(snapshot.svid.not_after),
        "generation": snapshot.generation,
        "bundles": {name: len(bundle.authorities) for name, bundle in snapshot.bundles.items()},
    }


def _end_s(bundle: Bundle) -> float:
    return max((each.not_valid_after_utc.timestamp() for each in bundle.authorities), default=0.0)
