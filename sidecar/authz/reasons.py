"""Every reason a call may be refused for: the closed set, and the page that explains it. Pure."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Final, NamedTuple


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


class Row(NamedTuple):
    """One line of the page. ``who``: who sees the code. Empty ``status``: there is no HTTP answer."""

    group: Group
    who: str
    status: str
    meaning: str
    remedy: str


_D, _M, _S = Group.DECISION, Group.MESSAGE, Group.SERVICE

# fmt: off
ROWS: Final[dict[Reason, Row]] = {
    Reason.UNKNOWN_IDENTITY: Row(
        _D, "caller", "403",
        "The certificate is good, but its SPIFFE ID is not in the policy.",
        "Compare `caller.id` of the record with the policy; `sidecar explain --as ID METHOD PATH`. "
        "Register it, with an owner. No grant lifts this.",
    ),
    Reason.IDENTITY_EXPIRED: Row(
        _D, "caller", "403",
        "The identity's `expires` in the policy has passed.",
        "Ask its owner whether it is still needed, then renew `expires` and reload. No grant lifts this.",
    ),
    Reason.SVID_EXPIRED: Row(
        _D, "caller", "403",
        "The caller's certificate ended while its connection was open.",
        "The caller does not renew its SVID or goes on using an old connection: look at its SPIFFE agent. "
        "Check both clocks.",
    ),
    Reason.UNTRUSTED: Row(
        _D, "log, metric", "",
        "The handshake was refused: no certificate, or one that the bundle of its own trust domain does "
        "not prove. The caller sees a TLS alert.",
        "The record `handshake` names the rule that failed and what the peer claimed (unverified). Usual "
        "causes: an old bundle here, an expired certificate there, another trust domain.",
    ),
    Reason.LOCKED: Row(
        _D, "caller", "403",
        "Not given yet: a lock is in force for this identity or service.",
        "Locks are not built yet.",
    ),
    Reason.SCOPE: Row(
        _D, "caller", "403",
        "No rule of the identity's scopes permits this method on this path.",
        "`sidecar explain` names the scopes that would. Change the policy and reload; in an emergency a "
        "break-glass grant opens it, unless a scope with `never_override` covers the call.",
    ),
    Reason.RULE: Row(
        _D, "caller", "403",
        "A `deny` rule covers this call.",
        "`decision.rule` of the record says which one. It is final: no grant lifts it, only a change of "
        "the policy.",
    ),
    Reason.PURPOSE: Row(
        _D, "caller", "403",
        "The identity has `purposes`, and the call declares none of them in `Call-Purpose`.",
        "Compare `intent.purpose` with the policy. The caller has to send one; a grant lifts this.",
    ),
    Reason.TASK_REQUIRED: Row(
        _D, "caller", "403",
        "The identity is an `agent`, whose calls need a task token. None is accepted until task tokens "
        "are built, whether one came along or not.",
        "A grant lifts this for one agent and the calls that it names, provided that the agent sends no "
        "`Txn-Token`.",
    ),
    Reason.TASK_INVALID: Row(
        _D, "caller", "403",
        "A task token came along (`Txn-Token`). Until task tokens are built none can be verified, and a "
        "token only ever narrows: a call with one is refused rather than let through as if it had none.",
        "Let the caller leave the header out. No grant lifts this.",
    ),
    Reason.TASK_BINDING: Row(
        _D, "caller", "403",
        "Not given yet: the task token was issued to another workload.",
        "Task tokens are not built yet.",
    ),
    Reason.TASK_REVOKED: Row(
        _D, "caller", "403",
        "Not given yet: the task was ended before its time.",
        "Task tokens are not built yet.",
    ),
    Reason.TASK_SCOPE: Row(
        _D, "caller", "403",
        "Not given yet: the task does not include this call.",
        "Task tokens are not built yet.",
    ),
    Reason.RATE: Row(
        _D, "caller", "429",
        "The identity has made more calls than its `rate` permits; `Retry-After` says when there is room.",
        "A loop in the caller, or a rate that is too small: `sidecar_verdicts_total` shows since when. "
        "Calls under a grant are counted too.",
    ),
    Reason.TASK_BUDGET: Row(
        _D, "caller", "403",
        "Not given yet: the task has used up its calls.",
        "Task tokens are not built yet.",
    ),
    Reason.BROWNOUT: Row(
        _D, "caller", "403",
        "Not given yet: a legacy identity in its announced outage.",
        "Brownouts are not built yet.",
    ),
    Reason.POLICY_UNAVAILABLE: Row(
        _D, "caller", "503",
        "Not given yet: a remote policy engine did not answer.",
        "Remote engines are not built yet; the built-in one cannot be away.",
    ),
    Reason.AUDIT_UNAVAILABLE: Row(
        _D, "caller", "503",
        "The audit log cannot be written, so no call is let through.",
        "Look at the service log and at the disk below `SIDECAR_STATE_DIR`: full, read-only, failing? "
        "`/readyz` fails meanwhile. Nothing but a log that can be written helps.",
    ),
    Reason.MALFORMED: Row(
        _M, "caller", "400, 501, 505",
        "The message is not HTTP/1.1, or could be read in two ways; the connection closes and the service "
        "sees nothing.",
        "`detail` says what it was: a doubled `Content-Length`, `;` or an encoded slash in the path, odd "
        "bytes. Mend the client. Many of them from one caller are a probe.",
    ),
    Reason.METHOD: Row(
        _M, "caller", "405, 501",
        "A method that is never served, such as CONNECT or TRACE.",
        "Mend the client.",
    ),
    Reason.MISDIRECTED: Row(
        _M, "caller", "421",
        "The host that the call names is not served here.",
        "Compare the client's address with its `Host`.",
    ),
    Reason.EXPECTATION: Row(
        _M, "caller", "417",
        "An `Expect` other than `100-continue`.",
        "Mend the client.",
    ),
    Reason.TOO_LARGE: Row(
        _M, "caller", "413, 414, 431",
        "Request line, header or body is over its limit.",
        "`sidecar_limits_total` names the limit; `SIDECAR_MAX_...` raises it.",
    ),
    Reason.TIMEOUT: Row(
        _M, "caller", "408",
        "The caller did not finish its message in time.",
        "A slow network, a stuck client, or an attack by slowness: look for how many connections one "
        "source has.",
    ),
    Reason.UPSTREAM_UNREACHABLE: Row(
        _S, "caller", "503",
        "No connection to the local service.",
        "Does it run, and does it listen where `SIDECAR_UPSTREAM` says? Does the socket's directory let "
        "the sidecar in?",
    ),
    Reason.UPSTREAM_IDENTITY: Row(
        _S, "caller", "503",
        "Not given yet: a destination shows another identity than expected.",
        "The outbound listener is not built yet.",
    ),
    Reason.UPSTREAM_INVALID: Row(
        _S, "caller", "502",
        "The service sent what cannot be relayed without guessing, or closed too early.",
        "`outcome.upstream` is `invalid` or `incomplete`: look at the service's own log for this "
        "`x-request-id`.",
    ),
    Reason.UPSTREAM_TIMEOUT: Row(
        _S, "caller", "504",
        "The service did not answer in time.",
        "Is it overloaded? `SIDECAR_UPSTREAM_RESPONSE_TIMEOUT` is how long it may think.",
    ),
    Reason.DESTINATION: Row(
        _S, "local application", "403",
        "Not given yet: a destination that is not configured.",
        "The outbound listener is not built yet.",
    ),
    Reason.OVERLOADED: Row(
        _S, "caller", "503",
        "A limit of the sidecar itself is reached, such as its connections to the service.",
        "`sidecar_limits_total` names it. Slow service, or more load than one instance carries.",
    ),
    Reason.DRAINING: Row(
        _S, "caller", "503",
        "The sidecar is stopping, and the call could not be finished before the deadline.",
        "Expected in a rollout; callers try again elsewhere. Else ask who sent SIGTERM or `drain` (record "
        "`admin`).",
    ),
    Reason.INTERNAL: Row(
        _S, "caller", "500, 503",
        "The sidecar failed. Calls are refused rather than let through undecided.",
        "The service log has a traceback, once for each kind. Report it.",
    ),
}
# fmt: on


def render_reasons() -> str:
    """The reader's tables, Markdown, one for each group; ends with a newline."""
    lines: list[str] = []
    for group in Group:
        lines += [
            f"## About {group.value}",
            "",
            "| code | HTTP | who sees it | what it means | what to do at 3 a.m. |",
        ]
        lines += ["|---|---|---|---|---|"]
        for reason in Reason:
            row = ROWS[reason]
            if row.group is group:
                cells = (f"`{reason.value}`", row.status or "none", row.who, row.meaning, row.remedy)
                lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)
