"""What has to be on disk before a call may go on: a grant's use, and the `open` line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sidecar.authz.call import Verdict
from sidecar.authz.reasons import Reason
from sidecar.errors import OrderRefused, SidecarError
from sidecar.proxy.context import ProxyContext

Opened = Callable[[Reason | None], None]
"""Called once: with None when everything is on disk, else with the reason to refuse the call."""


def open_durably(
    context: ProxyContext, verdict: Verdict, call_id: str, write_open: Callable[[], None], done: Opened
) -> None:
    """Begins both writes at once and calls ``done`` when both are on disk or one cannot be.

    The use is reserved before anything else happens, so that calls side by side cannot take the same last
    one. If none is left, the denial that the grant had lifted stands again.
    """
    opening = _Opening(done, 1 if verdict.grant is None else 2)
    if verdict.grant is not None:
        try:
            use = context.grants.record_use(verdict.grant, call_id)
        except OrderRefused:
            opening.settle(Reason(verdict.lifted[0]) if verdict.lifted else Reason.SCOPE)
            return
        except SidecarError:
            opening.settle(Reason.AUDIT_UNAVAILABLE)
            return
        use.add_done_callback(opening.on_use)
    write_open()
    context.audit.when_durable(opening.on_durable)


class _Opening:
    __slots__ = ("_done", "_waits")

    def __init__(self, done: Opened, waits: int) -> None:
        self._done: Opened | None = done
        self._waits = waits

    def on_use(self, use: asyncio.Future[None]) -> None:
        self.on_durable(not use.cancelled() and use.exception() is None)

    def on_durable(self, is_durable: bool) -> None:
        self._waits -= 1
        if not is_durable:
            self.settle(Reason.AUDIT_UNAVAILABLE)
        elif not self._waits:
            self.settle(None)

    def settle(self, reason: Reason | None) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(reason)
