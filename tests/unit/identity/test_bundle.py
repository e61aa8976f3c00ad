"""Bundles in PEM, SPIFFE's JSON and bundle maps: what is read, what is left out, what is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import IdentityError
from sidecar.identity.bundle import (
    MAX_BUNDLE_BYTES,
    Bundle,
    parse_any_bundle,
    parse_bundle,
    parse_bundle_map,
    parse_pem_bundle,
)
from tests.fakes.certificates import DemoAuthority, key_pem, pem

ONE, TWO = DemoAuthority(), DemoAuthority()
LEAF = ONE.issue("spiffe://demo.test/web").leaf


def b64(certificate: x509.Certificate) -> str:
    return base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()


def entry(certificate: x509.Certificate = ONE.certificate, **changes: Any) -> dict[str, Any]:
    """A JWK for an authority; a change to None takes the member out."""
    members = {"kty": "EC", "use": "x509-svid", "x5c": [b64(certificate)], **changes}
    return {name: value for name, value in members.items() if value is not None}


def document(*entries: Any, **members: Any) -> bytes:
    return json.dumps({"keys": list(entries), **members}).encode()


def parse(data: bytes) -> Bundle:
    return parse_bundle("demo.test", data)


def refusal(data: bytes, rule: str) -> str:
    with pytest.raises(IdentityError) as raised:
        parse(data)
    assert raised.value.rule == rule, (raised.value.rule, str(raised.value))
    assert "\n" not in str(raised.value)
    return str(raised.value)


# SPIFFE's JSON


def test_a_bundle_as_spire_publishes_it():
    point = ONE.key.public_key().public_numbers()
    numbers = {
        name: base64.urlsafe_b64encode(value.to_bytes(32, "big")).decode().rstrip("=")
        for name, value in (("x", point.x), ("y", point.y))
    }
    data = document(
        entry(crv="P-256", **numbers),
        {"kty": "EC", "kid": "a", "use": "jwt-svid", "crv": "P-256", **numbers},
        spiffe_sequence=7,
        spiffe_refresh_hint=300,
    )
    assert parse(data) == Bundle("demo.test", (ONE.certificate,), sequence=7, refresh_hint_s=300)


def test_bu_01_the_name_comes_from_outside_and_is_checked():
    assert parse_bundle("other.test", document()).trust_domain == "other.test"
    for wrong in ("Demo.test", "", "spiffe://demo.test"):
        with pytest.raises(IdentityError):
            parse_bundle(wrong, document())


def test_bu_02_unknown_members_are_allowed():
    assert parse(document(entry(more=[{}]), x={"y": None})).authorities == (ONE.certificate,)


def test_bu_03_sequence():
    assert parse(document()).sequence is None
    assert parse(document(spiffe_sequence=0)).sequence == 0
    assert parse(document(spiffe_sequence=2**64 - 1)).sequence == 2**64 - 1


@pytest.mark.parametrize("value", [-1, 2**64, 1.0, 1.5, "1", True, None, [], {}], ids=repr)
def test_bu_03_bu_04_numbers_are_whole(value):
    refusal(document(spiffe_sequence=value), "BU-03")
    refusal(document(spiffe_refresh_hint=value), "BU-04")


def test_bu_04_refresh_hint():
    assert parse(document()).refresh_hint_s is None
    assert parse(document(spiffe_refresh_hint=60)).refresh_hint_s == 60


@pytest.mark.parametrize(
    "data", [b"{}", b'{"keys": null}', b'{"keys": {}}', b'{"keys": "x"}', b'{"Keys": []}']
)
def test_bu_05_keys_is_there_and_an_array(data):
    refusal(data, "BU-05")


def test_bu_05_an_empty_array_revokes_everything():
    assert parse(document()) == Bundle("demo.test", ())


@pytest.mark.parametrize(
    "changes",
    [{"kty": None}, {"kty": "oct"}, {"kty": "ec"}, {"kty": 7}, {"kty": ["EC"]}, {"use": None}, {"use": "jwt-svid"},
     {"use": "wit-svid"}, {"use": "X509-SVID"}, {"use": "sig"}, {"use": ["x509-svid"]}],
    ids=repr,
)  # fmt: skip
def test_bu_06_an_entry_of_unknown_kind_or_use_is_left_out(changes):
    data = document(entry(**changes), entry(TWO.certificate))
    assert parse(data).authorities == (TWO.certificate,)
    assert parse(document(entry(**changes))) == Bundle("demo.test", ())


@pytest.mark.parametrize("chain", [None, []], ids=repr)
def test_x5_22_an_entry_without_certificate_is_left_out(chain):
    assert parse(document(entry(x5c=chain), entry(TWO.certificate))).authorities == (TWO.certificate,)


def test_x5_22_only_the_first_certificate_of_an_entry_counts():
    assert parse(document(entry(x5c=[b64(ONE.certificate), b64(TWO.certificate)]))).authorities == (
        ONE.certificate,
    )
    assert parse(document(entry(x5c=[b64(ONE.certificate), 7]))).authorities == (ONE.certificate,)


def test_x5_21_base64_and_not_base64url():
    der = ONE.certificate.public_bytes(Encoding.DER)
    while not set(base64.urlsafe_b64encode(der)) & set(b"-_"):
        der = DemoAuthority().certificate.public_bytes(Encoding.DER)
    for wrong in (
        base64.urlsafe_b64encode(der).decode(),
        b64(ONE.certificate)[:-1],
        b64(ONE.certificate) + "=",
        b64(ONE.certificate) + "====",
        "\ud800",
        "\n" + b64(ONE.certificate),
        base64.encodebytes(der).decode(),
        "\u00e9",
        "*",
    ):
        assert "base64" in refusal(document(entry(x5c=[wrong])), "X5-21")


@pytest.mark.parametrize("chain", ["x", {}, 7, [7], [None], [[]], True], ids=repr)
def test_x5_21_a_chain_of_another_type(chain):
    refusal(document(entry(x5c=chain)), "X5-21")


@pytest.mark.parametrize("der", [b"", b"\x30\x00", b"x" * 100])
def test_x5_21_a_chain_that_is_no_certificate(der):
    refusal(document(entry(x5c=[base64.b64encode(der).decode()])), "FORM")


def test_x5_21_an_entry_that_shows_another_key_than_its_certificate():
    refusal(document(entry(kty="RSA")), "X5-21")
    refusal(document(entry(x="AAAA")), "X5-21")


def test_x5_21_pem_in_the_place_of_base64():
    refusal(document(entry(x5c=[pem(ONE.certificate).decode()])), "X5-21")


def test_x5_23_a_leaf_does_not_become_an_authority():
    data = document(entry(LEAF), entry(DemoAuthority(basic_constraints=None).certificate))
    assert parse(data) == Bundle("demo.test", ())
    assert parse(document(entry(LEAF), entry())).authorities == (ONE.certificate,)


def test_one_broken_entry_refuses_the_whole_and_is_named():
    assert "keys[1]" in refusal(document(entry(), entry(x5c=["*"])), "X5-21")
    for wrong in (None, 7, "x", []):
        assert "keys[0]" in refusal(document(wrong), "BU-02")


def test_the_same_authority_twice_is_one():
    assert parse(document(entry(), entry(TWO.certificate), entry())).authorities == (
        ONE.certificate,
        TWO.certificate,
    )


@pytest.mark.parametrize(
    "data",
    [
        b'{"keys": [], "keys": []}',
        b'{"keys": [], "spiffe_sequence": 1, "spiffe_sequence": 2}',
        b'{"keys": [{"kty": "EC", "use": "jwt-svid", "use": "x509-svid"}]}',
        b'{"keys": [], "x": {"a": 1, "\\u0061": 2}}',
    ],
)
def test_bu_10_doubled_members_are_refused_at_every_level(data):
    assert "twice" in refusal(data, "BU-10")


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"null", b"7", b'"x"', b"{", b'{"keys": []', b'{"keys": []}x', b'{"keys": []}{}', b"{'keys': []}",
     b'{"keys": [],}', b'\xef\xbb\xbf{"keys": []}', b'{"keys": [], "x": NaN}', b'{"keys": [], "x": -Infinity}',
     b'{"keys": [], "x": "\xff"}', '{"keys": []}'.encode("utf-16"), '{"keys": []}'.encode("utf-32"),
     b'{"keys": [], "x": ' + b"9" * 5000 + b"}", b'{"keys": [], "x": "\n"}'],
    ids=lambda data: repr(data[:30]),
)  # fmt: skip
def test_bu_02_what_is_not_one_json_object(data):
    refusal(data, "BU-02")


def test_nesting_without_end_is_refused():
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        deep = b'{"keys": [], "x": ' + opening * 200_000 + b"1" + closing * 200_000 + b"}"
        refusal(deep, "BU-02")


def test_size():
    data = document(entry())
    assert parse(data + b" " * (MAX_BUNDLE_BYTES - len(data)))
    refusal(data + b" " * (MAX_BUNDLE_BYTES - len(data) + 1), "FORM")


# Bundle maps


def bundle_map(**domains: Any) -> bytes:
    return json.dumps(
        {"trust_domains": {name.replace("_", "."): value for name, value in domains.items()}}
    ).encode()


def map_refusal(data: bytes, rule: str) -> None:
    for parser in (parse_bundle_map, lambda data: parse_any_bundle("demo.test", data)):
        with pytest.raises(IdentityError) as raised:
            parser(data)
        assert raised.value.rule == rule, str(raised.value)


def test_bu_09_a_map_holds_a_bundle_for_each_trust_domain():
    data = bundle_map(
        demo_test={"keys": [entry()]}, other_test={"keys": [entry(TWO.certificate)], "spiffe_sequence": 1}
    )
    assert parse_bundle_map(data) == {
        "demo.test": Bundle("demo.test", (ONE.certificate,)),
        "other.test": Bundle("other.test", (TWO.certificate,), sequence=1),
    }


def test_bu_09_a_map_may_be_empty():
    assert parse_bundle_map(b'{"trust_domains": {}}') == {}


@pytest.mark.parametrize("domains", ["null", "[]", "7", '"x"'])
def test_bu_09_the_map_is_an_object(domains):
    map_refusal(b'{"trust_domains": %b}' % domains.encode(), "BU-09")


def test_bu_09_a_map_without_its_member():
    with pytest.raises(IdentityError) as raised:
        parse_bundle_map(document(entry()))
    assert raised.value.rule == "BU-09"


def test_bu_10_doubled_trust_domains_are_refused():
    map_refusal(b'{"trust_domains": {"a": {"keys": []}, "a": {"keys": []}}}', "BU-10")
    map_refusal(b'{"trust_domains": {}, "trust_domains": {}}', "BU-10")


@pytest.mark.parametrize(
    ("domain", "rule"),
    [
        ("", "ID-02"),
        ("Demo.test", "ID-05"),
        ("spiffe://demo.test", "ID-04"),
        ("a:1", "ID-04"),
        ("a/b", "ID-05"),
    ],
)
def test_bu_09_names_of_trust_domains_are_checked(domain, rule):
    map_refusal(json.dumps({"trust_domains": {domain: {"keys": []}}}).encode(), rule)


def test_bu_11_a_map_is_taken_as_a_whole_or_not():
    map_refusal(bundle_map(demo_test={"keys": [entry()]}, other_test={}), "BU-05")
    map_refusal(bundle_map(demo_test={"keys": [entry()]}, other_test=[]), "BU-02")


# PEM


def test_pem_authorities_in_their_order_and_once():
    data = pem(ONE.certificate, TWO.certificate, ONE.certificate)
    assert parse_pem_bundle("demo.test", data) == Bundle("demo.test", (ONE.certificate, TWO.certificate))


def test_pem_certificates_that_are_no_authorities_are_left_out():
    other = DemoAuthority(basic_constraints=(x509.BasicConstraints(False, None), True)).certificate
    assert parse_pem_bundle("demo.test", pem(LEAF, ONE.certificate, other)).authorities == (ONE.certificate,)


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"", "FORM"),
        (b"\n", "FORM"),
        (pem(LEAF), "BU-07"),
        (pem(DemoAuthority(basic_constraints=None).certificate), "BU-07"),
        (pem(ONE.certificate) + b"junk", "FORM"),
        (b"junk\n" + pem(ONE.certificate), "FORM"),
        (pem(ONE.certificate)[:-20], "FORM"),
        (pem(ONE.certificate)[:200] + pem(ONE.certificate), "FORM"),
        (pem(ONE.certificate) + key_pem(ONE.key), "FORM"),
        (ONE.certificate.public_bytes(Encoding.DER), "FORM"),
        (pem(ONE.certificate) + b" " * MAX_BUNDLE_BYTES, "FORM"),
    ],
    ids=range(11),
)
def test_pem_that_is_refused(data, rule):
    for parser in (parse_pem_bundle, parse_any_bundle):
        with pytest.raises(IdentityError) as raised:
            parser("demo.test", data)
        assert raised.value.rule == rule, str(raised.value)


def test_pem_a_key_in_the_file_is_not_shown():
    with pytest.raises(IdentityError) as raised:
        parse_pem_bundle("demo.test", key_pem(ONE.key))
    assert key_pem(ONE.key).splitlines()[1].decode() not in str(raised.value)


def test_pem_the_trust_domain_is_checked():
    with pytest.raises(IdentityError):
        parse_pem_bundle("Demo.test", pem(ONE.certificate))


# Any of them


def test_the_form_is_found_out():
    expected = {"demo.test": Bundle("demo.test", (ONE.certificate,))}
    for data in (pem(ONE.certificate), document(entry()), bundle_map(demo_test={"keys": [entry()]})):
        assert parse_any_bundle("demo.test", data) == expected
        assert parse_any_bundle("demo.test", b" \r\n\t" + data) == expected


def test_a_map_does_not_need_the_own_trust_domain():
    assert parse_any_bundle("demo.test", bundle_map(other_test={"keys": []})).keys() == {"other.test"}


def test_what_is_a_bundle_and_a_map_at_once_is_refused():
    data = json.dumps({"keys": [], "trust_domains": {}}).encode()
    with pytest.raises(IdentityError) as raised:
        parse_any_bundle("demo.test", data)
    assert raised.value.rule == "BU-09"


# Whatever comes

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.just(b64(ONE.certificate)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["kty", "use", "x5c", "keys", "crv", "x", "a.test"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)
jwks = st.fixed_dictionaries(
    {"kty": st.sampled_from(["EC", "RSA"]) | values, "use": st.just("x509-svid") | values, "x5c": values},
    optional={"x": values, "n": values, "crv": values},
)
documents = st.fixed_dictionaries(
    {},
    optional={
        "keys": st.lists(jwks | values, max_size=3) | values,
        "trust_domains": st.dictionaries(
            st.text(max_size=8), st.fixed_dictionaries({"keys": values}), max_size=2
        )
        | values,
        "spiffe_sequence": values,
    },
)
inputs = (
    st.binary(max_size=200)
    | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | documents.map(lambda value: json.dumps(value).encode())
    | st.tuples(st.just(document(entry())), st.integers(0, 200), st.binary(max_size=3)).map(
        lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] + 1 :]
    )
)


@settings(max_examples=400, deadline=None)
@given(inputs)
def test_parsers_give_bundles_of_authorities_or_an_identity_error(data):
    for parser in (
        lambda: parse_any_bundle("demo.test", data),
        lambda: parse_bundle_map(data),
        lambda: {"demo.test": parse_bundle("demo.test", data)},
        lambda: {"demo.test": parse_pem_bundle("demo.test", data)},
    ):
        try:
            bundles = parser()
        except IdentityError:
            continue
        for name, bundle in bundles.items():
            assert bundle.trust_domain == name
            for authority in bundle.authorities:
                assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
