"""The real decision and a plain model of the contract agree, over random and over all small policies."""

from __future__ import annotations

import itertools
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.authz.call import Call, Verdict
from sidecar.authz.decide import Authorizer
from sidecar.identity.route import split_path
from sidecar.policy.loader import parse_policy
from tests.fakes.clock import FakeClock
from tests.unit.authz import model
from tests.unit.authz.conversation import FakeGrants, peer_of

NOW = FakeClock().wall_s()
IDS = [f"spiffe://demo.test/{name}" for name in ("a", "b", "stranger")]
METHODS = ["GET", "POST"]
SEGMENTS = ["x", "y"]
PATHS = ["/", "/x", "/y", "/x/", "/x/y", "/x/x", "/y/x/", "/x/y/x"]
PATTERNS = ["/", "/x", "/x/", "/*", "/**", "/x/*", "/x/**", "/*/y", "/*/**", "/x/y/*", "/*/", "/y/x/**"]

rules = st.fixed_dictionaries(
    {
        "methods": st.lists(st.sampled_from(METHODS), min_size=1, max_size=2, unique=True) | st.just(["*"]),
        "paths": st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3, unique=True),
    }
)
scopes = st.fixed_dictionaries(
    {
        "rules": st.lists(rules, min_size=1, max_size=2),
        "unsafe_any_method": st.just("true"),
        "never_override": st.sampled_from(["true", "false", "false"]),
    }
)
DAYS = ["2026-11-22", "2026-11-23", "2026-11-24", "2026-11-30"]


@st.composite
def policies(draw):
    names = ["s:1", "s:2", "s:3"]
    identities = []
    for id_text in IDS[:2]:
        identity = {
            "id": id_text,
            "owner": "team",
            "kind": draw(st.sampled_from(["service", "service", "job", "agent"])),
            "scopes": draw(st.lists(st.sampled_from(names), min_size=1, unique=True)),
        }
        if identity["kind"] == "agent" or draw(st.booleans()):
            identity["expires"] = draw(st.sampled_from(DAYS))
        if draw(st.booleans()):
            identity["purposes"] = ["buy"]
        if draw(st.booleans()):
            identity["rate"] = draw(st.sampled_from(["1/s", "2/h"]))
        identities.append(identity)
    policy = {
        "version": "1",
        "owners": {"team": {"contact": "#team"}},
        "scopes": {name: draw(scopes) for name in names},
        "identities": identities,
    }
    if draw(st.booleans()):
        denial = rules.flatmap(
            lambda rule: st.sampled_from(
                [rule, {**rule, "identities": [IDS[0]]}, {**rule, "identities": IDS[:2]}]
            )
        )
        policy["deny"] = draw(st.lists(denial, min_size=1, max_size=2))
    return policy


calls = st.fixed_dictionaries(
    {
        "id": st.sampled_from(IDS),
        "method": st.sampled_from([*METHODS, "DELETE"]),
        "path": st.sampled_from(PATHS),
        "purpose": st.sampled_from([None, "buy", "sell"]),
        "has_task": st.sampled_from([False, False, False, True]),
        "now": st.just(NOW),
        "not_after": st.sampled_from([NOW - 1, NOW, NOW + 1, NOW + 1e6, NOW + 1e6]),
    }
)
asked = st.lists(st.tuples(calls, st.sampled_from([None, None, NOW + 60.0])), min_size=1, max_size=8)


def told(verdict: Verdict) -> tuple:
    rule = (
        None if verdict.reason in ("svid-expired", "unknown-identity", "identity-expired") else verdict.rule
    )
    return (verdict.effect, verdict.reason, rule, verdict.lifted, verdict.until_s)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(policies(), asked)
def test_both_say_the_same_of_random_policies(policy, questions):
    grants = FakeGrants()
    authorizer = Authorizer(parse_policy(json.dumps(policy).encode(), "p"), grants, FakeClock())
    allowed = dict.fromkeys(IDS, 0)
    for call, grant_end in questions * 2:  # the second time from what is remembered
        grants.grant = None if grant_end is None else ("g", grant_end)
        real = Call(
            peer_of(call["id"], call["not_after"]), call["method"], call["path"], split_path(call["path"]),
            call["purpose"], call["has_task"],
        )  # fmt: skip
        expected = model.decide(policy, call, grant_end, allowed[call["id"]])
        foreseen = authorizer.examine(real).verdict
        assert told(authorizer.decide(real)) == told(foreseen) == expected
        allowed[call["id"]] += expected[0] == "allow"


def test_both_say_the_same_of_all_small_policies():
    """Every pair of rules over every path: one method each, permits and a deny, whole small scope."""
    peer, clock = peer_of(IDS[0]), FakeClock()
    end = peer.not_after_s
    cases = 0
    for first, second, kind in itertools.product(PATTERNS, PATTERNS, ("permit", "deny", "sealed")):
        policy = {
            "version": "1",
            "owners": {"team": {"contact": "#team"}},
            "scopes": {
                "s": {"rules": [{"methods": ["GET"], "paths": [first]}]},
                "t": {
                    "rules": [{"methods": ["GET"], "paths": [second]}],
                    "never_override": "true" if kind == "sealed" else "false",
                },
            },
            "identities": [
                {
                    "id": IDS[0],
                    "owner": "team",
                    "kind": "job",
                    "scopes": ["s", "t"] if kind == "permit" else ["s"],
                }
            ],
        }
        if kind == "deny":
            policy["deny"] = [{"methods": ["GET"], "paths": [second]}]
        grants = FakeGrants(("g", end))
        authorizer = Authorizer(parse_policy(json.dumps(policy).encode(), "p"), grants, clock)
        for path, method in itertools.product(PATHS, METHODS):
            call = {"id": IDS[0], "method": method, "path": path, "purpose": None, "has_task": False}
            expected = model.decide(policy, {**call, "now": NOW, "not_after": end}, end, 0)
            assert told(authorizer.decide(Call(peer, method, path, split_path(path)))) == expected
            cases += 1
    assert cases == 12 * 12 * 3 * 8 * 2
