from __future__ import annotations

import json

from sidecar.breakglass.entries import GrantAccepted, Reviewed, Revoked, Used
from sidecar.breakglass.ledger import REVIEW_WITHIN_S, Ledger
from sidecar.breakglass.listing import describe_held
from tests.fakes.clock import FakeClock
from tests.fakes.orders import make_grant, make_review, make_revocation, sign_order

CLOCK = FakeClock()
NOW_S = CLOCK.wall_s()
GRANT = make_grant(CLOCK, max_uses=3)


def described(*entries, wall_s: float = NOW_S) -> dict:
    ledger = Ledger()
    ledger.apply(GrantAccepted(NOW_S, NOW_S, sign_order(GRANT, "oncall")))
    for entry in entries:
        ledger.apply(entry)
    return describe_held(ledger.grants[GRANT.id], ledger, wall_s, 0.0)


def test_it_says_everything_in_types_of_json():
    shown = described(
        Used(NOW_S + 5, NOW_S, GRANT.id, "call"),
        Revoked(NOW_S, NOW_S, sign_order(make_revocation(CLOCK, GRANT.id), "lead")),
        Reviewed(NOW_S, NOW_S, sign_order(make_review(CLOCK, GRANT.id), "lead")),
    )
    assert json.loads(json.dumps(shown)) == shown
    assert shown["grant"] == GRANT.id and shown["subject"] == "spiffe://demo.test/web"
    assert shown["allow"] == [{"methods": ["DELETE"], "path": "/orders/*"}]
    assert shown["first_use"] == shown["last_use"] == "2026-11-24T12:00:05Z"
    assert shown["revoked"] == {
        "by": "lead", "reason": "it was the wrong order", "signed_at": "2026-11-24T12:00:00Z",
    }  # fmt: skip
    assert shown["reviews"][0]["note"] == "one order deleted, as asked"


def test_what_a_review_is_asked_for():
    use = Used(NOW_S, NOW_S, GRANT.id, "call")
    late_s = GRANT.not_after_s + REVIEW_WITHIN_S
    assert described()["review"] == "none"
    assert described(wall_s=late_s + 1)["review"] == "none"
    assert described(use)["review"] == "due"
    assert described(use, wall_s=late_s)["review"] == "due"
    assert described(use, wall_s=late_s + 1)["review"] == "overdue"
    review = Reviewed(NOW_S, NOW_S, sign_order(make_review(CLOCK, GRANT.id), "lead"))
    assert described(use, review, wall_s=late_s + 1)["review"] == "done"
