from __future__ import annotations

import pytest

from sidecar.breakglass.entries import (
    Ended,
    GrantAccepted,
    Reviewed,
    Revoked,
    TimeSeen,
    Used,
    UsedBefore,
    Voided,
)
from sidecar.breakglass.ledger import REMEMBER_S, REMEMBER_UNREVIEWED_S, Ledger
from sidecar.errors import StateError
from tests.fakes.clock import FakeClock
from tests.fakes.orders import make_grant, make_review, make_revocation, sign_order

CLOCK = FakeClock()
NOW_S = CLOCK.wall_s()
GRANT = make_grant(CLOCK, max_uses=3)
ACCEPTED = GrantAccepted(NOW_S, NOW_S, sign_order(GRANT, "oncall"))


def ledger(*entries) -> Ledger:
    made = Ledger()
    for entry in entries:
        made.apply(entry)
    return made


def used(call: str = "call") -> Used:
    return Used(NOW_S + 1, NOW_S + 1, GRANT.id, call)


def counting(*entries) -> Ledger:
    """A ledger whose grant has been judged and has begun."""
    made = ledger(ACCEPTED, *entries)
    held = made.grants[GRANT.id]
    held.doubt, held.end_boot_s = None, 900.0
    return made


def state(made: Ledger, wall_s: float = NOW_S, boot_s: float = 0.0) -> str:
    return made.state(made.grants[GRANT.id], wall_s, boot_s)


def test_what_becomes_of_a_grant():
    assert state(counting()) == "active"
    assert state(counting(used(), used(), used())) == "used-up"
    assert (
        state(counting(Revoked(NOW_S, NOW_S, sign_order(make_revocation(CLOCK, GRANT.id), "lead"))))
        == "revoked"
    )
    assert state(counting(Voided(NOW_S, NOW_S, "why"))) == "void"
    assert state(counting(Ended(NOW_S, NOW_S, GRANT.id))) == "ended"
    assert state(counting(), wall_s=NOW_S + 900) == "ended"
    assert state(counting(), boot_s=900.0) == "ended"
    assert state(ledger(ACCEPTED)) == "unbacked"
    waiting = ledger(ACCEPTED)
    waiting.grants[GRANT.id].doubt = None
    assert state(waiting) == "waiting"


@pytest.mark.parametrize("name", ["unbacked", "waiting", "ended", "revoked", "void"])
def test_only_what_is_active_or_used_up_is_in_force(name):
    made = counting()
    held = made.grants[GRANT.id]
    assert made.is_in_force(held, NOW_S, 0.0)
    match name:
        case "unbacked":
            held.doubt = "unknown-signer"
        case "waiting":
            held.end_boot_s = None
        case "ended":
            held.is_ended = True
        case "revoked":
            made.apply(Revoked(NOW_S, NOW_S, sign_order(make_revocation(CLOCK, GRANT.id), "lead")))
        case "void":
            held.is_void = True
    assert made.state(held, NOW_S, 0.0) == name and not made.is_in_force(held, NOW_S, 0.0)


def test_the_end_is_the_earlier_of_the_two_clocks():
    held = counting().grants[GRANT.id]
    assert held.end_s(NOW_S, 0.0) == GRANT.not_after_s
    assert held.end_s(NOW_S - 600, 0.0) == NOW_S + 300
    held.end_boot_s = None
    assert held.end_s(NOW_S - 600, 0.0) == GRANT.not_after_s


def test_grants_after_a_void_are_not_void():
    other = make_grant(CLOCK, id="b" * 32)
    made = ledger(
        ACCEPTED,
        Voided(NOW_S + 5, NOW_S + 5, "why"),
        GrantAccepted(NOW_S, NOW_S, sign_order(other, "oncall")),
    )
    assert made.void_before_s == NOW_S + 5
    assert made.grants[GRANT.id].is_void and not made.grants[other.id].is_void


def test_the_same_grant_twice_counts_from_the_first():
    later = GrantAccepted(NOW_S + 100, NOW_S + 100, ACCEPTED.order)
    assert ledger(ACCEPTED, later).grants[GRANT.id].accepted_at_s == NOW_S


def test_the_highest_time_of_all_entries_counts():
    assert ledger(TimeSeen(5.0, 9.0), TimeSeen(7.0, 7.0)).seen_s == 9.0


def test_what_is_said_about_grants_that_are_forgotten_does_no_harm():
    review = sign_order(make_review(CLOCK, "b" * 32), "lead")
    made = ledger(
        used(),
        UsedBefore(1.0, 1.0, "b" * 32, 3, 1.0, 1.0),
        Ended(1.0, 1.0, "b" * 32),
        Reviewed(1.0, 1.0, review),
    )
    assert made.grants == {}


def test_uses_add_up():
    made = ledger(ACCEPTED, UsedBefore(NOW_S, NOW_S, GRANT.id, 1, NOW_S - 5, NOW_S - 3), used("call-2"))
    held = made.grants[GRANT.id]
    assert (held.uses, held.first_use_s, held.last_use_s) == (2, NOW_S - 5, NOW_S + 1)
    assert held.calls == {"call-2"} and held.has_use_left


@pytest.mark.parametrize(
    ("entries", "age_s", "kept"),
    [
        ((), REMEMBER_S, True),
        ((), REMEMBER_S + 1, False),
        ((used(),), REMEMBER_S + 1, True),
        ((used(),), REMEMBER_UNREVIEWED_S, True),
        ((used(),), REMEMBER_UNREVIEWED_S + 1, False),
        (
            (used(), Reviewed(NOW_S, NOW_S, sign_order(make_review(CLOCK, GRANT.id), "lead"))),
            REMEMBER_S + 1,
            False,
        ),
    ],
)
def test_how_long_a_grant_is_remembered(entries, age_s, kept):
    made = ledger(ACCEPTED, *entries)
    made.forget(GRANT.not_after_s + age_s)
    assert (GRANT.id in made.grants) is kept


def test_revocations_are_never_forgotten():
    made = ledger(Revoked(NOW_S, NOW_S, sign_order(make_revocation(CLOCK, GRANT.id), "lead")))
    made.forget(NOW_S + 10**9)
    assert GRANT.id in made.revocations


def test_a_snapshot_leads_to_the_same():
    other = make_grant(CLOCK, id="b" * 32)
    made = ledger(
        ACCEPTED,
        used("call-1"),
        Ended(NOW_S, NOW_S, GRANT.id),
        Reviewed(NOW_S, NOW_S, sign_order(make_review(CLOCK, GRANT.id), "lead")),
        Voided(NOW_S + 5, NOW_S + 5, "why"),
        GrantAccepted(NOW_S, NOW_S, sign_order(other, "oncall")),
        Revoked(NOW_S, NOW_S, sign_order(make_revocation(CLOCK, "c" * 32), "lead")),
        TimeSeen(NOW_S, NOW_S + 77),
    )
    again = ledger(*made.snapshot())
    for one, two in zip(made.grants.values(), again.grants.values(), strict=True):
        one.calls = two.calls = set()  # calls do not outlive the process
        assert one == two
    assert again.revocations == made.revocations and again.seen_s == made.seen_s
    assert (again.void_before_s, again.void_why) == (made.void_before_s, made.void_why)


@pytest.mark.parametrize(
    "entry",
    [
        GrantAccepted(1.0, 1.0, b"nonsense"),
        GrantAccepted(1.0, 1.0, sign_order(make_revocation(CLOCK, GRANT.id), "lead")),
        Revoked(1.0, 1.0, ACCEPTED.order),
        Reviewed(1.0, 1.0, ACCEPTED.order),
    ],
)
def test_an_order_that_is_none_is_damage(entry):
    with pytest.raises(StateError):
        ledger(entry)
