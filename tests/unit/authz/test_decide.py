from __future__ import annotations

import logging
import math

import pytest

from sidecar.authz.decide import MAX_REMEMBERED_CHARS, REMEMBERED, VERDICTS_REMEMBERED, Authorizer
from sidecar.authz.reasons import LIFTABLE, Reason
from sidecar.errors import PolicyError
from sidecar.policy.model import Policy
from tests.fakes.clock import FakeClock
from tests.unit.authz.conversation import (
    ORDERS,
    WEB,
    FakeGrants,
    World,
    call_of,
    identity,
    peer_of,
    policy_of,
)

NOW = FakeClock().wall_s()
FOREVER = 4e9
GRANT = ("g1", NOW + 600)
DENY = [{"methods": ["GET"], "paths": ["/orders/secret"]}]
NOTHING = {**ORDERS, "none": [{"methods": ["GET"], "paths": ["/none"]}]}
TWO_ROUTES = {"orders:read": [{"methods": ["GET"], "paths": ["/orders", "/orders/*"]}]}
SEALED = {
    **ORDERS,
    "orders:seal": {"rules": [{"methods": ["DELETE"], "paths": ["/orders/*"]}], "never_override": "true"},
}


def test_an_allow_carries_what_record_and_limits_need():
    policy = policy_of([identity(environment="prod", expires="2026-12-31")], service={"owner": "team"})
    verdict = World(policy).authorizer.decide(call_of())
    assert verdict.is_allowed and verdict.reason == "policy" and verdict.policy == policy.sha256
    assert (verdict.rule, verdict.route, verdict.scope) == ("orders:read[0]", "/orders/**", "orders:read")
    assert (verdict.owner, verdict.kind, verdict.environment) == ("team", "service", "prod")
    assert (verdict.grant, verdict.lifted, verdict.detail) == (None, (), "")
    assert verdict.until_s == policy.identities[WEB].expires_s < FOREVER


def test_a_deny_says_whom_to_ask_and_nothing_of_the_policy():
    policy = policy_of(service={"owner": "team", "docs": "https://wiki.example/orders"})
    verdict = World(policy).authorizer.decide(call_of("DELETE /orders/42"))
    assert verdict.denial is Reason.SCOPE and verdict.until_s is None
    assert (
        verdict.detail == "this workload may not make this call; ask #team, see https://wiki.example/orders"
    )
    assert (verdict.owner, verdict.kind) == ("team", "service")


@pytest.mark.parametrize(
    ("said", "call", "purpose", "has_task", "verdict"),
    [
        ({}, "GET /orders/42", None, False, "allow policy"),
        ({}, "GET /orders", None, False, "allow policy"),
        ({}, "HEAD /orders/42", None, False, "deny scope"),
        ({}, "POST /orders/42", None, False, "deny scope"),
        ({}, "GET /", None, False, "deny scope"),
        ({}, "GET /ordersX", None, False, "deny scope"),
        ({}, "GET /orders/secret", None, False, "deny rule"),
        ({}, "GET /orders/42", "anything", False, "allow policy"),
        ({"purposes": ["buy"]}, "GET /orders/42", "buy", False, "allow policy"),
        ({"purposes": ["buy"]}, "GET /orders/42", None, False, "deny purpose"),
        ({"purposes": ["buy"]}, "GET /orders/42", "", False, "deny purpose"),
        ({"purposes": ["buy"]}, "GET /orders/42", "Buy", False, "deny purpose"),
        ({"purposes": ["buy"]}, "POST /orders/42", None, False, "deny scope"),  # the first in order
        ({"kind": "agent", "expires": "2027-01-01"}, "GET /orders/42", None, False, "deny task-required"),
        ({"kind": "agent", "expires": "2027-01-01"}, "GET /orders/42", None, True, "deny task-required"),
        ({"kind": "vendor", "expires": "2027-01-01"}, "GET /orders/42", None, False, "allow policy"),
        ({}, "GET /orders/42", None, True, "deny task-invalid"),
        ({}, "POST /orders/42", None, True, "deny task-invalid"),  # it ends the check, whatever came before
        ({"expires": "2026-11-23"}, "GET /orders/42", None, False, "deny identity-expired"),
        ({"expires": "2026-11-24"}, "GET /orders/42", None, False, "allow policy"),
        ({"expires": "2026-11-23"}, "POST /orders/secret", None, True, "deny identity-expired"),
    ],
)
def test_order_and_outcome_of_the_checks(said, call, purpose, has_task, verdict):
    world = World(policy_of([identity(**said)], deny=DENY))
    for _ in range(2):  # the second time from what is remembered
        assert world.ask(call, purpose=purpose, has_task=has_task) == verdict


@pytest.mark.parametrize(
    ("not_after_s", "caller", "verdict"),
    [
        (NOW + 1, WEB, "allow policy"),
        (NOW, WEB, "deny svid-expired"),
        (NOW - 1, WEB, "deny svid-expired"),
        (math.nan, WEB, "deny svid-expired"),
        (NOW - 1, "spiffe://demo.test/stranger", "deny svid-expired"),
        (NOW + 1, "spiffe://demo.test/stranger", "deny unknown-identity"),
        (NOW + 1, "spiffe://demo.test/web/", "deny unknown-identity"),
        (NOW + 1, "spiffe://other.test/web", "deny unknown-identity"),
        (NOW + 1, "spiffe://demo.test/Web", "deny unknown-identity"),
    ],
)
def test_who_calls(not_after_s, caller, verdict):
    from sidecar.identity.peer import Peer
    from sidecar.identity.spiffe_id import SpiffeId

    peer = Peer(SpiffeId("demo.test", "/any"), caller, "5f", "ab", not_after_s, "10.0.0.7", 1)
    assert World(grant=("g1", FOREVER)).ask(caller=peer) == verdict  # a grant changes nothing here


def test_an_identity_ends_to_the_second_although_its_ruling_is_remembered():
    world = World(policy_of([identity(expires="2026-11-24T12:00:30Z")]))
    assert world.ask() == "allow policy"
    world.clock.advance(29.999)
    assert world.ask() == "allow policy"
    world.clock.advance(0.001)
    assert world.ask() == "deny identity-expired"


def test_a_certificate_ends_to_the_second_although_the_verdict_is_remembered():
    world = World()
    peer = peer_of(not_after_s=NOW + 30)
    assert world.authorizer.decide(call_of(caller=peer)).until_s == NOW + 30
    world.clock.advance(30)
    assert world.ask(caller=peer) == "deny svid-expired"


def test_each_replica_has_its_own_time_window():
    world = World()
    for place in range(3 * VERDICTS_REMEMBERED):
        end = NOW + 10.0 * (1 + place % 40)
        assert world.authorizer.decide(call_of(caller=peer_of(not_after_s=end))).until_s == end
    ruling = world.authorizer._recent.get((WEB, "GET", "/orders/42", None))
    assert ruling is not None and len(ruling.verdicts) <= VERDICTS_REMEMBERED


def test_what_is_remembered_of_one_call_is_not_said_of_another():
    other = "spiffe://demo.test/other"
    policy = policy_of([identity(purposes=["buy"]), identity(other, scopes=["none"])], scopes=NOTHING)
    world = World(policy)
    asked = [
        ("GET /orders/42", WEB, None, False, "deny purpose"),
        ("GET /orders/42", WEB, "buy", False, "allow policy"),
        ("GET /orders/42", WEB, "sell", False, "deny purpose"),
        ("GET /orders/42", WEB, "buy", True, "deny task-invalid"),
        ("POST /orders/42", WEB, "buy", False, "deny scope"),
        ("GET /other", WEB, "buy", False, "deny scope"),
        ("GET /orders/42", other, "buy", False, "deny scope"),
    ]
    for order in (asked, asked[::-1], asked):
        for call, caller, purpose, has_task, verdict in order:
            said = world.ask(call, peer_of(caller), purpose=purpose, has_task=has_task)
            assert said == verdict, (call, caller, purpose, has_task)


def test_one_grant_lifts_all_that_may_be_lifted_at_once():
    agent = identity(kind="agent", expires="2027-01-01", purposes=["buy"])
    world = World(policy_of([agent]), GRANT)
    verdict = world.authorizer.decide(call_of("DELETE /orders/42"))
    assert (verdict.effect, verdict.reason, verdict.grant) == ("allow", "grant", "g1")
    assert verdict.lifted == ("scope", "purpose", "task-required") and set(map(type, verdict.lifted)) == {str}
    assert verdict.until_s == GRANT[1] and not verdict.streaming
    assert world.grants.asked == [(WEB, "DELETE", ("orders", "42"))]


@pytest.mark.parametrize(
    ("not_after_s", "expires", "until_s"),
    [
        (NOW + 5, "2027-01-01", NOW + 5),
        (FOREVER, "2026-11-24T12:00:07Z", NOW + 7),
        (FOREVER, "2027-01-01", NOW + 600),
    ],
)
def test_a_granted_call_ends_with_the_first_of_what_it_rests_on(not_after_s, expires, until_s):
    world = World(policy_of([identity(expires=expires)]), GRANT)
    verdict = world.authorizer.decide(call_of("DELETE /orders/42", peer_of(not_after_s=not_after_s)))
    assert verdict.reason == "grant" and verdict.until_s == until_s


def test_a_grant_is_asked_for_only_when_it_is_needed():
    world = World(grant=GRANT)
    assert world.ask() == "allow policy"
    assert world.grants.asked == []


def test_a_grant_is_judged_on_every_call():
    world = World()
    assert world.ask("DELETE /orders/42") == "deny scope"
    world.grants.grant = GRANT
    assert world.ask("DELETE /orders/42") == "allow grant"
    world.clock.advance(600)
    assert world.ask("DELETE /orders/42") == "deny scope"


FINAL = [
    ({}, {"deny": DENY}, "GET /orders/secret", False, "deny rule"),
    ({"purposes": ["buy"]}, {"deny": DENY}, "GET /orders/secret", False, "deny rule"),
    ({}, {"scopes": SEALED}, "DELETE /orders/42", False, "deny scope"),
    (
        {"scopes": ["orders:seal"], "purposes": ["buy"]},
        {"scopes": SEALED},
        "DELETE /orders/42",
        False,
        "deny purpose",
    ),
    (
        {"scopes": ["orders:seal"], "kind": "agent", "expires": "2027-01-01"},
        {"scopes": SEALED},
        "DELETE /orders/42",
        False,
        "deny task-required",
    ),
    ({}, {}, "CONNECT /orders/42", False, "deny scope"),
    ({}, {}, "TRACE /orders/42", False, "deny scope"),
    ({}, {}, "GET /orders/42", True, "deny task-invalid"),
    ({"kind": "agent", "expires": "2027-01-01"}, {}, "GET /orders/42", True, "deny task-required"),
    ({"expires": "2026-11-23"}, {}, "GET /orders/42", False, "deny identity-expired"),
]


@pytest.mark.parametrize(("said", "sections", "call", "has_task", "verdict"), FINAL)
def test_what_no_grant_lifts(said, sections, call, has_task, verdict):
    world = World(policy_of([identity(**said)], **sections), GRANT)
    for _ in range(2):
        assert world.ask(call, has_task=has_task) == verdict
    assert world.grants.asked == []


def test_a_seal_covers_what_its_rules_say_and_no_more():
    world = World(policy_of(scopes=SEALED), GRANT)
    assert world.ask("DELETE /orders/42") == "deny scope"
    assert world.ask("DELETE /orders/42/items") == "allow grant"
    assert world.ask("POST /orders/42") == "allow grant"


def test_only_four_reasons_may_be_lifted():
    assert {reason.value for reason in LIFTABLE} == {
        "scope",
        "purpose",
        "task-required",
        "policy-unavailable",
    }


def test_one_deny_rule_leaves_the_default_a_deny():
    """Consul CVE-2021-36213: a set with a deny rule began to allow all the rest."""
    world = World(policy_of(deny=DENY))
    assert world.ask("GET /orders/secret") == "deny rule"
    assert world.ask("GET /other") == "deny scope"
    assert world.ask("DELETE /orders/42") == "deny scope"


def test_a_rate_is_charged_for_allowed_calls_only():
    world = World(policy_of([identity(rate="2/s")]))
    for _ in range(5):
        assert world.ask("DELETE /orders/42") == "deny scope"
    assert [world.ask(), world.ask(), world.ask()] == ["allow policy", "allow policy", "deny rate"]
    verdict = world.authorizer.decide(call_of())
    assert verdict.retry_after_s == 1 and verdict.rule == "orders:read[0]"
    world.clock.advance(0.5)
    assert [world.ask(), world.ask()] == ["allow policy", "deny rate"]


def test_a_granted_call_is_charged_and_refused_by_rate_too():
    world = World(policy_of([identity(rate="1/h")]), GRANT)
    assert world.ask("DELETE /orders/42") == "allow grant"
    assert world.ask("DELETE /orders/42") == "deny rate"
    verdict = world.authorizer.decide(call_of())
    assert verdict.denial is Reason.RATE and verdict.retry_after_s == 3600 and verdict.grant is None


def test_a_reload_refills_no_bucket():
    policy = policy_of([identity(rate="2/h")])
    world = World(policy)
    world.ask(), world.ask()
    world.authorizer.replace_policy(policy)
    assert world.ask() == "deny rate"
    world.authorizer.replace_policy(policy_of())
    world.authorizer.replace_policy(policy_of([identity(rate="3/h")]))
    assert world.ask() == "deny rate"  # not even when the rate was gone in between, or is a larger one


def test_the_wall_clock_refills_no_bucket():
    world = World(policy_of([identity(rate="1/h")]))
    world.ask()
    world.clock.step_wall(7200)
    assert world.ask() == "deny rate"


def test_each_identity_has_a_bucket_of_its_own():
    other = "spiffe://demo.test/other"
    world = World(policy_of([identity(rate="1/h"), identity(other, rate="1/h")]))
    assert [world.ask(), world.ask(), world.ask(caller=peer_of(other))] == [
        "allow policy",
        "deny rate",
        "allow policy",
    ]


def test_examining_charges_nothing_and_says_the_same():
    world = World(policy_of([identity(rate="1/h")]))
    for _ in range(3):
        assert world.authorizer.examine(call_of()).verdict.is_allowed
    assert world.ask() == "allow policy"
    found = world.authorizer.examine(call_of())
    assert found.verdict.denial is Reason.RATE and found.ruling is not None and found.ruling.denials == ()


def test_a_new_policy_holds_for_the_next_call():
    world = World()
    before = world.authorizer.generation
    assert world.ask() == "allow policy"
    empty = policy_of([identity("spiffe://demo.test/other")])
    world.authorizer.replace_policy(empty)
    assert world.authorizer.generation != before and world.authorizer.policy is empty
    assert world.ask() == "deny unknown-identity"


def test_a_policy_that_cannot_be_used_replaces_nothing():
    world = World()
    before = world.authorizer.generation
    good = world.authorizer.policy
    with pytest.raises(PolicyError, match="no policy engine 'cedar'"):
        world.authorizer.replace_policy(Policy(good.sha256, good.owners, good.scopes, {}, engine="cedar"))
    assert world.authorizer.policy is good and world.authorizer.generation == before
    assert world.ask() == "allow policy"


def test_the_generation_changes_with_grants():
    world = World()
    before = world.authorizer.generation
    world.grants.generation += 1
    assert world.authorizer.generation != before


def test_what_is_remembered_is_bounded_in_number_and_size():
    world = World()
    for number in range(3 * REMEMBERED):
        world.ask(f"GET /orders/{number}")
    assert REMEMBERED <= len(world.authorizer._recent) <= 2 * REMEMBERED
    world = World()
    assert world.ask("GET /orders/" + "a" * MAX_REMEMBERED_CHARS) == "allow policy"
    assert world.ask(purpose="b" * MAX_REMEMBERED_CHARS) == "allow policy"
    assert world.ask(caller=peer_of("spiffe://demo.test/stranger")) == "deny unknown-identity"
    assert len(world.authorizer._recent) == 0


def test_a_remembered_allow_is_the_same_object():
    world, peer = World(), peer_of()
    first = world.authorizer.decide(call_of(caller=peer))
    assert world.authorizer.decide(call_of(caller=peer)) is first
    assert (
        world.authorizer.decide(call_of("GET /orders/43", peer)) is first
    )  # what hangs on it is found again
    refusals = {id(world.authorizer.decide(call_of(f"PUT /orders/{number}", peer))) for number in range(9)}
    assert len(refusals) == 1


def test_a_verdict_is_not_shared_where_anything_differs():
    other = "spiffe://demo.test/other"
    policy = policy_of([identity(environment="prod"), identity(other)], scopes=TWO_ROUTES)
    authorizer = World(policy).authorizer
    calls = [
        call_of("GET /orders/1", peer_of()),
        call_of("GET /orders/1", peer_of(not_after_s=3e9)),
        call_of("GET /orders/1", peer_of(other)),
        call_of("GET /orders", peer_of()),
        call_of("PUT /orders", peer_of()),
        call_of("PUT /orders", peer_of(other)),
    ]
    verdicts = [authorizer.decide(call) for call in calls]
    assert len(set(map(id, verdicts))) == len(calls)
    assert [verdict.environment for verdict in verdicts] == ["prod", "prod", None, "prod", "prod", None]
    assert [verdict.route for verdict in verdicts] == ["/orders/*"] * 3 + ["/orders", None, None]


def test_a_new_policy_writes_new_verdicts():
    world = World(policy_of([identity(environment="prod")]))
    assert world.authorizer.decide(call_of()).environment == "prod"
    world.authorizer.replace_policy(policy_of([identity(environment="test")]))
    verdict = world.authorizer.decide(call_of())
    assert (verdict.environment, verdict.policy) == ("test", world.authorizer.policy.sha256)


class BrokenGrants(FakeGrants):
    def find(self, *asked: object):
        raise OSError("disk")

    def is_in_force(self, *asked: object) -> bool:
        raise RecursionError


class BrokenClock(FakeClock):
    def monotonic_s(self) -> float:
        raise ValueError("no time")


def test_a_failure_while_deciding_is_a_refusal_and_told_once(caplog):
    authorizer = Authorizer(policy_of(), BrokenGrants(), FakeClock())
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            verdict = authorizer.decide(call_of("DELETE /orders/42"))
            assert verdict.denial is Reason.INTERNAL and verdict.policy == authorizer.policy.sha256
        assert authorizer.examine(call_of("DELETE /orders/42")).verdict.denial is Reason.INTERNAL
    assert [record.message for record in caplog.records] == ["deciding failed, so calls are refused"]
    assert authorizer.decide(call_of()).is_allowed


def test_a_rate_that_cannot_be_judged_is_a_refusal():
    world = World(policy_of([identity(rate="9/s")]))
    world.authorizer._clock = BrokenClock()
    assert world.ask() == "deny internal"


PERMIT_ELSEWHERE = {"orders:read": [{"methods": ["GET"], "paths": ["/"]}]}
DENY_ALL = [{"methods": ["*"], "paths": ["/**"]}]
AGENT = identity(kind="agent", expires="2027-01-01")
REVIEWS = [
    ("nothing changed", lambda world: None, None),
    ("the certificate ended", lambda world: world.clock.advance(1000), Reason.SVID_EXPIRED),
    ("unregistered", lambda world: replace(world, [identity("spiffe://a.test/x")]), Reason.UNKNOWN_IDENTITY),
    ("expired", lambda world: replace(world, [identity(expires="2026-11-23")]), Reason.IDENTITY_EXPIRED),
    ("the scope went", lambda world: replace(world, scopes=PERMIT_ELSEWHERE), Reason.SCOPE),
    ("a deny rule came", lambda world: replace(world, deny=DENY_ALL), Reason.RULE),
    ("a purpose is needed", lambda world: replace(world, [identity(purposes=["buy"])]), Reason.PURPOSE),
    ("it became an agent", lambda world: replace(world, [AGENT]), Reason.TASK_REQUIRED),
    ("the rate went down", lambda world: replace(world, [identity(rate="1/h")]), None),
]


def replace(world: World, *identities, **sections) -> None:
    world.authorizer.replace_policy(policy_of(*identities, **sections))


@pytest.mark.parametrize(("_name", "change", "reason"), REVIEWS, ids=[case[0] for case in REVIEWS])
def test_an_open_call_is_judged_anew(_name, change, reason):
    world = World(policy_of([identity(rate="1/h")]))
    call = call_of(caller=peer_of(not_after_s=NOW + 1000))
    verdict = world.authorizer.decide(call)
    change(world)
    for _ in range(3):  # and never charged: the rate of one an hour is used up by the call itself
        assert world.authorizer.review(call, verdict) is reason


def test_a_grant_that_came_later_does_not_keep_a_call_open_that_policy_ended():
    """Its use was never recorded."""
    world = World()
    call = call_of()
    verdict = world.authorizer.decide(call)
    world.grants.grant = GRANT
    replace(world, [identity(purposes=["buy"])])
    assert world.authorizer.review(call, verdict) is Reason.PURPOSE


def test_a_call_under_a_grant_lives_as_long_as_the_grant():
    world = World(grant=GRANT)
    call = call_of("DELETE /orders/42")
    verdict = world.authorizer.decide(call)
    assert world.authorizer.review(call, verdict) is None
    world.grants.grant = ("g2", FOREVER)
    assert world.authorizer.review(call, verdict) is Reason.SCOPE  # another grant's use was never recorded
    world.grants.grant = GRANT
    replace(world, deny=DENY_ALL)
    assert world.authorizer.review(call, verdict) is Reason.RULE
    replace(world, scopes={"orders:read": [{"methods": ["DELETE"], "paths": ["/orders/*"]}]})
    assert world.authorizer.review(call, verdict) is None
    world.clock.advance(600)
    assert world.authorizer.review(call, verdict) is Reason.SCOPE  # although policy would permit it by now


def test_a_failure_while_reviewing_ends_the_call(caplog):
    world = World(grant=GRANT)
    call = call_of("DELETE /orders/42")
    verdict = world.authorizer.decide(call)
    world.authorizer._grants = BrokenGrants()
    assert world.authorizer.review(call, verdict) is Reason.INTERNAL
    assert len(caplog.records) == 1
