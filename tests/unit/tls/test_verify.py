"""Every rule that a peer's chain is held to, each refusal by name; and a second opinion from OpenSSL."""

from __future__ import annotations

import ipaddress
import warnings
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import crypto

from sidecar.errors import IdentityError
from sidecar.identity.bundle import Bundle, Bundles
from sidecar.identity.spiffe_id import SpiffeId, parse_workload_id
from sidecar.tls import verify
from sidecar.tls.verify import MAX_CHAIN_CERTIFICATES, verify_peer
from tests.fakes.certificates import (
    DAY,
    HOUR,
    SECOND,
    START,
    DemoAuthority,
    Issued,
    both_usages,
    common_name,
    key_usage,
    new_key,
    rsa_key,
    uri_names,
    with_explicit_curve,
)

WEB = "spiffe://demo.test/web"
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00")
EMPTY = x509.Name([])


@pytest.fixture(scope="module")
def authority() -> DemoAuthority:
    return DemoAuthority()


def judge(issued: Issued | Sequence[x509.Certificate], bundles: Bundles, now: datetime = START) -> SpiffeId:
    return verify_peer(issued.chain if isinstance(issued, Issued) else issued, bundles, now)


def refusal(
    issued: Issued | Sequence[x509.Certificate], bundles: Bundles, rule: str, now: datetime = START
) -> str:
    """The message of the refusal, which has to be for ``rule``."""
    with pytest.raises(IdentityError) as raised:
        judge(issued, bundles, now)
    message = str(raised.value)
    assert raised.value.rule == rule, (raised.value.rule, message)
    assert "\n" not in message and message.isprintable(), message
    return message


# What is accepted


def test_a_leaf_straight_from_the_authority(authority):
    assert judge(authority.issue(WEB), authority.bundles()) == parse_workload_id(WEB)


def test_a_leaf_from_an_intermediate(authority):
    middle = DemoAuthority(parent=DemoAuthority(parent=authority))
    issued = middle.issue(WEB)
    assert len(issued.chain) == 3
    assert judge(issued, authority.bundles()) == parse_workload_id(WEB)


def test_the_list_and_the_certificates_may_be_of_any_sequence_type(authority):
    issued = authority.issue(WEB)
    assert judge(list(issued.chain), authority.bundles()) == judge(tuple(issued.chain), authority.bundles())


@pytest.mark.parametrize(
    "key",
    [
        new_key(),
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa_key(2048),
        rsa_key(4096),
    ],
    ids=["p256", "p384", "ed25519", "rsa2048", "rsa4096"],
)
def test_leaf_keys_that_are_accepted(authority, key):
    assert judge(authority.issue(WEB, key=key), authority.bundles())


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP384R1()), rsa_key(2048), rsa_key(4096)],
    ids=["p384", "rsa2048", "rsa4096"],
)
def test_authority_keys_that_are_accepted(key):
    authority = DemoAuthority(key=key)
    assert judge(authority.issue(WEB), authority.bundles())
    middle = DemoAuthority(parent=authority, key=key)
    assert judge(middle.issue(WEB), authority.bundles())


@pytest.mark.parametrize("digest", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()], ids=lambda d: d.name)
def test_digests_that_are_accepted(authority, digest):
    assert judge(authority.issue(WEB, digest=digest), authority.bundles())


def test_the_shape_of_spire_is_accepted():
    """C=US,O=SPIRE; digitalSignature, keyEncipherment, keyAgreement; an upstream root without any URI."""
    upstream = DemoAuthority(uris=(), subject=common_name("corporate root"))
    server = DemoAuthority(parent=upstream, path_length=0)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SPIRE"),
        ]
    )
    issued = server.issue(
        WEB,
        subject=subject,
        dns_names=(),
        ip_addresses=(),
        key_usage=(key_usage("digital_signature", "key_encipherment", "key_agreement"), True),
    )
    assert judge(issued, upstream.bundles())


def test_x5_02_any_number_of_other_names(authority):
    addresses = [str(ipaddress.ip_address(number)) for number in range(1, 20)]
    issued = authority.issue(WEB, dns_names=[f"n{i}.test" for i in range(50)], ip_addresses=addresses)
    assert judge(issued, authority.bundles())


def test_x5_02_other_names_than_uri_dns_and_address(authority):
    names: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(WEB),
        x509.RFC822Name("a@demo.test"),
        x509.OtherName(x509.ObjectIdentifier("1.2.3.4"), b"\x0c\x03a\x00b"),
        x509.DirectoryName(common_name("x")),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
    ]
    issued = authority.issue(WEB, subject_alternative_name=(x509.SubjectAlternativeName(names), False))
    assert judge(issued, authority.bundles())


# 1. The chain's size, readability and keys


def test_chain_empty_is_refused(authority):
    assert "no certificate" in refusal([], authority.bundles(), "CHAIN")


def test_chain_of_five_is_accepted_and_of_six_is_refused(authority):
    issued = authority.issue(WEB)
    extra = [DemoAuthority().certificate for _ in range(MAX_CHAIN_CERTIFICATES)]
    assert MAX_CHAIN_CERTIFICATES == 5
    assert judge([issued.leaf, *extra[:4]], authority.bundles())
    assert "6 certificates" in refusal([issued.leaf, *extra], authority.bundles(), "CHAIN")


def test_chain_of_64_kib_is_accepted_and_of_one_byte_more_is_refused(authority):
    def chain_of(size: int) -> list[x509.Certificate]:
        """Serial and signature vary in length, so the filling is found by trying."""
        filling = size - 2000
        while True:
            extension = x509.UnrecognizedExtension(UNKNOWN.oid, bytes(filling))
            issued = authority.issue(WEB, extra=[(extension, False)], serial=1 << 100)
            have = len(issued.leaf.public_bytes(Encoding.DER))
            if have == size:
                return list(issued.chain)
            filling += size - have if abs(size - have) > 8 else (1 if have < size else -1)

    assert judge(chain_of(64 * 1024), authority.bundles())
    assert "65537 bytes" in refusal(chain_of(64 * 1024 + 1), authority.bundles(), "CHAIN")


def test_form_a_certificate_whose_extensions_cannot_be_read(authority):
    broken = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"\x30\x05\x86\x10a")
    issued = authority.issue(WEB, subject_alternative_name=(broken, False))
    refusal(issued, authority.bundles(), "FORM")


def test_form_an_intermediate_that_cannot_be_read(authority):
    broken = DemoAuthority(
        parent=authority, extra=[(x509.UnrecognizedExtension(x509.NameConstraints.oid, b"\x31"), True)]
    )
    refusal([authority.issue(WEB).leaf, broken.certificate], authority.bundles(), "FORM")


def test_form_a_name_of_a_kind_that_the_library_does_not_read(authority):
    """x400Address: refused, because what cannot be read cannot be held to any rule."""
    odd = x509.UnrecognizedExtension(
        x509.SubjectAlternativeName.oid, b"\x30\x1a\x86\x16" + WEB.encode() + b"\xa3\x00"
    )
    refusal(authority.issue(WEB, subject_alternative_name=(odd, False)), authority.bundles(), "FORM")


def test_form_a_serial_number_that_is_not_positive(authority):
    der = authority.issue(WEB, serial=0x10 << 96).leaf.public_bytes(Encoding.DER)
    negative = der.replace(b"\x02\x0d\x10" + bytes(12), b"\x02\x0d\x90" + bytes(12))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library warns, and reads on
        leaf = x509.load_der_x509_certificate(negative)
        assert "serial" in refusal([leaf], authority.bundles(), "FORM")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (rsa_key(1024), "1024 bits"),
        (rsa_key(2040), "2040 bits"),
        (rsa_key(4104), "4104 bits"),
        (ec.generate_private_key(ec.SECP192R1()), "secp192r1"),
        (ec.generate_private_key(ec.SECP224R1()), "secp224r1"),
        (ec.generate_private_key(ec.SECP256K1()), "secp256k1"),
        (ec.generate_private_key(ec.SECP521R1()), "secp521r1"),
        (ec.generate_private_key(ec.BrainpoolP256R1()), "brainpoolP256r1"),
        (ed448.Ed448PrivateKey.generate(), "Ed448"),
        (dsa.generate_private_key(2048), "DSA"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_e18_key_of_a_leaf_or_of_an_intermediate_is_refused(authority, key, words):
    assert words in refusal(authority.issue(WEB, key=key), authority.bundles(), "KEY")
    middle = DemoAuthority(parent=authority, key=key)
    assert words in refusal([authority.issue(WEB).leaf, middle.certificate], authority.bundles(), "KEY")


def test_e18_key_of_an_anchor_is_refused_too():
    """The verifier of the library takes P-521; only the last step looks at what is trusted."""
    authority = DemoAuthority(key=ec.generate_private_key(ec.SECP521R1()))
    assert "secp521r1" in refusal(authority.issue(WEB), authority.bundles(), "KEY")
    authority = DemoAuthority(key=rsa_key(4104))
    assert "4104" in refusal(authority.issue(WEB), authority.bundles(), "KEY")


@pytest.mark.parametrize(
    "key",
    [rsa_key(1024), ec.generate_private_key(ec.SECP224R1()), ed25519.Ed25519PrivateKey.generate()],
    ids=["rsa1024", "p224", "ed25519"],
)
def test_e18_signatures_by_weak_or_foreign_kinds_of_authority_are_refused(key):
    authority = DemoAuthority(key=key)
    refusal(authority.issue(WEB), authority.bundles(), "X5-16")


def test_e18_key_on_a_curve_given_by_parameters_is_refused(authority):
    """Even P-256's own: the library takes it for the named curve, and whoever reads parameters reads others too."""
    explicit = with_explicit_curve(authority.issue(WEB).leaf, authority.key)
    assert isinstance(explicit.public_key().curve, ec.SECP256R1)
    explicit.verify_directly_issued_by(authority.certificate)
    assert "parameters" in refusal([explicit], authority.bundles(), "KEY")


def test_e18_key_that_cannot_be_read_is_refused(authority):
    der = authority.issue(WEB).leaf.public_bytes(Encoding.DER)
    ec_public_key, unknown = bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06072a8648ce3d0209")
    leaf = x509.load_der_x509_certificate(der.replace(ec_public_key, unknown))
    assert "cannot be read" in refusal([leaf], authority.bundles(), "KEY")


def test_e18_signature_by_an_unknown_algorithm_is_refused(authority):
    der = authority.issue(WEB).leaf.public_bytes(Encoding.DER)
    ecdsa_sha256, unknown = bytes.fromhex("06082a8648ce3d040302"), bytes.fromhex("06082a8648ce3d04030b")
    leaf = x509.load_der_x509_certificate(der.replace(ecdsa_sha256, unknown))
    assert "unknown algorithm" in refusal([leaf], authority.bundles(), "SIGNATURE")


# 2. The name


@pytest.mark.parametrize("count", [0, 2, 3])
def test_x5_01_any_count_of_uri_sans_but_one(authority, count):
    issued = authority.issue([f"spiffe://demo.test/{i}" for i in range(count)])
    assert f"{count} URI names" in refusal(issued, authority.bundles(), "X5-01")


def test_x5_01_the_same_uri_san_twice(authority):
    refusal(authority.issue([WEB, WEB]), authority.bundles(), "X5-01")


@pytest.mark.parametrize("other", ["https://demo.test/", "urn:a:b", ""])
def test_x5_01_a_second_uri_of_another_scheme_counts(authority, other):
    refusal(authority.issue([WEB, other]), authority.bundles(), "X5-01")
    refusal(authority.issue([other, WEB]), authority.bundles(), "X5-01")


def test_x5_01_e9_no_alternative_name_at_all(authority):
    refusal(authority.issue(WEB, subject_alternative_name=None), authority.bundles(), "X5-01")


def test_x5_01_a_spiffe_id_as_dns_name_or_subject_is_none(authority):
    issued = authority.issue((), dns_names=[WEB], subject=common_name(WEB))
    refusal(issued, authority.bundles(), "X5-01")


def test_x5_03_e12_the_trust_domain_itself_is_no_workload(authority):
    refusal(authority.issue("spiffe://demo.test"), authority.bundles(), "X5-03")


BAD_NAMES = [
    (b"https://demo.test/web", "ID-01"),
    (b"SPIFFE://demo.test/web", "ID-01"),
    (b"spiffe:/demo.test/web", "ID-01"),
    (b" spiffe://demo.test/web", "ID-01"),
    (b"", "ID-01"),
    (b"spiffe:///web", "ID-02"),
    (b"spiffe://demo.test/web?", "ID-03"),
    (b"spiffe://demo.test/web?a=b", "ID-03"),
    (b"spiffe://demo.test/web#", "ID-03"),
    (b"spiffe://user@demo.test/web", "ID-04"),
    (b"spiffe://demo.test:443/web", "ID-04"),
    (b"spiffe://DEMO.test/web", "ID-05"),
    (b"spiffe://[::1]/web", "ID-04"),
    (b"spiffe://d%65mo.test/web", "ID-06"),
    (b"spiffe://demo.test/%77eb", "ID-06"),
    (b"spiffe://demo.test/web ", "ID-08"),
    (b"spiffe://demo.test/web\n", "ID-08"),
    (b"spiffe://demo.test/web\x00", "ID-08"),
    (b"spiffe://demo.test/web\x00.evil", "ID-08"),
    (b"spiffe://demo.test\x00.evil/web", "ID-05"),
    (b"spiffe://demo.test\n/web", "ID-05"),
    (b"spiffe://demo.test/web~1", "ID-08"),
    (b"spiffe://demo.test/a\\b", "ID-08"),
    (b"spiffe://demo.test//web", "ID-09"),
    (b"spiffe://demo.test/./web", "ID-09"),
    (b"spiffe://demo.test/a/../web", "ID-09"),
    (b"spiffe://demo.test/web/", "ID-10"),
    (b"spiffe://demo.test/", "ID-10"),
    (b"spiffe://demo.test/" + b"a" * 2030, "ID-11"),
    (b"spiffe://" + b"d" * 256 + b"/web", "ID-12"),
]


@pytest.mark.parametrize(("uri", "rule"), BAD_NAMES, ids=[repr(uri)[2:40] for uri, _ in BAD_NAMES])
def test_e11_a_name_that_is_no_spiffe_id(authority, uri, rule):
    refusal(authority.issue(uri), authority.bundles(), rule)


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://demo.test/w\u00e9b".encode(),
        "spiffe://demo.test/\u212a".encode(),
        b"spiffe://demo.test/\xff",
    ],
    ids=["utf8", "kelvin", "latin1"],
)
def test_e11_a_name_outside_of_ascii_is_refused(authority, uri):
    with pytest.raises(IdentityError) as raised:
        judge(authority.issue(uri), authority.bundles())
    assert raised.value.rule in ("FORM", "ID-08")


def test_e16_nul_in_a_dns_name_neither_cuts_it_nor_matters(authority):
    assert judge(authority.issue(WEB, dns_names=["localhost\x00.evil"]), authority.bundles())


def test_id_11_the_longest_name_is_accepted(authority):
    longest = "spiffe://demo.test/" + "a" * (2048 - len("spiffe://demo.test/"))
    assert str(judge(authority.issue(longest), authority.bundles())) == longest


# 3. The leaf's shape


def test_x5_04_without_a_subject_the_name_has_to_be_critical(authority):
    assert judge(
        authority.issue(WEB, subject=EMPTY, subject_alternative_name=uri_names(WEB, critical=True)),
        authority.bundles(),
    )
    refusal(authority.issue(WEB, subject=EMPTY), authority.bundles(), "X5-04")


def test_x5_04_with_a_subject_the_name_may_be_critical(authority):
    issued = authority.issue(WEB, subject_alternative_name=uri_names(WEB, critical=True))
    assert judge(issued, authority.bundles())


Extension = tuple[x509.ExtensionType, bool] | None


def purposes(*oids: x509.ObjectIdentifier) -> x509.ExtendedKeyUsage:
    return x509.ExtendedKeyUsage(oids)


BAD_SHAPES: list[tuple[str, str, str, Extension]] = [
    ("x5_05_e13_ca_true", "X5-05", "basic_constraints", (x509.BasicConstraints(True, None), True)),
    ("x5_05_ca_true_pathlen_0", "X5-05", "basic_constraints", (x509.BasicConstraints(True, 0), True)),
    ("x5_05_ca_true_not_critical", "X5-05", "basic_constraints", (x509.BasicConstraints(True, None), False)),
    ("x5_05_absent", "X5-05", "basic_constraints", None),
    ("x5_06_absent", "X5-06", "key_usage", None),
    ("x5_06_not_critical", "X5-06", "key_usage", (key_usage("digital_signature"), False)),
    ("x5_07_only_encipherment", "X5-07", "key_usage", (key_usage("key_encipherment"), True)),
    ("x5_07_only_agreement", "X5-07", "key_usage", (key_usage("key_agreement"), True)),
    ("x5_08_cert_sign", "X5-08", "key_usage", (key_usage("digital_signature", "key_cert_sign"), True)),
    ("x5_08_crl_sign", "X5-08", "key_usage", (key_usage("digital_signature", "crl_sign"), True)),
    ("x5_09_e15_server_only", "X5-09", "extended_key_usage", (purposes(ExtendedKeyUsageOID.SERVER_AUTH), False)),
    ("x5_09_e15_client_only", "X5-09", "extended_key_usage", (purposes(ExtendedKeyUsageOID.CLIENT_AUTH), False)),
    ("x5_09_any", "X5-09", "extended_key_usage", (purposes(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE), False)),
    ("x5_09_other", "X5-09", "extended_key_usage", (purposes(ExtendedKeyUsageOID.CODE_SIGNING), True)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "name", "value"), [case[1:] for case in BAD_SHAPES], ids=[c[0] for c in BAD_SHAPES]
)
def test_a_leaf_out_of_shape(authority, rule, name, value):
    shape: Any = {name: value}
    refusal(authority.issue(WEB, **shape), authority.bundles(), rule)


GOOD_SHAPES: list[tuple[str, str, Extension]] = [
    ("x5_05_false_not_critical", "basic_constraints", (x509.BasicConstraints(False, None), False)),
    (
        "x5_07_more_usages",
        "key_usage",
        (key_usage("digital_signature", "key_encipherment", "key_agreement"), True),
    ),
    ("x5_09_absent", "extended_key_usage", None),
    ("x5_09_critical", "extended_key_usage", (both_usages(), True)),
    (
        "x5_09_both_and_more",
        "extended_key_usage",
        (x509.ExtendedKeyUsage([*both_usages(), ExtendedKeyUsageOID.CODE_SIGNING]), False),
    ),
    ("without_aki", "authority_key_identifier", None),
    ("without_ski", "subject_key_identifier", None),
]


@pytest.mark.parametrize(
    ("name", "value"), [case[1:] for case in GOOD_SHAPES], ids=[c[0] for c in GOOD_SHAPES]
)
def test_a_leaf_in_another_shape_that_is_fine(authority, name, value):
    shape: Any = {name: value}
    assert judge(authority.issue(WEB, **shape), authority.bundles())


@pytest.mark.parametrize("digest", [hashes.MD5(), hashes.SHA1()], ids=lambda d: d.name)
def test_e18_signature_over_a_broken_digest(digest):
    authority = DemoAuthority(key=rsa_key())
    assert digest.name in refusal(authority.issue(WEB, digest=digest), authority.bundles(), "SIGNATURE")
    middle = DemoAuthority(parent=authority, digest=digest)
    assert digest.name in refusal(middle.issue(WEB), authority.bundles(), "SIGNATURE")


def test_e18_sha1_is_refused_by_the_path_too_where_issuer_and_subject_have_one_name():
    """A certificate that only looks self-signed escapes the friendly check, not the verifier."""
    authority = DemoAuthority(key=rsa_key())
    middle = DemoAuthority(parent=authority, subject=authority.certificate.subject, digest=hashes.SHA1())
    refusal(middle.issue(WEB), authority.bundles(), "X5-16")


def test_e18_sha1_of_an_old_root_over_itself_does_not_count():
    authority = DemoAuthority(key=rsa_key(), digest=hashes.SHA1())
    issued = authority.issue(WEB)
    assert judge([issued.leaf, authority.certificate], authority.bundles())


# Dates: the first and the last second count, the ones before and after do not


def leaf_dated(begin: datetime, end: datetime) -> tuple[Issued, Bundles]:
    authority = DemoAuthority()
    return authority.issue(WEB, not_before=begin, not_after=end), authority.bundles()


def intermediate_dated(begin: datetime, end: datetime) -> tuple[Issued, Bundles]:
    root = DemoAuthority()
    middle = DemoAuthority(parent=root, not_before=begin, not_after=end)
    return middle.issue(WEB, not_before=START - DAY, not_after=START + DAY), root.bundles()


def anchor_dated(begin: datetime, end: datetime) -> tuple[Issued, Bundles]:
    root = DemoAuthority(not_before=begin, not_after=end)
    return root.issue(WEB, not_before=START - DAY, not_after=START + DAY), root.bundles()


@pytest.mark.parametrize("make", [leaf_dated, intermediate_dated, anchor_dated])
def test_x5_16_e4_dates_to_the_second(make: Callable[[datetime, datetime], tuple[Issued, Bundles]]):
    begin, end = START - HOUR, START + HOUR
    issued, bundles = make(begin, end)
    for now in (begin, START, end):
        assert judge(issued, bundles, now)
    assert "2026-11-24T11:00:00Z" in refusal(issued, bundles, "X5-16", begin - SECOND)
    assert "2026-11-24T13:00:00Z" in refusal(issued, bundles, "X5-16", end + SECOND)


def test_x5_16_a_fraction_of_the_last_second_belongs_to_it():
    issued, bundles = leaf_dated(START - HOUR, START)
    assert judge(issued, bundles, START + timedelta(microseconds=999_999))
    refusal(issued, bundles, "X5-16", START - HOUR - timedelta(microseconds=1))


def test_x5_16_end_before_beginning():
    """No builder makes such dates: those of a good leaf are exchanged in its bytes, which also breaks its signature."""
    issued, bundles = leaf_dated(START - HOUR, START + HOUR)
    der = issued.leaf.public_bytes(Encoding.DER)
    swapped = der.replace(b"261124110000Z", b"X" * 13).replace(b"261124130000Z", b"261124110000Z")
    leaf = x509.load_der_x509_certificate(swapped.replace(b"X" * 13, b"261124130000Z"))
    assert leaf.not_valid_after_utc < leaf.not_valid_before_utc
    assert "valid only from" in refusal([leaf], bundles, "X5-16")


# 4. Whose bundle


def test_x5_17_no_bundle_for_the_trust_domain(authority):
    assert "'demo.test'" in refusal(authority.issue(WEB), {}, "X5-17")
    other = DemoAuthority("other.test")
    refusal(authority.issue(WEB), other.bundles(), "X5-17")


def test_x5_17_e7_another_domain_cannot_vouch(authority):
    """The federated domain's authority signs a name of ours, and its bundle is there."""
    other = DemoAuthority("other.test")
    bundles = {**authority.bundles(), **other.bundles()}
    refusal(other.issue(WEB), bundles, "X5-16")
    refusal(authority.issue("spiffe://other.test/web"), bundles, "X5-16")
    assert judge(other.issue("spiffe://other.test/web"), bundles) == parse_workload_id(
        "spiffe://other.test/web"
    )


def test_x5_17_e7_nor_by_sending_its_root_along(authority):
    other = DemoAuthority("other.test")
    bundles = {**authority.bundles(), **other.bundles()}
    forged = other.issue(WEB)
    refusal([forged.leaf, other.certificate, authority.certificate], bundles, "X5-16")


def test_x5_17_e7_nor_through_an_intermediate_that_names_our_domain(authority):
    other = DemoAuthority("other.test")
    middle = DemoAuthority("demo.test", parent=other)
    refusal(middle.issue(WEB), {**authority.bundles(), **other.bundles()}, "X5-16")


def test_x5_17_a_bundle_under_the_wrong_name(authority):
    refusal(authority.issue(WEB), {"demo.test": Bundle("other.test", (authority.certificate,))}, "X5-17")


def test_bu_07_e31_an_empty_bundle_trusts_nobody(authority):
    assert "nobody" in refusal(authority.issue(WEB), {"demo.test": Bundle("demo.test", ())}, "BU-07")


def test_bu_12_one_root_in_two_domains_vouches_for_both_names_and_no_third(authority):
    shared = {name: Bundle(name, (authority.certificate,)) for name in ("demo.test", "other.test")}
    assert judge(authority.issue(WEB), shared)
    assert judge(authority.issue("spiffe://other.test/web"), shared).trust_domain == "other.test"
    refusal(authority.issue("spiffe://third.test/web"), shared, "X5-17")


def test_bu_12_an_intermediate_of_a_shared_root_is_trusted_where_it_stands_and_nowhere_else(authority):
    """Both domains hang below one company root, and each has only its own intermediate in its bundle."""
    demo, other = DemoAuthority("demo.test", parent=authority), DemoAuthority("other.test", parent=authority)
    bundles = {
        name: Bundle(name, (each.certificate,)) for name, each in (("demo.test", demo), ("other.test", other))
    }
    assert judge(demo.issue(WEB), bundles)
    refusal(other.issue(WEB), bundles, "X5-16")


def test_x5_20_a_leaf_in_the_bundle_does_not_prove_itself(authority):
    issued = authority.issue(WEB)
    for anchors in ((issued.leaf,), (authority.certificate, issued.leaf)):
        refusal(issued, {"demo.test": Bundle("demo.test", anchors)}, "X5-20")


# 5. The path


def test_x5_16_e6_self_signed_with_the_right_name(authority):
    refusal(authority.self_sign(WEB), authority.bundles(), "X5-16")
    named = authority.self_sign(WEB, subject=authority.certificate.subject)
    refusal([named.leaf, authority.certificate], authority.bundles(), "X5-16")


def test_x5_16_e6_an_unknown_authority_of_the_same_names(authority):
    """Same subject, same SPIFFE ID, another key."""
    impostor = DemoAuthority(subject=authority.certificate.subject)
    refusal(impostor.issue(WEB), authority.bundles(), "X5-16")
    refusal([impostor.issue(WEB).leaf, impostor.certificate], authority.bundles(), "X5-16")


def test_x5_16_a_signature_that_is_wrong(authority):
    der = bytearray(authority.issue(WEB).leaf.public_bytes(Encoding.DER))
    der[-1] ^= 1
    refusal([x509.load_der_x509_certificate(bytes(der))], authority.bundles(), "X5-16")


def test_x5_16_a_name_changed_after_signing(authority):
    der = authority.issue(WEB).leaf.public_bytes(Encoding.DER).replace(b"demo.test/web", b"demo.test/wec")
    refusal([x509.load_der_x509_certificate(der)], authority.bundles(), "X5-16")


def test_x5_16_an_issuer_name_that_does_not_chain(authority):
    refusal(authority.issue(WEB, issuer=common_name("somebody else")), authority.bundles(), "X5-16")


def test_x5_16_a_missing_intermediate(authority):
    middle = DemoAuthority(parent=authority)
    refusal(middle.issue(WEB).chain[:1], authority.bundles(), "X5-16")


def test_x5_16_order_and_extra_certificates_do_not_matter(authority):
    upper = DemoAuthority(parent=authority)
    lower = DemoAuthority(parent=upper)
    leaf = lower.issue(WEB).leaf
    stranger, unrelated = DemoAuthority().certificate, authority.issue("spiffe://demo.test/other").leaf
    for rest in (
        [upper.certificate, lower.certificate],
        [authority.certificate, upper.certificate, lower.certificate],
        [stranger, upper.certificate, unrelated, lower.certificate],
        [lower.certificate, lower.certificate, upper.certificate, leaf],
    ):
        assert judge([leaf, *rest], authority.bundles())


def test_x5_16_the_first_certificate_is_the_leaf_whatever_follows(authority):
    """Who holds the key of the first certificate has to be its subject: another leaf behind it lends nothing."""
    mine, foreign = authority.issue("spiffe://demo.test/mine"), authority.self_sign(WEB)
    assert str(judge([mine.leaf, foreign.leaf], authority.bundles())) == "spiffe://demo.test/mine"
    refusal([foreign.leaf, mine.leaf], authority.bundles(), "X5-16")


def test_chain_with_two_certificates_for_one_name_and_key_is_refused(authority):
    """Four that sign one another in circles would cost a hundred signatures and more, before anybody is known."""
    key, name = new_key(), common_name("circle")
    circle = [DemoAuthority(key=key, subject=name) for _ in range(4)]
    leaf = circle[0].issue(WEB).leaf
    for count in (2, 3, 4):
        chain = [leaf, *(each.certificate for each in circle[:count])]
        assert "two certificates" in refusal(chain, authority.bundles(), "CHAIN")


def test_x5_16_certificates_that_sign_one_another_in_circles_lead_nowhere(authority):
    """Of one name but different keys: at each step one of them fits, so the work ends with their number."""
    keys, name = [new_key() for _ in range(4)], common_name("circle")
    circle = [
        DemoAuthority(key=key, subject=name, issuer=name, signed_by=signer)
        for key, signer in zip(keys, [*keys[1:], keys[0]], strict=True)
    ]
    message = refusal(
        [circle[0].issue(WEB).leaf, *(each.certificate for each in circle)], authority.bundles(), "X5-16"
    )
    assert "signature check limit" not in message


def test_x5_16_the_same_name_for_issuer_and_subject_is_no_circle_yet(authority):
    """Nested SPIRE servers name all their authorities alike; their keys tell them apart."""
    middle = DemoAuthority(parent=authority, subject=authority.certificate.subject)
    lower = DemoAuthority(parent=middle, subject=authority.certificate.subject)
    issued = lower.issue(WEB)
    assert judge([*issued.chain, authority.certificate], authority.bundles())


def test_x5_19_a_root_that_is_sent_along_in_two_forms(authority):
    """As itself, which is in the bundle and is not counted, and signed by another root."""
    cross = DemoAuthority(parent=DemoAuthority(), key=authority.key, subject=authority.certificate.subject)
    chain = [authority.issue(WEB).leaf, cross.certificate, authority.certificate]
    assert judge(chain, authority.bundles())


def test_x5_19_an_intermediate_is_an_anchor_without_its_root(authority):
    middle = DemoAuthority(parent=authority)
    lower = DemoAuthority(parent=middle)
    bundles = {"demo.test": Bundle("demo.test", (middle.certificate,))}
    assert judge(middle.issue(WEB).chain[:1], bundles)
    assert judge(lower.issue(WEB), bundles)
    refusal(authority.issue(WEB), bundles, "X5-16")


def test_x5_19_an_anchor_that_has_ended_while_another_holds(authority):
    """Rotation: both are in the bundle; the path goes over the one that is valid."""
    old = DemoAuthority(not_after=START - SECOND, subject=authority.certificate.subject, key=authority.key)
    bundles = {"demo.test": Bundle("demo.test", (old.certificate, authority.certificate))}
    assert judge(authority.issue(WEB), bundles)


def test_x5_20_a_leaf_does_not_issue(authority):
    issued = authority.issue(WEB)
    pretender = DemoAuthority(key=issued.private_key, subject=issued.leaf.subject)
    below = pretender.issue("spiffe://demo.test/admin")
    refusal([below.leaf, issued.leaf], authority.bundles(), "X5-16")


BAD_AUTHORITIES: list[tuple[str, str, Extension]] = [
    ("x5_11_no_basic_constraints", "basic_constraints", None),
    ("x5_11_ca_false", "basic_constraints", (x509.BasicConstraints(False, None), True)),
    ("x5_11_constraints_not_critical", "basic_constraints", (x509.BasicConstraints(True, None), False)),
    ("x5_11_no_key_usage", "key_usage", None),
    ("x5_11_without_cert_sign", "key_usage", (key_usage("crl_sign", "digital_signature"), True)),
    ("x5_06_key_usage_not_critical", "key_usage", (key_usage("key_cert_sign"), False)),
]


@pytest.mark.parametrize(
    ("name", "value"), [case[1:] for case in BAD_AUTHORITIES], ids=[c[0] for c in BAD_AUTHORITIES]
)
def test_an_authority_out_of_shape_signs_nothing(authority, name, value):
    shape: Any = {name: value}
    refusal(DemoAuthority(parent=authority, **shape).issue(WEB), authority.bundles(), "X5-16")
    root = DemoAuthority(**shape)
    refusal(root.issue(WEB), root.bundles(), "X5-16")


def test_x5_11_the_path_length_holds(authority):
    for allowed, below in ((0, 0), (0, 1), (1, 1), (1, 2)):
        root = DemoAuthority(path_length=allowed)
        signer = root
        for _ in range(below):
            signer = DemoAuthority(parent=signer)
        issued = signer.issue(WEB)
        if below <= allowed:
            assert judge(issued, root.bundles())
        else:
            refusal(issued, root.bundles(), "X5-16")


def test_x5_12_an_authority_needs_no_spiffe_id_and_may_have_other_usages():
    root = DemoAuthority(uris=(), key_usage=(key_usage("key_cert_sign", "digital_signature"), True))
    assert judge(root.issue(WEB), root.bundles())


def test_x5_14_an_authority_may_have_an_extended_key_usage(authority):
    eku = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False)
    assert judge(DemoAuthority(parent=authority, extended_key_usage=eku).issue(WEB), authority.bundles())


@pytest.mark.parametrize("critical", [True, False])
@pytest.mark.parametrize("domain", ["demo.test", "other.test"])
def test_x5_13_name_constraints_on_uris_are_refused_and_never_ignored(authority, domain, critical):
    for constraints in (
        x509.NameConstraints([x509.UniformResourceIdentifier(domain)], None),
        x509.NameConstraints(None, [x509.UniformResourceIdentifier(domain)]),
    ):
        middle = DemoAuthority(parent=authority, name_constraints=(constraints, critical))
        refusal(middle.issue(WEB), authority.bundles(), "X5-16")
        root = DemoAuthority(name_constraints=(constraints, critical))
        refusal(root.issue(WEB), root.bundles(), "X5-16")


def test_x5_13_name_constraints_on_dns_names_hold(authority):
    permitted = x509.NameConstraints([x509.DNSName("demo.test")], None)
    middle = DemoAuthority(parent=authority, name_constraints=(permitted, True))
    assert judge(middle.issue(WEB, dns_names=["web.demo.test"]), authority.bundles())
    refusal(middle.issue(WEB, dns_names=["web.other.test"]), authority.bundles(), "X5-16")


def test_x5_16_critical_extensions_that_nobody_knows_are_refused(authority):
    for critical in (True, False):
        middle = DemoAuthority(parent=authority, extra=[(UNKNOWN, critical)])
        root = DemoAuthority(extra=[(UNKNOWN, critical)])
        for issued, bundles in (
            (authority.issue(WEB, extra=[(UNKNOWN, critical)]), authority.bundles()),
            (middle.issue(WEB), authority.bundles()),
            (root.issue(WEB), root.bundles()),
        ):
            if critical:
                refusal(issued, bundles, "X5-16")
            else:
                assert judge(issued, bundles)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("basic_constraints", None),
        ("key_usage", None),
        ("key_usage", (key_usage("digital_signature"), False)),
    ],
    ids=["x5_05", "x5_06_absent", "x5_06_not_critical"],
)
def test_the_verifier_of_the_path_has_the_leafs_shape_as_well(authority, monkeypatch, name, value):
    """Should the friendly check ever be lost, the library still refuses."""
    monkeypatch.setattr(verify, "_check_leaf", lambda leaf: None)
    shape: Any = {name: value}
    refusal(authority.issue(WEB, **shape), authority.bundles(), "X5-16")


# Whatever happens is a refusal


def test_internal_an_exception_while_judging_is_a_refusal(authority, monkeypatch):
    def fail(*_: object) -> None:
        raise ZeroDivisionError("surprise\nwith a line")

    monkeypatch.setattr(verify, "_check_leaf", fail)
    message = refusal(authority.issue(WEB), authority.bundles(), "INTERNAL")
    assert "ZeroDivisionError" in message


@pytest.mark.parametrize("chain", [[None], ["x"], None, 7], ids=repr)
def test_internal_something_else_than_certificates(authority, chain):
    with pytest.raises(IdentityError):
        verify_peer(chain, authority.bundles(), START)


def test_internal_a_time_without_zone(authority):
    refusal(authority.issue(WEB), authority.bundles(), "INTERNAL", START.replace(tzinfo=None))


def test_a_refusal_shows_no_more_of_a_peers_text_than_fits_a_line(authority):
    issued = authority.issue(b"spiffe://demo.test/\x1b[2J\n" + b"a" * 1900)
    with pytest.raises(IdentityError) as raised:
        judge(issued, authority.bundles())
    assert str(raised.value).isprintable()


_FUZZED = DemoAuthority()
_FUZZED_DER = _FUZZED.issue(WEB).leaf.public_bytes(Encoding.DER)


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, len(_FUZZED_DER) - 1), byte=st.integers(0, 255))
def test_no_changed_byte_gets_a_leaf_believed_as_somebody_else(place, byte):
    changed = bytearray(_FUZZED_DER)
    changed[place] = byte
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library deplores odd serial numbers and names, and takes them
        try:
            leaf = x509.load_der_x509_certificate(bytes(changed))
        except (ValueError, x509.InvalidVersion):
            return
        try:
            found = verify_peer([leaf], _FUZZED.bundles(), START)
        except IdentityError as error:
            assert error.rule != "INTERNAL", str(error)
            return
    # Only a byte that no signature covers may change without being noticed, and then nothing is read from it.
    assert str(found) == WEB
    assert leaf.tbs_certificate_bytes == x509.load_der_x509_certificate(_FUZZED_DER).tbs_certificate_bytes


# OpenSSL's opinion, where the two have the same question to answer: signatures, dates, names, path length


def openssl_accepts(
    chain: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate], now: datetime
) -> bool:
    store = crypto.X509Store()
    for anchor in anchors:
        store.add_cert(crypto.X509.from_cryptography(anchor))
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN | crypto.X509StoreFlags.X509_STRICT)
    store.set_time(now.replace(tzinfo=None))
    leaf, *others = (crypto.X509.from_cryptography(each) for each in chain)
    try:
        crypto.X509StoreContext(store, leaf, others).verify_certificate()
    except crypto.X509StoreContextError:
        return False
    return True


def differential_cases() -> list[tuple[str, Issued, Bundles, datetime]]:
    root, stranger = DemoAuthority(), DemoAuthority()
    middle = DemoAuthority(parent=root)
    lower = DemoAuthority(parent=middle)
    tight = DemoAuthority(path_length=0)
    late = DemoAuthority(parent=root, not_after=START - SECOND)
    partial = {"demo.test": Bundle("demo.test", (middle.certificate,))}
    good = root.issue(WEB)
    return [
        ("plain", good, root.bundles(), START),
        ("before", good, root.bundles(), START - 11 * SECOND),
        ("at the beginning", good, root.bundles(), START - 10 * SECOND),
        ("at the end", good, root.bundles(), START + HOUR),
        ("after", good, root.bundles(), START + HOUR + SECOND),
        ("intermediate", middle.issue(WEB), root.bundles(), START),
        ("two intermediates", lower.issue(WEB), root.bundles(), START),
        (
            "one intermediate missing",
            Issued(lower.issue(WEB).chain[:2], good.private_key),
            root.bundles(),
            START,
        ),
        ("partial chain", middle.issue(WEB), partial, START),
        ("beside the partial chain", good, partial, START),
        ("late intermediate", late.issue(WEB), root.bundles(), START),
        ("path length", DemoAuthority(parent=tight).issue(WEB), tight.bundles(), START),
        ("stranger", stranger.issue(WEB), root.bundles(), START),
        ("self-signed", root.self_sign(WEB), root.bundles(), START),
        ("unknown critical extension", root.issue(WEB, extra=[(UNKNOWN, True)]), root.bundles(), START),
        (
            "issuer without cA",
            DemoAuthority(parent=root, basic_constraints=None).issue(WEB),
            root.bundles(),
            START,
        ),
    ]


@pytest.mark.parametrize("case", differential_cases(), ids=lambda case: case[0])
def test_openssl_agrees(case):
    _, issued, bundles, now = case
    try:
        judge(issued, bundles, now)
    except IdentityError:
        accepted = False
    else:
        accepted = True
    assert accepted == openssl_accepts(issued.chain, bundles["demo.test"].authorities, now)
