"""Explains a verdict: the same decision as for a call, each of its steps, and what would change it. Pure.

For operators: unlike what a refused caller is told, this names rules, scopes and owners.
"""

from __future__ import annotations

import math
from typing import Any

from sidecar.authz.call import Call
from sidecar.authz.decide import Authorizer, Examination
from sidecar.authz.reasons import Reason
from sidecar.authz.steps import Ruling
from sidecar.clock import rfc3339_s
from sidecar.identity.peer import Peer
from sidecar.identity.route import Segments
from sidecar.policy.model import ANY_METHOD, Policy
from sidecar.review.question import Question

NAMED_SCOPES = 10

_STEPS = ("certificate", "registration", "expiry", "policy", "purpose", "task", "break-glass", "rate")
_ENDS_AT = {
    Reason.SVID_EXPIRED: "certificate",
    Reason.UNKNOWN_IDENTITY: "registration",
    Reason.IDENTITY_EXPIRED: "expiry",
    Reason.RATE: "rate",
}
_STEP_OF = {
    Reason.SCOPE: "policy",
    Reason.RULE: "policy",
    Reason.PURPOSE: "purpose",
    Reason.TASK_REQUIRED: "task",
    Reason.TASK_INVALID: "task",
}


def explain_call(authorizer: Authorizer, question: Question, path: str, segments: Segments) -> dict[str, Any]:
    """What would become of the call, JSON's types; ``path`` and ``segments`` are canonical.

    The caller's certificate is taken to be good. Nothing is charged and no grant is used.
    """
    caller = str(question.caller)
    peer = Peer(question.caller, caller, "", "", math.inf, "", 0)
    call = Call(peer, question.method, path, segments, question.purpose)
    found = authorizer.examine(call)
    verdict = found.verdict
    return {
        **_describe(authorizer, question),
        "effect": verdict.effect,
        "reason": verdict.reason,
        "path": path,
        "rule": verdict.rule,
        "route": verdict.route,
        "scope": verdict.scope,
        "owner": verdict.owner,
        "kind": verdict.kind,
        "environment": verdict.environment,
        "grant": verdict.grant,
        "lifted": list(verdict.lifted),
        "until": _write_time(verdict.until_s),
        "streaming": verdict.streaming,
        "audit_strict": verdict.audit_strict,
        "detail": verdict.detail,
        "change": None if verdict.is_allowed else _propose(authorizer.policy, call, found),
        "steps": _trace(authorizer.policy, found),
    }


def explain_refused(
    authorizer: Authorizer, question: Question, reason: Reason, detail: str
) -> dict[str, Any]:
    """As :func:`explain_call`, for what is refused before anything is decided, such as a malformed path."""
    return {
        **_describe(authorizer, question),
        "effect": "deny",
        "reason": reason.value,
        "path": None,
        **dict.fromkeys(("rule", "route", "scope", "owner", "kind", "environment", "grant")),
        "lifted": [],
        "until": None,
        "streaming": False,
        "audit_strict": False,
        "detail": detail,
        "change": "the caller has to send something else",
        "steps": [{"step": "message", "result": "denied", "says": detail}],
    }


def _describe(authorizer: Authorizer, question: Question) -> dict[str, Any]:
    return {
        "caller": str(question.caller),
        "method": question.method,
        "target": question.path,
        "purpose": question.purpose,
        "policy": authorizer.policy.sha256,
    }


def _trace(policy: Policy, found: Examination) -> list[dict[str, str]]:
    """The steps in their order, each ``passed``, ``denied``, ``lifted`` (by a grant) or ``not reached``."""
    verdict = found.verdict
    if verdict.reason == Reason.INTERNAL:
        return [{"step": "decision", "result": "denied", "says": verdict.detail}]
    ruling = found.ruling
    results = dict.fromkeys(_STEPS, "passed")
    denied = Reason(verdict.reason) if not verdict.is_allowed else None
    last = _ENDS_AT.get(denied) if denied is not None else None
    if ruling is not None and last not in ("certificate", "expiry"):
        # The rate is only looked at where nothing denies any more.
        is_lifted = verdict.grant is not None or denied is Reason.RATE
        for denial in ruling.denials:
            results[_STEP_OF[denial]] = "lifted" if is_lifted else "denied"
        if ruling.denials and not is_lifted:
            last = _STEP_OF[ruling.denials[-1]] if ruling.is_final else "break-glass"
            results[last] = "denied"
    if last is not None:
        results[last] = "denied"
        for step in _STEPS[_STEPS.index(last) + 1 :]:
            results[step] = "not reached"
    return [
        {"step": step, "result": result, "says": "" if result == "not reached" else _say(step, policy, found)}
        for step, result in results.items()
    ]


def _say(step: str, policy: Policy, found: Examination) -> str:
    identity, ruling, verdict = found.identity, found.ruling, found.verdict
    if step == "certificate":
        return "taken to be good"
    if identity is None or ruling is None:
        return "not in the policy"
    match step:
        case "registration":
            contact = policy.owners[identity.owner].contact
            return f"{identity.kind} of {identity.owner} ({contact}), scopes {', '.join(identity.scopes)}"
        case "expiry":
            end = _write_time(identity.expires_s)
            return "has no end" if end is None else f"ends at {end}"
        case "policy":
            return _say_policy(ruling)
        case "purpose":
            if identity.purposes is None:
                return "none needed"
            return f"needs one of {', '.join(sorted(identity.purposes))}"
        case "task":
            return "an agent needs a task token" if identity.kind == "agent" else "none needed"
        case "break-glass":
            if verdict.grant is not None:
                return f"grant {verdict.grant}"
            if not ruling.denials:
                return "none needed"
            return (
                "a grant is in force" if verdict.reason == Reason.RATE else "no grant in force for this call"
            )
        case _:
            rate = identity.rate
            if rate is None:
                return "unlimited"
            wait = f"; room in {verdict.retry_after_s} s" if verdict.retry_after_s is not None else ""
            return f"{rate.calls} calls in {rate.period_s:g} s{wait}"


def _say_policy(ruling: Ruling) -> str:
    judgement = ruling.judgement
    match judgement.answer:
        case "permit":
            return f"{judgement.rule} permits {judgement.route}"
        case "rule":
            return f"{judgement.rule} denies {judgement.route}, finally"
        case _:
            final = "; a scope with never_override covers it, or the method is never permitted"
            return "no rule of its scopes permits this" + (final if ruling.is_final else "")


def _propose(policy: Policy, call: Call, found: Examination) -> str:
    """What would have to change for the call to be allowed."""
    identity, ruling = found.identity, found.ruling
    reason = found.verdict.denial
    by_grant = "" if ruling is None or ruling.is_final else ", or a break-glass grant for this call"
    match reason:
        case Reason.UNKNOWN_IDENTITY:
            return "register the caller under identities, with an owner, a kind and scopes"
        case Reason.IDENTITY_EXPIRED:
            return "renew the identity's expires"
        case Reason.SCOPE:
            scopes = _scopes_for(policy, call)
            named = f"give the caller {' or '.join(scopes)}" if scopes else "write a scope that permits this"
            return named + by_grant
        case Reason.RULE:
            return f"remove or narrow {found.verdict.rule}; no grant lifts it"
        case Reason.PURPOSE:
            purposes = sorted((identity.purposes if identity is not None else None) or ())
            return f"the caller has to send call-purpose: {' or '.join(purposes)}{by_grant}"
        case Reason.TASK_REQUIRED:
            return "task tokens are not built yet" + by_grant
        case Reason.RATE:
            return f"wait {found.verdict.retry_after_s} s, or raise the identity's rate"
        case _:
            return "see the service log"


def _scopes_for(policy: Policy, call: Call) -> list[str]:
    found = [
        scope.name
        for scope in policy.scopes.values()
        if any(
            (call.method in rule.methods or ANY_METHOD in rule.methods)
            and any(pattern.matches(call.segments) for pattern in rule.patterns)
            for rule in scope.rules
        )
    ]
    return found[:NAMED_SCOPES]


def _write_time(moment_s: float | None) -> str | None:
    if moment_s is None or math.isinf(moment_s):
        return None
    return rfc3339_s(moment_s)
