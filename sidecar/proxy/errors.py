"""What can be wrong with a message or an upstream, as exceptions that carry the answer's reason. Pure."""

from __future__ import annotations

from sidecar.authz.reasons import Reason
from sidecar.errors import SidecarError


class MessageError(SidecarError):
    """The caller's message is refused: status, reason code, one sentence. The connection closes after it.

    ``detail`` is shown to the caller, so it never quotes the input. ``limit`` names the limit that struck, if
    one did.
    """

    __slots__ = ("detail", "limit", "reason", "status")

    def __init__(self, status: int, reason: Reason, detail: str, *, limit: str | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail
        self.limit = limit


def malformed(detail: str) -> MessageError:
    """400: the message is ambiguous or not HTTP."""
    return MessageError(400, Reason.MALFORMED, detail)


def too_large(status: int, detail: str, limit: str) -> MessageError:
    """413, 414 or 431 (400 inside a body): the limit called ``limit`` struck."""
    return MessageError(status, Reason.TOO_LARGE, detail, limit=limit)


class UpstreamError(SidecarError):
    """The upstream failed this call: what the caller gets, and what the record's outcome calls it.

    ``limit`` names the limit that struck, if one did.
    """

    __slots__ = ("detail", "limit", "outcome", "reason", "status")

    def __init__(
        self, status: int, reason: Reason, outcome: str, detail: str, *, limit: str | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.outcome = outcome
        self.detail = detail
        self.limit = limit


def upstream_invalid(detail: str, limit: str | None = None) -> UpstreamError:
    """502: the upstream sent what cannot be relayed without guessing."""
    return UpstreamError(502, Reason.UPSTREAM_INVALID, "invalid", detail, limit=limit)


def upstream_unreachable(detail: str) -> UpstreamError:
    """503: no connection to the upstream."""
    return UpstreamError(503, Reason.UPSTREAM_UNREACHABLE, "unreachable", detail)


def upstream_timeout(detail: str) -> UpstreamError:
    """504: the upstream is too slow."""
    return UpstreamError(504, Reason.UPSTREAM_TIMEOUT, "timeout", detail)
