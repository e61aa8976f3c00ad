from __future__ import annotations

import struct

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.breakglass.grant import MAX_AUDIENCE, MAX_TARGETS, MAX_USES, parse_target
from sidecar.breakglass.order import (
    MAGIC,
    MAX_ORDER_BYTES,
    MAX_SIGNATURES,
    decode_order,
    decode_payload,
    encode_order,
    encode_payload,
)
from sidecar.breakglass.packing import pack
from sidecar.errors import OrderRefused
from sidecar.identity.spiffe_id import parse_workload_id
from tests.fakes.clock import FakeClock
from tests.fakes.orders import make_grant, make_review, make_revocation, sign_order, sign_payload

CLOCK = FakeClock()
GRANT = make_grant(CLOCK)
PAYLOAD = encode_payload(GRANT)
MEMBERS = msgpack.unpackb(PAYLOAD)
BODIES = [
    GRANT,
    make_grant(CLOCK, max_uses=3),
    make_grant(CLOCK, audience=(), wide="demo.test"),
    make_grant(CLOCK, reason="störung", allow=(parse_target("GET,HEAD /a/**"), parse_target("PUT /b"))),
    make_revocation(CLOCK, GRANT.id),
    make_review(CLOCK, GRANT.id),
]


def refusal_of(payload: bytes) -> OrderRefused:
    with pytest.raises(OrderRefused) as refusal:
        decode_payload(payload)
    return refusal.value


@pytest.mark.parametrize("body", BODIES, ids=lambda body: type(body).__name__)
def test_what_is_encoded_comes_back(body):
    order = decode_order(sign_order(body, "oncall"))
    assert order.body == body and order.payload == encode_payload(body) and len(order.signatures) == 1


def with_member(name: str, value: object) -> dict[str, object]:
    return {**MEMBERS, name: value}


def without(*names: str) -> dict[str, object]:
    return {name: value for name, value in MEMBERS.items() if name not in names}


@pytest.mark.parametrize("name", list(MEMBERS))
def test_no_member_may_be_missing(name):
    assert refusal_of(pack(without(name))).code == "malformed"


@pytest.mark.parametrize("name", list(MEMBERS))
@pytest.mark.parametrize(
    "value",
    [None, True, 1.5, -1, 2**64 - 1, "", "\n", b"", b"x", [], [[]], {}, [{}], [None], [1], [""]],
    ids=repr,
)
def test_no_member_may_be_of_another_kind(name, value):
    if value != MEMBERS[name]:
        assert refusal_of(pack(with_member(name, value))).code == "malformed"


def test_bg_05_unknown_members_are_refused():
    for extra in ("x", "wider", "Audience", "max-uses"):
        assert refusal_of(pack(with_member(extra, 1))).code == "malformed"
    allow = [{"methods": ["DELETE"], "path": "/orders/*", "any": True}]
    assert refusal_of(pack(with_member("allow", allow))).code == "malformed"


def test_bg_05_doubled_members_are_refused():
    pairs = b"".join(pack(name) + pack(value) for name, value in MEMBERS.items())
    doubled = struct.pack(">BH", 0xDE, len(MEMBERS) + 1) + pairs + pack("reason") + pack("something else")
    assert refusal_of(doubled).code == "malformed"


def test_bg_05_another_order_of_members_is_refused():
    assert refusal_of(pack(dict(reversed(MEMBERS.items())))).code == "malformed"


@pytest.mark.parametrize(
    "long_form",
    [
        pytest.param((pack(1), b"\xd0\x01"), id="a number in two bytes"),
        pytest.param((pack("kind"), b"\xd9\x04kind"), id="a text with its length apart"),
        pytest.param((pack(1), b"\xcf" + bytes(7) + b"\x01"), id="a number in nine bytes"),
    ],
)
def test_bg_05_long_forms_of_the_same_value_are_refused(long_form):
    short, long = long_form
    assert decode_payload(PAYLOAD)
    assert refusal_of(PAYLOAD.replace(short, long, 1)).code == "malformed"


@pytest.mark.parametrize("name", ["signed_at", "not_before", "not_after"])
@pytest.mark.parametrize(
    "value",
    [
        0,
        -1,
        "2026-11-24T12:15:00Z",
        "1795521600",
        1795521600.0,
        float("inf"),
        float("nan"),
        2**63,
        10**12,
        None,
    ],
    ids=repr,
)
def test_bg_12_times_are_whole_seconds_of_this_era(name, value):
    assert refusal_of(pack(with_member(name, value))).code == "malformed"


def test_bg_12_a_timestamp_of_msgpack_is_no_number():
    assert refusal_of(pack(with_member("not_after", msgpack.Timestamp(1795521600)))).code == "malformed"


@pytest.mark.parametrize(
    "changes",
    [
        {"not_after_s": GRANT.not_before_s},
        {"not_after_s": GRANT.not_before_s - 1},
        {"not_before_s": GRANT.signed_at_s - 1},
    ],
)
def test_bg_12_times_stand_in_order(changes):
    assert "not in this order" in str(refusal_of(encode_payload(make_grant(CLOCK, **changes))))


def test_exactly_one_of_audience_and_wide():
    assert "exactly one" in str(refusal_of(pack(without("audience"))))
    assert "exactly one" in str(refusal_of(pack(with_member("wide", "demo.test"))))
    for wide in ("", "Demo.test", "demo.test/", "spiffe://demo.test", "*"):
        members = {name if name != "audience" else "wide": value for name, value in MEMBERS.items()}
        assert refusal_of(pack({**members, "wide": wide})).code == "malformed"


@pytest.mark.parametrize(
    "text",
    [
        "spiffe://demo.test",
        "spiffe://Demo.test/web",
        "spiffe://demo.test/web/",
        "spiffe://demo.test./web/..",
        "SPIFFE://demo.test/web",
        "spiffe://demo.test/wéb",
        "spiffe://demo.test/web\n",
        "spiffe://demo.test/%77eb",
        "spiffe://dеmo.test/web",
        "",
    ],
)
def test_bg_15_ids_that_only_look_like_one_are_refused(text):
    assert refusal_of(pack(with_member("subject", text))).code == "malformed"
    assert refusal_of(pack(with_member("audience", [text]))).code == "malformed"


def test_bg_15_case_tells_ids_apart():
    web, other = parse_workload_id("spiffe://demo.test/web"), parse_workload_id("spiffe://demo.test/Web")
    assert decode_payload(encode_payload(make_grant(CLOCK, subject=other))) != GRANT
    assert web != other


def test_the_audience_names_nobody_twice():
    twice = make_grant(CLOCK, audience=GRANT.audience * 2)
    assert "twice" in str(refusal_of(encode_payload(twice)))


def audience(count: int):
    return tuple(parse_workload_id(f"spiffe://demo.test/s{number}") for number in range(count))


@pytest.mark.parametrize(
    ("changes", "ok"),
    [
        ({"audience": audience(MAX_AUDIENCE)}, True),
        ({"audience": audience(MAX_AUDIENCE + 1)}, False),
        ({"audience": ()}, False),
        ({"allow": GRANT.allow * MAX_TARGETS}, True),
        ({"allow": GRANT.allow * (MAX_TARGETS + 1)}, False),
        ({"allow": ()}, False),
        ({"max_uses": 1}, True),
        ({"max_uses": MAX_USES}, True),
        ({"max_uses": 0}, False),
        ({"max_uses": MAX_USES + 1}, False),
        ({"max_uses": 1, "audience": audience(2)}, False),
        ({"max_uses": 1, "audience": (), "wide": "demo.test"}, False),
    ],
)
def test_numbers_have_bounds(changes, ok):
    payload = encode_payload(make_grant(CLOCK, **changes))
    if ok:
        decode_payload(payload)
    else:
        assert refusal_of(payload).code == "malformed"


@pytest.mark.parametrize("allow", [["DELETE /orders/*"], [{"methods": ["GET"]}], [{"path": "/"}], [[]]])
def test_targets_have_their_shape(allow):
    assert refusal_of(pack(with_member("allow", allow))).code == "malformed"


@pytest.mark.parametrize(
    "methods", [[], ["*"], ["get"], ["GET", "GET"], "GET", [b"GET"], [1], [None], ["GET\n"]]
)
def test_methods_are_words_in_capitals(methods):
    allow = [{"methods": methods, "path": "/orders/*"}]
    assert refusal_of(pack(with_member("allow", allow))).code == "malformed"


@pytest.mark.parametrize("path", ["", "orders", "/a*", "/a/../b", "/a//b", "/%7e", 7, None, b"/"])
def test_paths_are_canonical_patterns(path):
    allow = [{"methods": ["GET"], "path": path}]
    assert refusal_of(pack(with_member("allow", allow))).code == "malformed"


@pytest.mark.parametrize("version", [0, 2, "1", True, 1.0, None])
def test_another_version_is_refused(version):
    assert "version" in str(refusal_of(pack(with_member("v", version))))


@pytest.mark.parametrize("kind", ["Grant", "lock", "", 1, None, ["grant"], b"grant", {}])
def test_another_kind_is_refused(kind):
    assert "kind" in str(refusal_of(pack(with_member("kind", kind))))


@pytest.mark.parametrize("payload", [pack(None), pack([]), pack([MEMBERS]), pack("grant"), b""])
def test_a_payload_is_a_map(payload):
    assert refusal_of(payload).code == "malformed"


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([], id="empty"),
        pytest.param([MAGIC, PAYLOAD], id="no signatures"),
        pytest.param([MAGIC, PAYLOAD, [b"s"], 1], id="one part more"),
        pytest.param(["sidecar-order-2", PAYLOAD, [b"s"]], id="another version"),
        pytest.param([MAGIC.encode(), PAYLOAD, [b"s"]], id="bytes as magic"),
        pytest.param([MAGIC, MEMBERS, [b"s"]], id="the payload is no bytes"),
        pytest.param([MAGIC, PAYLOAD.decode("latin-1"), [b"s"]], id="the payload is text"),
        pytest.param([MAGIC, PAYLOAD, b"s"], id="the signatures are bytes"),
        pytest.param([MAGIC, PAYLOAD, []], id="the list is empty"),
        pytest.param([MAGIC, PAYLOAD, ["s"]], id="a signature is text"),
        pytest.param([MAGIC, PAYLOAD, [b"s"] * (MAX_SIGNATURES + 1)], id="too many"),
        pytest.param({"magic": MAGIC}, id="a map"),
        pytest.param(7, id="a number"),
    ],
)
def test_an_order_has_its_shape(parts):
    with pytest.raises(OrderRefused) as refusal:
        decode_order(pack(parts))
    assert refusal.value.code == "malformed"


def test_an_order_in_a_long_form_is_refused():
    good = encode_order(PAYLOAD, (b"s",))
    assert decode_order(good)
    for long in (b"\xdc\x00\x03" + good[1:], good.replace(b"\xc4", b"\xc5\x00", 1), good + b"\xc0"):
        with pytest.raises(OrderRefused):
            decode_order(long)


def test_bg_14_size_is_judged_before_anything_else():
    def order_of(length: int) -> bytes:
        bare = len(encode_order(PAYLOAD, (b"x" * 300,))) - 300
        return encode_order(PAYLOAD, (b"x" * (length - bare),))

    largest = order_of(MAX_ORDER_BYTES)
    assert len(largest) == MAX_ORDER_BYTES and decode_order(largest)
    for data in (order_of(MAX_ORDER_BYTES + 1), b"\x91" * (MAX_ORDER_BYTES + 1), bytes(1 << 20)):
        with pytest.raises(OrderRefused) as refusal:
            decode_order(data)
        assert refusal.value.code == "too-large"


@pytest.mark.parametrize("depth", [5, 9, 100, 1000, 10000])
def test_nothing_is_deeper_than_a_grant_is(depth):
    deep: bytes = b"\x91" * depth + b"\xc0"
    for data in (deep, PAYLOAD.replace(pack("INC-4711 stuck order"), deep)):
        assert refusal_of(data).code == "malformed"


@given(st.binary(max_size=600))
def test_any_bytes_give_an_order_or_a_refusal(data):
    for decode in (decode_order, decode_payload):
        try:
            decode(data)
        except OrderRefused as exc:
            assert exc.code == "malformed"


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text("ab \n\x1bé😀", max_size=8)
    | st.binary(max_size=8)
    | st.sampled_from(list(MEMBERS.values())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(list(MEMBERS)), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from([*MEMBERS, "wide", "max_uses", "grant", "signer", "note"]), VALUES))
def test_any_members_give_a_body_or_a_refusal(changes):
    """And whatever is accepted has exactly one encoding: the bytes that were read."""
    for members in ({**MEMBERS, **changes}, changes):
        payload = pack(members)
        try:
            body = decode_payload(payload)
        except OrderRefused as exc:
            assert exc.code == "malformed"
        else:
            assert encode_payload(body) == payload


@given(st.data())
def test_a_changed_byte_is_never_read_as_the_same(data):
    place = data.draw(st.integers(0, len(PAYLOAD) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda byte: byte != PAYLOAD[place]))
    changed = PAYLOAD[:place] + bytes([value]) + PAYLOAD[place + 1 :]
    try:
        body = decode_payload(changed)
    except OrderRefused:
        return
    assert body != GRANT and encode_payload(body) == changed


def test_signatures_are_over_the_payload_as_it_lies_there():
    assert decode_order(sign_payload(PAYLOAD, "oncall")).payload == PAYLOAD
