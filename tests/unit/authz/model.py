"""The decision once more, as plainly as it can be said: the contract, over the policy as plain data.

No index, no cache, no shared code but the values of a call: what the real one is compared with.
"""

from __future__ import annotations

from datetime import UTC, datetime

LIFTABLE = {"scope", "purpose", "task-required"}


def covers(pattern: str, path: str) -> bool:
    return _match(pattern[1:].split("/"), path[1:].split("/"))


def _match(pattern: list[str], path: list[str]) -> bool:
    if pattern == ["**"]:
        return True
    if not pattern or not path:
        return pattern == path
    if pattern[0] not in ("*", path[0]) or (pattern[0] == "*" and path[0] == ""):
        return False
    return pattern[1:] == ["**"] or _match(pattern[1:], path[1:])


def decide(policy: dict, call: dict, grant_end: float | None, calls_before: int) -> tuple:
    """(effect, reason, rule, lifted, until) of a call; ``calls_before`` were allowed at this very moment."""
    now, end = call["now"], call["not_after"]
    if now >= end:
        return ("deny", "svid-expired", None, (), None)
    identity = next((each for each in policy["identities"] if each["id"] == call["id"]), None)
    if identity is None:
        return ("deny", "unknown-identity", None, (), None)
    if "expires" in identity:
        expires = datetime.fromisoformat(identity["expires"]).replace(tzinfo=UTC).timestamp() + 86400
        if now >= expires:
            return ("deny", "identity-expired", None, (), None)
        end = min(end, expires)

    denials = []
    for place, rule in enumerate(policy.get("deny", [])):
        if identity["id"] in rule.get("identities", [identity["id"]]) and rule_covers(rule, call):
            return ("deny", "rule", f"deny[{place}]", (), None)
    rule, sealed = best_rule(policy, identity, call), is_sealed(policy, call)
    if rule is None:
        denials.append(("scope", sealed))
    if "purposes" in identity and call["purpose"] not in identity["purposes"]:
        denials.append(("purpose", sealed))
    if identity["kind"] == "agent":
        denials.append(("task-required", sealed or call["has_task"]))
    elif call["has_task"]:
        denials.append(("task-invalid", True))

    for reason, is_final in denials:
        if is_final:
            return ("deny", reason, rule, (), None)
    if denials and grant_end is None:
        return ("deny", denials[0][0], rule, (), None)
    if "rate" in identity and calls_before >= int(identity["rate"].split("/")[0]):
        return ("deny", "rate", rule, (), None)
    if denials:
        return ("allow", "grant", rule, tuple(reason for reason, _ in denials), min(end, grant_end))
    return ("allow", "policy", rule, (), end)


def rule_covers(rule: dict, call: dict) -> bool:
    methods = rule["methods"]
    return (methods == ["*"] or call["method"] in methods) and any(
        covers(path, call["path"]) for path in rule["paths"]
    )


def best_rule(policy: dict, identity: dict, call: dict) -> str | None:
    found = []
    for scope_place, name in enumerate(identity["scopes"]):
        for place, rule in enumerate(policy["scopes"][name]["rules"]):
            for pattern in rule["paths"]:
                if rule_covers({**rule, "paths": [pattern]}, call):
                    kinds = [{"*": 1, "**": 2}.get(segment, 0) for segment in pattern[1:].split("/")]
                    found.append((kinds, scope_place, place, f"{name}[{place}]"))
    return min(found)[3] if found else None


def is_sealed(policy: dict, call: dict) -> bool:
    return any(
        scope.get("never_override") == "true" and rule_covers(rule, call)
        for scope in policy["scopes"].values()
        for rule in scope["rules"]
    )
