"""What records say of caller and decision, and how metrics are labelled."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.authz.reasons import Reason
from sidecar.metrics import SidecarMetrics
from sidecar.proxy.accounts import Accounts, Standings, build_denial, format_time
from tests.fakes.data_plane import ALLOW, DENY, GRANTED, make_peer


def test_a_standing_says_what_the_verdict_says():
    standings = Standings(make_peer(), Accounts(SidecarMetrics()))
    standing = standings.find(replace(GRANTED, environment="prod", until_s=1_795_000_000.9))
    assert (standing.caller.id, standing.caller.serial, standing.caller.source) == (
        *("spiffe://demo.test/web", "5f0c"),
        "10.0.4.7",
    )
    assert (standing.caller.owner, standing.caller.kind, standing.caller.env) == ("team", "service", "prod")
    decision = standing.decision
    assert (decision.effect, decision.reason, decision.policy) == ("allow", "grant", "sha256:0")
    assert (decision.rule, decision.grant, decision.lifted) == ("rule 1", "g1", ("scope",))
    assert decision.until == "2026-11-18T11:06:40Z"


def test_a_standing_is_kept_by_the_very_object_and_not_by_its_address():
    standings = Standings(make_peer(), Accounts(SidecarMetrics()))
    first = standings.find(ALLOW)
    assert standings.find(ALLOW) is first
    for number in range(1000):  # new objects at addresses that were used before
        verdict = replace(ALLOW, owner=f"team-{number}", until_s=float(number))
        standing = standings.find(verdict)
        assert standing.verdict is verdict
        assert standing.caller.owner == f"team-{number}"
        assert standing.decision.until == format_time(number)


def test_callers_with_nothing_registered_are_told_apart_from_those_with():
    standings = Standings(make_peer(), Accounts(SidecarMetrics()))
    assert standings.find(replace(DENY, owner=None, kind=None)).caller.owner is None
    assert standings.find(DENY).caller.owner == "team"
    assert standings.find(replace(DENY, owner=None, kind=None)).caller.owner is None


@pytest.mark.parametrize(
    ("wall_s", "text"),
    [
        (0.0, "1970-01-01T00:00:00Z"),
        (59.999, "1970-01-01T00:00:59Z"),
        (253_402_300_799.0, "9999-12-31T23:59:59Z"),
        (1e300, "9999-12-31T23:59:59Z"),
        (float("inf"), "9999-12-31T23:59:59Z"),
    ],
)
def test_times_are_rounded_down_and_never_too_far(wall_s: float, text: str):
    assert format_time(wall_s) == text


def test_a_denial_of_our_own_names_the_policy_if_one_was_asked():
    assert build_denial(Reason.MALFORMED).policy is None
    standing = Standings(make_peer(), Accounts(SidecarMetrics())).find(ALLOW)
    denial = build_denial(Reason.OVERLOADED, standing.decision)
    assert (denial.effect, denial.reason, denial.policy, denial.rule) == (
        "deny",
        "overloaded",
        "sha256:0",
        None,
    )


def test_a_strangers_methods_make_no_labels():
    metrics = SidecarMetrics()
    accounts = Accounts(metrics)
    for method in ("GET", "BREW", "X" * 100, None):
        accounts.count_call(method, 200, "allow", "policy", 0.1, 0.001)
    accounts.count_call("GET", None, "allow", "policy", 0.1, 0.001)
    labels = ("inbound", "other", "200", "allow", "policy")
    assert metrics.requests.labels(*labels).value == 3
    assert metrics.requests.labels("inbound", "GET", "200", "allow", "policy").value == 1
    assert metrics.requests.labels("inbound", "GET", "none", "allow", "policy").value == 1
    assert sum(metrics.request_duration.labels("inbound").counts) == 5
    assert metrics.request_overhead.labels("inbound").sum == pytest.approx(0.005)
