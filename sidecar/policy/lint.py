"""What is allowed in a policy and still worth a look: ends, reviews, rules that nobody uses. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from sidecar.clock import rfc3339
from sidecar.policy.model import ANY_METHOD, Policy


def warn_of(policy: Policy, now: datetime) -> list[str]:
    """One line per finding at the moment ``now`` (aware); empty when there is nothing to say."""
    return [*_ends(policy, now), *_unused(policy), *_wide(policy)]


def _ends(policy: Policy, now: datetime) -> list[str]:
    found = []
    for identity in policy.identities.values():
        if identity.expires_s is not None and identity.expires_s <= now.timestamp():
            ended = datetime.fromtimestamp(identity.expires_s, UTC)
            found.append(f"{identity.id_text} has ended at {rfc3339(ended)}; renew or remove it")
        if identity.kind == "agent":
            found.append(
                f"{identity.id_text} is an agent: its calls are refused (task-required) until there are tasks"
            )
    for owner in policy.owners.values():
        if owner.review_by is not None and owner.review_by < now.astimezone(UTC).date():
            found.append(f"owner {owner.name} should have been reviewed by {owner.review_by}")
    return found


def _unused(policy: Policy) -> list[str]:
    identities = policy.identities.values()
    used_scopes = {name for identity in identities for name in identity.scopes}
    used_owners = {identity.owner for identity in identities}
    if policy.service is not None and policy.service.owner is not None:
        used_owners.add(policy.service.owner)
    return [
        *(f"scope {name} is given to nobody" for name in policy.scopes if name not in used_scopes),
        *(f"owner {name} owns nothing" for name in policy.owners if name not in used_owners),
    ]


def _wide(policy: Policy) -> list[str]:
    found = []
    for scope in policy.scopes.values():
        for place, rule in enumerate(scope.rules):
            where = f"{scope.name}[{place}]"
            if ANY_METHOD in rule.methods:
                found.append(f"{where} permits any method (unsafe_any_method)")
            if any(pattern.is_open and not pattern.segments for pattern in rule.patterns):
                found.append(f"{where} permits every path (/**)")
    return found
