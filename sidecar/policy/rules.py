"""Reads the parts of a policy that permit and refuse: scopes and denials. Pure."""

from __future__ import annotations

from sidecar.identity.route import parse_pattern
from sidecar.policy.document import Listing, Node
from sidecar.policy.model import ANY_METHOD, Denial, Rule, Scope
from sidecar.policy.reader import Reader
from sidecar.policy.values import choice, parse_flag, parse_line, parse_method, parse_name


def read_scopes(reader: Reader, node: Node) -> dict[str, Scope]:
    """The scopes by name, those without a mistake."""
    scopes = {}
    for name, body in reader.named(node, "scopes", parse_name):
        scope = _read_scope(reader, name, body)
        if scope is not None:
            scopes[name] = scope
    return scopes


def _read_scope(reader: Reader, name: str, node: Node) -> Scope | None:
    """A list of rules, or a mapping with ``rules`` and what holds for all of them."""
    if isinstance(node, Listing):
        return Scope(name, _read_rules(reader, node, any_method=False))
    options = ("unsafe_any_method", "never_override", "audit")
    entries = reader.table(node, f"scope {name!r}", required=("rules",), optional=options)
    if entries is None or "rules" not in entries:
        return None
    any_method = reader.value(entries.get("unsafe_any_method"), "unsafe_any_method", parse_flag)
    if any_method is None:  # a value that does not parse was noted, which is enough
        any_method = "unsafe_any_method" in entries
    return Scope(
        name,
        _read_rules(reader, entries["rules"], any_method=any_method),
        unsafe_any_method=any_method,
        never_override=reader.value(entries.get("never_override"), "never_override", parse_flag) or False,
        audit_strict=reader.value(entries.get("audit"), "audit", choice("strict")) is not None,
    )


def _read_rules(reader: Reader, node: Node, *, any_method: bool) -> tuple[Rule, ...]:
    rules = []
    for item in reader.items(node, "rules"):
        entries = reader.table(item, "the rule", required=("methods", "paths"), optional=("streaming",))
        if entries is None:
            continue
        rules.append(_read_rule(reader, entries, any_method=any_method))
    return tuple(rules)


def _read_rule(reader: Reader, entries: dict[str, Node], *, any_method: bool) -> Rule:
    methods = reader.values(entries.get("methods"), "methods", parse_method)
    if ANY_METHOD in methods and not any_method:
        reader.refuse(
            entries["methods"].at,
            'methods: ["*"] permits methods nobody thought of; name them, '
            "or say unsafe_any_method: true in a scope of the form {rules: [...], unsafe_any_method: true}",
        )
    if ANY_METHOD in methods and len(methods) > 1:
        reader.refuse(entries["methods"].at, 'methods has "*" beside others; write one or the others')
    patterns = reader.values(entries.get("paths"), "paths", parse_pattern)
    streaming = reader.value(entries.get("streaming"), "streaming", parse_flag) or False
    return Rule(methods, patterns, streaming)


def read_denials(reader: Reader, node: Node | None, identities: frozenset[str]) -> tuple[Denial, ...]:
    """The ``deny`` rules in their order."""
    denials = []
    for item in () if node is None else reader.items(node, "deny"):
        entries = reader.table(
            item, "the deny rule", required=("methods", "paths"), optional=("identities", "why")
        )
        if entries is None:
            continue
        rule = _read_rule(reader, entries, any_method=True)
        named = reader.values(entries.get("identities"), "identities", reader.known(identities, "identity"))
        why = reader.value(entries.get("why"), "why", parse_line)
        denials.append(Denial(rule, frozenset(named) if "identities" in entries else None, why))
    return tuple(denials)
