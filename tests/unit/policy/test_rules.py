from __future__ import annotations

import pytest

from sidecar.errors import PolicyError
from sidecar.policy.document import Problems, read_document
from sidecar.policy.model import Denial, Scope
from sidecar.policy.reader import Reader
from sidecar.policy.rules import read_denials, read_scopes


def scopes_of(text: str) -> dict[str, Scope]:
    problems = Problems("f")
    root = read_document(text.encode(), problems)
    assert root is not None
    scopes = read_scopes(Reader(problems), root)
    problems.raise_any()
    return scopes


def denials_of(text: str) -> tuple[Denial, ...]:
    problems = Problems("f")
    denials = read_denials(Reader(problems), read_document(text.encode(), problems), frozenset({"a"}))
    problems.raise_any()
    return denials


def test_both_forms_of_a_scope_mean_the_same():
    rules = "[{methods: [GET], paths: [/x]}, {methods: [PUT], paths: [/y], streaming: true}]"
    assert scopes_of(f"s: {rules}") == scopes_of(f"s: {{rules: {rules}}}")
    assert scopes_of(f"s: {rules}") == scopes_of(f"s: {{rules: {rules}, never_override: false}}")
    assert [rule.streaming for rule in scopes_of(f"s: {rules}")["s"].rules] == [False, True]


@pytest.mark.parametrize(
    ("option", "attribute"),
    [
        ("unsafe_any_method: true", "unsafe_any_method"),
        ("never_override: true", "never_override"),
        ("audit: strict", "audit_strict"),
    ],
)
def test_options_hold_one_by_one(option, attribute):
    scope = scopes_of(f"s: {{rules: [{{methods: [GET], paths: [/x]}}], {option}}}")["s"]
    flags = ("unsafe_any_method", "never_override", "audit_strict")
    assert [name for name in flags if getattr(scope, name)] == [attribute]


@pytest.mark.parametrize(
    "text", ["s: x", "s: ~", "s: {never_override: true}", "s: {rules: {}}", "s: [x]", "s: {}"]
)
def test_what_is_no_scope(text):
    with pytest.raises(PolicyError):
        scopes_of(text)


def test_denials_keep_their_order_and_may_name_any_method():
    found = denials_of('[{methods: ["*"], paths: [/x]}, {methods: [GET], paths: [/y], identities: [a]}]')
    assert [denial.rule.methods for denial in found] == [("*",), ("GET",)]
    assert [denial.identities for denial in found] == [None, frozenset({"a"})]


@pytest.mark.parametrize(
    "text", ["[]", "x", "[x]", '[{methods: ["*", GET], paths: [/x]}]', "{methods: [GET]}"]
)
def test_what_is_no_deny_list(text):
    with pytest.raises(PolicyError):
        denials_of(text)
