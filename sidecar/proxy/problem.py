"""The answers that the sidecar makes itself: problem documents (RFC 9457). Pure.

They say which reason, and under which id the record is found. They never say policy text, addresses of the
upstream, or anything that the caller sent.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import msgspec

from sidecar.authz.reasons import Reason
from sidecar.proxy.head import METHODS

TITLES: Final = {
    Reason.UNKNOWN_IDENTITY: "The caller is not registered here",
    Reason.IDENTITY_EXPIRED: "The caller's registration has ended",
    Reason.SVID_EXPIRED: "The caller's certificate has ended",
    Reason.UNTRUSTED: "The caller's trust domain is not trusted any more",
    Reason.LOCKED: "The caller is locked",
    Reason.SCOPE: "No scope of the caller permits this call",
    Reason.RULE: "A rule forbids this call",
    Reason.PURPOSE: "The caller may not call for this purpose",
    Reason.TASK_REQUIRED: "The caller needs a task token",
    Reason.TASK_INVALID: "The task token is not valid",
    Reason.TASK_BINDING: "The task token belongs to another caller",
    Reason.TASK_REVOKED: "The task has been revoked",
    Reason.TASK_SCOPE: "The task does not cover this call",
    Reason.RATE: "The caller calls too often",
    Reason.TASK_BUDGET: "The task's budget is used up",
    Reason.BROWNOUT: "The caller's access is being withdrawn",
    Reason.POLICY_UNAVAILABLE: "Policy cannot be asked",
    Reason.AUDIT_UNAVAILABLE: "The audit log cannot be written",
    Reason.MALFORMED: "The request cannot be understood in one way only",
    Reason.METHOD: "The method is not served here",
    Reason.MISDIRECTED: "The host is not served here",
    Reason.EXPECTATION: "The expectation cannot be met",
    Reason.TOO_LARGE: "The request is too large",
    Reason.TIMEOUT: "The request took too long",
    Reason.UPSTREAM_UNREACHABLE: "The service cannot be reached",
    Reason.UPSTREAM_IDENTITY: "The service shows the wrong identity",
    Reason.UPSTREAM_INVALID: "The service's answer cannot be understood",
    Reason.UPSTREAM_TIMEOUT: "The service is too slow",
    Reason.DESTINATION: "The destination is not known",
    Reason.OVERLOADED: "Too many calls at once",
    Reason.DRAINING: "This instance is shutting down",
    Reason.INTERNAL: "The sidecar failed; the call was refused",
}
_PHRASES: Final = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}
_ALLOW: Final = ", ".join(METHODS.values())


class _Document(msgspec.Struct):
    """The members, in the order in which they are written."""

    type: str
    title: str
    status: int
    reason: str
    request_id: str
    detail: str


def render_problem(
    status: int,
    reason: Reason,
    detail: str,
    request_id: str,
    *,
    close: bool,
    head_only: bool = False,
    retry_after_s: int | None = None,
    allow: str | None = None,
) -> tuple[bytes, int]:
    """(the whole answer, the number of body bytes in it). About 3 us.

    ``head_only`` answers a HEAD request: the length is told and the body left out. A 405 always says what is
    allowed (RFC 9110 15.5.6); ``allow`` narrows it. ``detail`` is one sentence of ours, which never quotes
    the caller.
    """
    body = msgspec.json.encode(
        _Document(
            f"urn:sidecar:problem:{reason.value}", TITLES[reason], status, reason.value, request_id, detail
        )
    )
    lines = [
        b"HTTP/1.1 %d %b" % (status, _PHRASES.get(status, b"")),
        b"content-type: application/problem+json",
        b"content-length: %d" % len(body),
        b"cache-control: no-store",
        b"sidecar-reason: " + reason.value.encode("ascii"),
        b"x-request-id: " + request_id.encode("ascii"),
    ]
    if retry_after_s is not None:
        lines.append(b"retry-after: %d" % max(1, retry_after_s))
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append(b"allow: " + (allow or _ALLOW).encode("ascii"))
    if close:
        lines.append(b"connection: close")
    lines.append(b"\r\n")
    head = b"\r\n".join(lines)
    return (head, 0) if head_only else (head + body, len(body))
