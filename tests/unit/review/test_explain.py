from __future__ import annotations

import pytest

from sidecar.authz.reasons import Reason
from sidecar.identity.route import split_path
from sidecar.review.explain import explain_call, explain_refused
from sidecar.review.question import build_question
from tests.unit.authz.conversation import ORDERS, WEB, World, identity, policy_of

SEALED = {"s": {"rules": [{"methods": ["PUT"], "paths": ["/orders/*"]}], "never_override": "true"}, **ORDERS}
AGENT = identity(kind="agent", expires="2027-01-01", purposes=["buy"])
GRANT = ("g1", 4e9)
DENY = [{"methods": ["*"], "paths": ["/orders/secret"]}]


def explain(
    world: World, call: str = "GET /orders/42", caller: str = WEB, purpose: str | None = None
) -> dict:
    method, path = call.split()
    question = build_question(caller, method, path, purpose)
    return explain_call(world.authorizer, question, path, split_path(path))


def results(answer: dict) -> str:
    """One letter a step: passed, denied, lifted, not reached."""
    return "".join(step["result"][0] for step in answer["steps"])


CASES = [
    (World(), "GET /orders/42", None, "allow policy", "pppppppp", None),
    (World(), "PUT /orders/42", None, "deny scope", "pppdppdn", "write a scope that permits this, or a break-glass"),
    (World(policy_of(scopes=SEALED)), "PUT /orders/42", None, "deny scope", "pppdnnnn", "give the caller s"),
    (World(policy_of(deny=DENY), GRANT), "GET /orders/secret", None, "deny rule", "pppdnnnn", "narrow deny[0]; no"),
    (World(policy_of([AGENT])), "PUT /x", None, "deny scope", "pppddddn", "or a break-glass grant"),
    (World(policy_of([AGENT])), "GET /orders", None, "deny purpose", "ppppdddn", "call-purpose: buy, or a break-glass"),
    (World(policy_of([AGENT])), "GET /orders", "buy", "deny task-required", "pppppddn", "not built yet, or a break"),
    (World(policy_of([AGENT]), GRANT), "PUT /x", None, "allow grant", "ppplllpp", None),
    (World(policy_of([identity(expires="2026-01-01")])), "GET /x", None, "deny identity-expired", "ppdnnnnn", "renew"),
    (World(policy_of([identity("spiffe://a.test/b")])), "GET /x", None, "deny unknown-identity", "pdnnnnnn", "regist"),
]  # fmt: skip


@pytest.mark.parametrize(("world", "call", "purpose", "verdict", "steps", "change"), CASES)
def test_verdict_steps_and_what_would_change_it(world, call, purpose, verdict, steps, change):
    answer = explain(world, call, purpose=purpose)
    assert f"{answer['effect']} {answer['reason']}" == verdict
    assert results(answer) == steps
    assert all(step["says"] for step in answer["steps"] if step["result"] != "not reached")
    assert (answer["change"] is None) if change is None else (change in answer["change"])


def test_a_final_denial_offers_no_grant():
    answer = explain(World(policy_of(scopes=SEALED)), "PUT /orders/42")
    assert "grant" not in answer["change"]


def test_an_allow_names_everything():
    policy = policy_of([identity(environment="prod", expires="2026-12-31", rate="5/m")])
    answer = explain(World(policy))
    steps = answer.pop("steps")
    assert answer == {
        "caller": WEB, "method": "GET", "target": "/orders/42", "purpose": None, "policy": policy.sha256,
        "effect": "allow", "reason": "policy", "path": "/orders/42", "rule": "orders:read[0]", "route": "/orders/**",
        "scope": "orders:read", "owner": "team", "kind": "service", "environment": "prod", "grant": None, "lifted": [],
        "until": "2027-01-01T00:00:00Z", "streaming": False, "audit_strict": False, "detail": "", "change": None,
    }  # fmt: skip
    assert [step["says"] for step in steps[1:4]] == [
        "service of team (#team), scopes orders:read",
        "ends at 2027-01-01T00:00:00Z",
        "orders:read[0] permits /orders/**",
    ]
    assert steps[-1]["says"] == "5 calls in 60 s"


def test_nothing_is_charged_and_a_used_up_rate_is_told():
    world = World(policy_of([identity(rate="1/m")]))
    for _ in range(3):
        assert explain(world)["effect"] == "allow"
    assert world.ask() == "allow policy"
    answer = explain(world)
    assert answer["reason"] == "rate" and results(answer) == "pppppppd"
    assert answer["change"] == "wait 60 s, or raise the identity's rate"


def test_a_rate_that_strikes_a_granted_call_is_told_with_what_was_lifted():
    world = World(policy_of([identity(rate="1/m")]), GRANT)
    assert world.ask("PUT /x") == "allow grant"
    assert results(explain(world, "PUT /x")) == "ppplpppd"


def test_a_failure_is_told_as_one(caplog):
    world = World()
    world.authorizer._engine = None
    answer = explain(world)
    assert (
        answer["reason"] == "internal"
        and results(answer) == "d"
        and answer["change"] == "see the service log"
    )


def test_a_refused_message():
    question = build_question(WEB, "GET", "/a;b")
    answer = explain_refused(World().authorizer, question, Reason.MALFORMED, "odd")
    assert answer.keys() == explain(World()).keys()
    assert (answer["effect"], answer["reason"], answer["detail"]) == ("deny", "malformed", "odd")
