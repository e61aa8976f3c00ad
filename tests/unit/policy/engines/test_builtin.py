from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.identity.route import split_path
from sidecar.policy.engines.builtin import BuiltinEngine
from sidecar.policy.judgement import Judgement
from sidecar.policy.loader import parse_policy

A, B = "spiffe://demo.test/a", "spiffe://demo.test/b"


class Asked:
    """An engine over scopes (name to scope, methods GET unless said), and who has which."""

    def __init__(
        self, scopes: dict[str, Any], has: dict[str, list[str]], deny: list[Any] | None = None
    ) -> None:
        document = {
            "version": "1",
            "owners": {"team": {"contact": "#team"}},
            "scopes": scopes,
            "identities": [
                {"id": name, "owner": "team", "kind": "job", "scopes": names} for name, names in has.items()
            ],
        }
        self.policy = parse_policy(json.dumps(document | ({"deny": deny} if deny else {})).encode(), "p")
        self.engine = BuiltinEngine(self.policy)

    def __call__(self, call: str, caller: str = A) -> Judgement:
        method, path = call.split()
        return self.engine.judge(self.policy.identities[caller], method, split_path(path))


def rule(*paths: str, methods: tuple[str, ...] = ("GET",), **more: str) -> dict[str, Any]:
    return {"methods": list(methods), "paths": list(paths), **more}


def test_a_permit_names_rule_route_and_scope():
    ask = Asked({"s": [rule("/x"), rule("/y/*", "/y", streaming="true")]}, {A: ["s"]})
    assert ask("GET /y/1") == Judgement("permit", "s[1]", "/y/*", "s", streaming=True)
    assert ask("GET /x") == Judgement("permit", "s[0]", "/x", "s")
    assert ask("GET /z") == ask("POST /x") == Judgement("scope")


def test_an_identity_has_its_own_scopes_only():
    ask = Asked({"s": [rule("/x")], "t": [rule("/y")]}, {A: ["s"], B: ["t"]})
    assert [ask("GET /x", A).answer, ask("GET /y", A).answer] == ["permit", "scope"]
    assert [ask("GET /x", B).answer, ask("GET /y", B).answer] == ["scope", "permit"]


@pytest.mark.parametrize(
    ("scopes", "order", "winner"),
    [
        ({"s": [rule("/**"), rule("/x/*"), rule("/x/y")]}, ["s"], "s[2]"),
        ({"s": [rule("/x/*")], "t": [rule("/*/y")]}, ["t", "s"], "s[0]"),
        ({"s": [rule("/x/y/**")], "t": [rule("/x/*")]}, ["t", "s"], "s[0]"),
        ({"s": [rule("/x/y")], "t": [rule("/x/y")]}, ["s", "t"], "s[0]"),
        ({"s": [rule("/x/y")], "t": [rule("/x/y")]}, ["t", "s"], "t[0]"),
        ({"s": [rule("/z"), rule("/x/y"), rule("/x/y")]}, ["s"], "s[1]"),
    ],
)
def test_which_rule_decides(scopes, order, winner):
    assert Asked(scopes, {A: order})("GET /x/y").rule == winner


def test_a_deny_rule_comes_before_every_permit_and_the_first_counts():
    deny = [rule("/other"), rule("/x/**", methods=("*",)), rule("/x/y")]
    ask = Asked({"s": [rule("/x/y")]}, {A: ["s"]}, deny)
    assert ask("GET /x/y") == Judgement("rule", "deny[1]", "/x/**", is_final=True)
    assert ask("DELETE /x").answer == "rule"
    assert ask("GET /y").answer == "scope"


def test_a_deny_rule_may_be_for_some_only():
    deny = [{**rule("/x"), "identities": [B]}, rule("/y")]
    ask = Asked({"s": [rule("/x", "/y", "/z")]}, {A: ["s"], B: ["s"]}, deny)
    assert [ask(f"GET {path}", A).answer for path in ("/x", "/y", "/z")] == ["permit", "rule", "permit"]
    assert [ask(f"GET {path}", B).rule for path in ("/x", "/y", "/z")] == ["deny[0]", "deny[1]", "s[0]"]


def test_the_first_deny_rule_counts_whomever_it_is_for():
    deny = [{**rule("/x"), "identities": [A]}, rule("/x"), {**rule("/x"), "identities": [B]}]
    ask = Asked({"s": [rule("/x")]}, {A: ["s"], B: ["s"]}, deny)
    assert [ask("GET /x", A).rule, ask("GET /x", B).rule] == ["deny[0]", "deny[1]"]


def test_any_method_is_not_every_method():
    ask = Asked({"s": {"rules": [rule("/**", methods=("*",))], "unsafe_any_method": "true"}}, {A: ["s"]})
    assert [ask(f"{method} /x").answer for method in ("GET", "PROPFIND")] == ["permit", "permit"]
    assert ask("CONNECT /x") == ask("TRACE /x") == Judgement("scope", is_final=True)


def test_a_seal_is_final_for_all_even_for_those_who_have_the_scope():
    scopes = {"s": {"rules": [rule("/x/*")], "never_override": "true"}, "t": [rule("/y")]}
    ask = Asked(scopes, {A: ["s"], B: ["t"]})
    assert ask("GET /x/1", A) == Judgement("permit", "s[0]", "/x/*", "s", is_final=True)
    assert ask("GET /x/1", B) == Judgement("scope", is_final=True)
    assert ask("GET /x", B) == ask("POST /x/1", B) == Judgement("scope")


def test_a_strict_record_is_kept_if_any_rule_that_permits_asks_for_it():
    scopes = {"s": {"rules": [rule("/**")], "audit": "strict"}, "t": [rule("/x")]}
    assert Asked(scopes, {A: ["t", "s"]})("GET /x") == Judgement(
        "permit", "t[0]", "/x", "t", audit_strict=True
    )
    assert not Asked(scopes, {A: ["t"], B: ["s"]})("GET /x").audit_strict


def test_identities_with_the_same_scopes_share_one_tree():
    ask = Asked({"s": [rule("/x")]}, {A: ["s"], B: ["s"]})
    ask("GET /x", A), ask("GET /x", B)
    assert len(ask.engine._permits) == 1
