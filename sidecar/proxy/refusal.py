"""A call that the sidecar answers itself, before anything of it has gone on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sidecar.audit.record import Caller, Decision, Intent
from sidecar.authz.reasons import Reason

_STATUSES: Final = {
    Reason.RATE: 429,
    Reason.AUDIT_UNAVAILABLE: 503,
    Reason.POLICY_UNAVAILABLE: 503,
    Reason.OVERLOADED: 503,
    Reason.DRAINING: 503,
    Reason.INTERNAL: 503,
}


def status_of(reason: Reason) -> int:
    """The status of a denial: 403 but for those that the caller may try again."""
    return _STATUSES.get(reason, 403)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is answered and what is recorded.

    ``close`` ends the connection after the answer; ``is_bad_message`` says that what follows cannot be read
    as HTTP. ``started_s`` is monotonic, ``wall_s`` the record's time; ``received`` counts body bytes;
    ``limit`` is the one that struck.
    """

    call_id: str
    wall_s: float
    started_s: float
    status: int
    reason: Reason
    detail: str
    caller: Caller
    intent: Intent
    decision: Decision
    trace: str
    close: bool
    is_bad_message: bool = False
    received: int = 0
    retry_after_s: int | None = None
    limit: str | None = None
