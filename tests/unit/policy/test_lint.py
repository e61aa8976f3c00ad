from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from sidecar.policy.lint import warn_of
from sidecar.policy.loader import parse_policy

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def warnings(now: datetime = NOW, **changes: object) -> list[str]:
    identity = {"id": "spiffe://demo.test/web", "owner": "team", "kind": "service", "scopes": ["s"]}
    document = {
        "version": "1",
        "owners": {"team": {"contact": "#team"}},
        "scopes": {"s": [{"methods": ["GET"], "paths": ["/x"]}]},
        "identities": [identity | changes.pop("identity", {})],  # type: ignore[operator]
    }
    return warn_of(parse_policy(json.dumps(document | changes).encode(), "p"), now)


def test_nothing_to_say():
    assert warnings() == []


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"identity": {"expires": "2026-11-23"}}, "spiffe://demo.test/web has ended at 2026-11-24T00:00:00Z"),
        ({"identity": {"kind": "agent", "expires": "2027-01-01"}}, "is an agent: its calls are refused"),
        (
            {"owners": {"team": {"contact": "#a", "review_by": "2026-11-23"}}},
            "should have been reviewed by 2026-11-23",
        ),
        ({"owners": {"team": {"contact": "#a"}, "x": {"contact": "#a"}}}, "owner x owns nothing"),
        (
            {"scopes": {name: [{"methods": ["GET"], "paths": ["/x"]}] for name in ("s", "t")}},
            "scope t is given to nobody",
        ),
        (
            {"scopes": {"s": {"rules": [{"methods": ["*"], "paths": ["/x"]}], "unsafe_any_method": "true"}}},
            "s[0] permits any method (unsafe_any_method)",
        ),
        ({"scopes": {"s": [{"methods": ["GET"], "paths": ["/x", "/**"]}]}}, "s[0] permits every path (/**)"),
    ],
)
def test_each_finding(changes, warning):
    (only,) = warnings(**changes)
    assert warning in only


def test_days_count_whole():
    assert warnings(identity={"expires": "2026-11-24"}) == []
    assert warnings(owners={"team": {"contact": "#a", "review_by": "2026-11-24"}}) == []


def test_the_services_owner_is_used():
    owners = {"team": {"contact": "#a"}, "x": {"contact": "#b"}}
    assert warnings(owners=owners, service={"owner": "x"}) == []
