"""The authority's certificate, bit by bit."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from sidecar.ca.authority import Authority, make_authority
from sidecar.ca.profile import BACKDATED, MAX_AUTHORITY_LIFETIME
from sidecar.errors import ConfigurationError, IdentityError
from sidecar.identity.bundle import Bundle, is_authority, parse_pem_bundle
from tests.fakes.certificates import DAY, SECOND, START, DemoAuthority, key_pem, pem


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority("demo.test", START)


def extension(
    certificate: x509.Certificate, kind: type[x509.ExtensionType]
) -> tuple[x509.ExtensionType, bool]:
    found = certificate.extensions.get_extension_for_class(kind)
    return found.value, found.critical


def test_it_may_sign_leaves_and_nothing_else(authority):
    value, critical = extension(authority.certificate, x509.BasicConstraints)
    assert critical and value.ca and value.path_length == 0
    value, critical = extension(authority.certificate, x509.KeyUsage)
    assert critical
    bits = [
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
    ]
    assert value.key_cert_sign and value.crl_sign and not any(getattr(value, bit) for bit in bits)


def test_it_names_its_trust_domain_and_nothing_else(authority):
    value, critical = extension(authority.certificate, x509.SubjectAlternativeName)
    assert list(value) == [x509.UniformResourceIdentifier("spiffe://demo.test")] and not critical
    assert authority.trust_domain == "demo.test"


def test_it_has_these_extensions_and_no_others(authority):
    assert {each.oid for each in authority.certificate.extensions} == {
        x509.BasicConstraints.oid,
        x509.KeyUsage.oid,
        x509.SubjectAlternativeName.oid,
        x509.SubjectKeyIdentifier.oid,
    }


def test_it_signs_itself_with_p_256_and_sha_256(authority):
    certificate = authority.certificate
    certificate.verify_directly_issued_by(certificate)
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    assert isinstance(certificate.public_key().curve, ec.SECP256R1)
    assert isinstance(certificate.signature_hash_algorithm, hashes.SHA256)
    assert authority.private_key.public_key() == certificate.public_key()
    value, _ = extension(certificate, x509.SubjectKeyIdentifier)
    assert value == x509.SubjectKeyIdentifier.from_public_key(certificate.public_key())


def test_it_ends_after_a_year_unless_told_otherwise(authority):
    assert authority.certificate.not_valid_before_utc == START - BACKDATED
    assert authority.certificate.not_valid_after_utc == START + 365 * DAY
    assert make_authority("demo.test", START, DAY).certificate.not_valid_after_utc == START + DAY


def test_fractions_of_a_second_are_cut_off():
    authority = make_authority("demo.test", START + timedelta(microseconds=999_999), DAY)
    assert authority.certificate.not_valid_after_utc == START + DAY


@pytest.mark.parametrize("lifetime", [timedelta(0), -DAY, MAX_AUTHORITY_LIFETIME + SECOND, timedelta.max])
def test_a_life_without_length_or_end_is_refused(lifetime):
    with pytest.raises(ConfigurationError, match="cannot live"):
        make_authority("demo.test", START, lifetime)


def test_the_longest_life():
    assert make_authority("demo.test", START, MAX_AUTHORITY_LIFETIME)


@pytest.mark.parametrize("name", ["", "Demo.test", "demo.test/web", "spiffe://demo.test", "demo\n"])
def test_a_name_that_is_no_trust_domain_is_refused(name):
    with pytest.raises(IdentityError):
        make_authority(name, START)


def test_the_longest_name_fits():
    assert make_authority("d" * 255, START).trust_domain == "d" * 255


def test_no_two_are_alike():
    one, two = make_authority("demo.test", START), make_authority("demo.test", START)
    assert one.certificate.serial_number != two.certificate.serial_number
    assert one.certificate.subject != two.certificate.subject
    assert one.certificate.public_key() != two.certificate.public_key()
    assert min(one.certificate.serial_number, two.certificate.serial_number).bit_length() > 64


def test_its_key_stands_in_no_text(authority):
    assert "private" not in repr(authority).lower()
    assert key_pem(authority.private_key).splitlines()[1].decode() not in repr(authority)


def test_it_is_fit_for_a_bundle(authority):
    assert is_authority(authority.certificate)
    expected = Bundle("demo.test", (authority.certificate,))
    assert parse_pem_bundle("demo.test", pem(authority.certificate)) == expected


@pytest.mark.parametrize(
    ("uris", "rule"),
    [((), "ID-15"), (("spiffe://a", "spiffe://b"), "ID-15"), (("spiffe://demo.test/web",), "X5-12"),
     (("https://a",), "ID-01")],
)  # fmt: skip
def test_a_certificate_that_names_no_trust_domain_is_no_authority(uris, rule):
    shape = {} if uris else {"subject_alternative_name": None}
    demo = DemoAuthority(uris=uris, **shape)
    with pytest.raises(IdentityError) as raised:
        _ = Authority(demo.certificate, demo.key).trust_domain
    assert raised.value.rule == rule
