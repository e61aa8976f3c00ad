"""Every reason a call may be refused for: the closed set, and the page that explains it. Pure."""

from __future__ import annotations

from enum import Enum, StrEnum


class Group(Enum):
    """Whose matter a reason is."""

    DECISION = "the decision"
    MESSAGE = "the message"
    SERVICE = "the service or the sidecar"


class Reason(StrEnum):
    """Reason codes. They go into answers, records and metrics, and never change their meaning."""

    UNKNOWN_IDENTITY = "unknown-identity"
    IDENTITY_EXPIRED = "identity-expired"
    SVID_EXPIRED = "svid-expired"
    UNTRUSTED = "untrusted"
    LOCKED = "locked"
    SCOPE = "scope"
    RULE = "rule"
    PURPOSE = "purpose"
    TASK_REQUIRED = "task-required"
    TASK_INVALID = "task-invalid"
    TASK_BINDING = "task-binding"
    TASK_REVOKED = "task-revoked"
    TASK_SCOPE = "task-scope"
    RATE = "rate"
    TASK_BUDGET = "task-budget"
    BROWNOUT = "brownout"
    POLICY_UNAVAILABLE = "policy-unavailable"
    AUDIT_UNAVAILABLE = "audit-unavailable"
    MALFORMED = "malformed"
    METHOD = "method"
    MISDIRECTED = "misdirected"
    EXPECTATION = "expectation"
    TOO_LARGE = "too-large"
    TIMEOUT = "timeout"
    UPSTREAM_UNREACHABLE = "upstream-unreachable"
    UPSTREAM_IDENTITY = "upstream-identity"
    UPSTREAM_INVALID = "upstream-invalid"
    UPSTREAM_TIMEOUT = "upstream-timeout"
    DESTINATION = "destination"
    OVERLOADED = "overloaded"
    DRAINING = "draining"
    INTERNAL = "internal"


LIFTABLE = frozenset({Reason.SCOPE, Reason.PURPOSE, Reason.TASK_REQUIRED, Reason.POLICY_UNAVAILABLE})
"""What a break-glass grant may lift, and nothing else."""


def render_reasons() -> str:
    """The reader's tables, Markdown; ends with a newline."""
    raise NotImplementedError
