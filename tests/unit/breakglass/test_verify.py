from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.breakglass.order import decode_order, encode_order, encode_payload
from sidecar.breakglass.signers import NO_SIGNERS
from sidecar.breakglass.sshsig import sign_message
from sidecar.breakglass.verify import GrantRules, verify_grant, verify_single
from sidecar.errors import OrderRefused
from tests.fakes.clock import FakeClock
from tests.fakes.orders import (
    ORDERS,
    OTHER,
    key_of,
    make_grant,
    make_review,
    make_revocation,
    sign_order,
    signers_of,
)

CLOCK = FakeClock()
NOW_S = CLOCK.wall_s()
SIGNERS = signers_of("oncall", "oncall#2", "lead", "lead#2", "third")
ONE, TWO = GrantRules(3600, 1), GrantRules(3600, 2)


def verify(data: bytes, *, own_id=ORDERS, now_s=NOW_S, rules=ONE, signers=SIGNERS) -> tuple[str, ...]:
    return verify_grant(decode_order(data), signers, own_id, now_s, rules)


def code_of(data: bytes, **options) -> str:
    with pytest.raises(OrderRefused) as refusal:
        verify(data, **options)
    return refusal.value.code


def test_the_requester_alone_is_enough_where_one_is_asked_for():
    assert verify(sign_order(make_grant(CLOCK), "oncall")) == ("oncall",)


def test_two_people_are_enough_where_two_are_asked_for():
    data = sign_order(make_grant(CLOCK), "oncall", "lead")
    assert verify(data, rules=TWO) == verify(data) == ("oncall", "lead")


@pytest.mark.parametrize(
    ("names", "rules", "code"),
    [
        pytest.param(["oncall"], TWO, "approvals", id="one of two"),
        pytest.param(["oncall", "lead"], GrantRules(3600, 3), "approvals", id="two of three"),
        pytest.param(["stranger"], ONE, "unknown-signer", id="a stranger"),
        pytest.param(["oncall", "stranger"], ONE, "unknown-signer", id="a stranger too many"),
        pytest.param(["lead"], ONE, "wrong-signer", id="not the requester"),
        pytest.param(["lead", "oncall"], TWO, "wrong-signer", id="the requester second"),
    ],
)
def test_who_has_to_sign(names, rules, code):
    assert code_of(sign_order(make_grant(CLOCK), *names), rules=rules) == code


def test_bg_01_the_same_key_twice_is_no_second_approval():
    assert code_of(sign_order(make_grant(CLOCK), "oncall", "lead", "lead"), rules=TWO) == "duplicate-signer"
    assert code_of(sign_order(make_grant(CLOCK), "oncall", "oncall"), rules=TWO) == "self-approval"


def test_bg_02_a_person_with_two_keys_is_one_person():
    assert code_of(sign_order(make_grant(CLOCK), "oncall", "lead", "lead#2"), rules=TWO) == "duplicate-signer"


def test_bg_03_the_requester_approves_nothing_with_whatever_key():
    assert code_of(sign_order(make_grant(CLOCK), "oncall", "oncall#2"), rules=TWO) == "self-approval"


def test_bg_04_a_signature_is_over_the_payload_and_nothing_shorter():
    """What is seen is what is signed: a summary, the id, or another payload do not do."""
    grant = make_grant(CLOCK)
    payload = encode_payload(grant)
    good = sign_message(key_of("oncall"), payload)
    summary = "\n".join([grant.id, str(grant.subject), grant.reason]).encode()
    wider = encode_payload(make_grant(CLOCK, ttl_s=3600))
    for signed in (summary, grant.id.encode(), wider, payload + b"\n", b""):
        data = encode_order(payload, (good, sign_message(key_of("lead"), signed)))
        assert code_of(data, rules=TWO) == "signature"


def test_bg_04_every_changed_byte_of_an_order_is_refused():
    data = sign_order(make_grant(CLOCK), "oncall")
    for place in range(len(data)):
        for flip in (0x01, 0x20, 0x80):
            changed = bytearray(data)
            changed[place] ^= flip
            with pytest.raises(OrderRefused):
                verify(bytes(changed))


@given(st.data())
def test_bg_04_bytes_put_in_or_taken_out_are_refused(data):
    good = sign_order(make_grant(CLOCK), "oncall")
    start = data.draw(st.integers(0, len(good)))
    stop = data.draw(st.integers(start, min(len(good), start + 40)))
    inserted = data.draw(st.binary(max_size=40))
    if inserted != good[start:stop]:
        with pytest.raises(OrderRefused):
            verify(good[:start] + inserted + good[stop:])


def test_bg_07_a_grant_for_another_sidecar_is_refused():
    data = sign_order(make_grant(CLOCK), "oncall")
    assert code_of(data, own_id=OTHER) == "audience"
    wide = sign_order(make_grant(CLOCK, audience=(), wide="demo.test"), "oncall")
    assert verify(wide, own_id=OTHER) == ("oncall",)
    elsewhere = sign_order(make_grant(CLOCK, audience=(), wide="other.test"), "oncall")
    assert code_of(elsewhere) == "audience"


@pytest.mark.parametrize(
    ("ttl_s", "max_ttl_s", "ok"),
    [
        (3600, 3600, True),
        (3601, 3600, False),
        (14400, 14400, True),
        (14401, 14400, False),
        (14401, 10**6, False),
    ],
)
def test_a_grant_is_no_longer_than_the_ceiling(ttl_s, max_ttl_s, ok):
    data = sign_order(make_grant(CLOCK, ttl_s=ttl_s), "oncall")
    if ok:
        assert verify(data, rules=GrantRules(max_ttl_s, 1))
    else:
        assert code_of(data, rules=GrantRules(max_ttl_s, 1)) == "too-long"


@pytest.mark.parametrize(
    ("now_s", "code"),
    [
        (NOW_S - 31, "not-yet"),
        (NOW_S - 30.001, "not-yet"),
        (NOW_S - 30, None),
        (NOW_S, None),
        (NOW_S + 899.999, None),
        (NOW_S + 900, "expired"),
        (NOW_S + 901, "expired"),
        (0.0, "not-yet"),
        (1e12, "expired"),
    ],
)
def test_skew_is_allowed_to_the_beginning_only(now_s, code):
    data = sign_order(make_grant(CLOCK), "oncall")
    if code is None:
        assert verify(data, now_s=now_s)
    else:
        assert code_of(data, now_s=now_s) == code


@pytest.mark.parametrize(("age_s", "ok"), [(86400, True), (86401, False)])
def test_what_was_signed_a_day_ago_is_too_old(age_s, ok):
    begins_s = int(NOW_S)
    grant = make_grant(CLOCK, signed_at_s=begins_s - age_s, not_before_s=begins_s, not_after_s=begins_s + 60)
    data = sign_order(grant, "oncall")
    if ok:
        assert verify(data)
    else:
        assert code_of(data) == "too-old"


def test_bg_12_a_life_that_begins_far_in_the_past_is_too_long():
    """Whatever the beginning says, the end is at most one ceiling after it, and both are bounded."""
    now_s = int(NOW_S)
    grant = make_grant(CLOCK, signed_at_s=1, not_before_s=1, not_after_s=now_s + 60)
    assert code_of(sign_order(grant, "oncall")) == "too-long"
    grant = make_grant(CLOCK, not_after_s=253_402_300_799)
    assert code_of(sign_order(grant, "oncall")) == "too-long"


def test_without_signers_everything_is_refused():
    assert code_of(sign_order(make_grant(CLOCK), "oncall"), signers=NO_SIGNERS) == "no-signers"
    with pytest.raises(OrderRefused) as refusal:
        verify_single(decode_order(sign_order(make_revocation(CLOCK, "0" * 32), "lead")), NO_SIGNERS)
    assert refusal.value.code == "no-signers"


@pytest.mark.parametrize("approvals", [0, -1])
def test_fewer_than_one_approval_cannot_be_asked_for(approvals):
    assert verify(sign_order(make_grant(CLOCK), "oncall"), rules=GrantRules(3600, approvals)) == ("oncall",)


def test_the_signatures_are_judged_before_what_they_sign():
    """A stranger learns nothing about audience, ceiling or clock."""
    wrong_everywhere = make_grant(CLOCK, ttl_s=10**6, audience=(OTHER,))
    assert code_of(sign_order(wrong_everywhere, "stranger")) == "unknown-signer"
    assert code_of(sign_order(wrong_everywhere, "oncall")) == "audience"
    assert code_of(sign_order(make_grant(CLOCK, ttl_s=10**6), "oncall"), now_s=0.0) == "too-long"


@pytest.mark.parametrize("make", [make_revocation, make_review])
def test_revocations_and_reviews_have_one_signer(make):
    def check(*names: str) -> str:
        return verify_single(decode_order(sign_order(make(CLOCK, "0" * 32), *names)), SIGNERS)

    assert check("lead") == "lead" == check("lead#2")
    for names, code in (
        (("oncall",), "wrong-signer"),
        (("lead", "oncall"), "malformed"),
        (("x",), "unknown-signer"),
    ):
        with pytest.raises(OrderRefused) as refusal:
            check(*names)
        assert refusal.value.code == code


def test_one_kind_is_not_taken_for_another():
    with pytest.raises(OrderRefused, match="is no grant"):
        verify(sign_order(make_revocation(CLOCK, "0" * 32), "lead"))
    with pytest.raises(OrderRefused, match="neither revocation nor review"):
        verify_single(decode_order(sign_order(make_grant(CLOCK), "oncall")), SIGNERS)
