"""The deadlines of one open call, as one question that the sweep asks. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sidecar.proxy.limits import ProxyLimits


class Late(Enum):
    """Who is late."""

    CALLER = "caller"
    UPSTREAM = "upstream"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a call has come; times are monotonic.

    ``active_s`` is when the last body byte moved, either way; ``forwarded_s`` when the request was complete
    upstream, None before; ``waits_for_caller`` says whose byte is next.
    """

    started_s: float
    active_s: float
    forwarded_s: float | None
    has_answer: bool
    is_streaming: bool
    waits_for_caller: bool


def find_overdue(progress: Progress, limits: ProxyLimits, now_s: float) -> tuple[str, Late] | None:
    """The limit that a call has run into and who is to blame, or None."""
    late = Late.CALLER if progress.waits_for_caller else Late.UPSTREAM
    if not progress.is_streaming and now_s - progress.started_s >= limits.request_timeout_s:
        return "request_timeout", late
    if now_s - progress.active_s >= limits.stream_idle_timeout_s:
        return "stream_idle_timeout", late
    if (
        progress.forwarded_s is not None
        and not progress.has_answer
        and now_s - progress.forwarded_s >= limits.upstream_response_timeout_s
    ):
        return "upstream_response_timeout", Late.UPSTREAM
    return None
