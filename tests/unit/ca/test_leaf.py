"""The SVIDs that an authority issues: their shape, their bounds, and that they hold before others."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto

from sidecar.ca.authority import Authority, make_authority
from sidecar.ca.leaf import issue_svid
from sidecar.ca.profile import BACKDATED, MAX_SVID_LIFETIME
from sidecar.errors import ConfigurationError, IdentityError
from sidecar.identity.bundle import Bundle
from sidecar.identity.spiffe_id import parse_spiffe_id, parse_workload_id
from sidecar.identity.svid import Svid, parse_svid
from sidecar.tls.verify import verify_peer
from tests.fakes.certificates import DAY, HOUR, SECOND, START, DemoAuthority, key_pem, pem, rsa_key

WEB = parse_workload_id("spiffe://demo.test/web")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority("demo.test", START)


@pytest.fixture(scope="module")
def svid(authority) -> Svid:
    return issue_svid(authority, WEB, START)


def extension(svid: Svid, kind: type[x509.ExtensionType]) -> tuple[x509.ExtensionType, bool]:
    found = svid.chain[0].extensions.get_extension_for_class(kind)
    return found.value, found.critical


def test_it_is_no_authority(svid):
    assert extension(svid, x509.BasicConstraints) == (x509.BasicConstraints(False, None), True)


def test_its_key_signs_and_does_nothing_else(svid):
    value, critical = extension(svid, x509.KeyUsage)
    others = [
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
    ]
    assert critical and value.digital_signature and not any(getattr(value, bit) for bit in others)


def test_it_serves_both_sides_of_a_handshake(svid):
    value, critical = extension(svid, x509.ExtendedKeyUsage)
    assert set(value) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} and not critical


def test_it_names_one_workload_and_the_local_machine(svid):
    value, critical = extension(svid, x509.SubjectAlternativeName)
    assert list(value) == [
        x509.UniformResourceIdentifier("spiffe://demo.test/web"),
        x509.DNSName("localhost"),
        x509.IPAddress(IPv4Address("127.0.0.1")),
        x509.IPAddress(IPv6Address("::1")),
    ]
    assert not critical and svid.chain[0].subject.rdns, "with a subject the name need not be critical"
    assert svid.spiffe_id == WEB


def test_other_names_and_none(authority):
    plain = issue_svid(authority, WEB, START, dns_names=(), ip_addresses=())
    value, _ = extension(plain, x509.SubjectAlternativeName)
    assert list(value) == [x509.UniformResourceIdentifier(str(WEB))]
    named = issue_svid(authority, WEB, START, HOUR, ("web.test",), (IPv4Address("10.0.0.1"),))
    value, _ = extension(named, x509.SubjectAlternativeName)
    assert list(value)[1:] == [x509.DNSName("web.test"), x509.IPAddress(IPv4Address("10.0.0.1"))]


def test_it_has_these_extensions_and_no_others(svid):
    assert {each.oid for each in svid.chain[0].extensions} == {
        x509.BasicConstraints.oid,
        x509.KeyUsage.oid,
        x509.ExtendedKeyUsage.oid,
        x509.SubjectAlternativeName.oid,
        x509.SubjectKeyIdentifier.oid,
        x509.AuthorityKeyIdentifier.oid,
    }


def test_it_is_signed_by_the_authority_with_sha_256(authority, svid):
    svid.chain[0].verify_directly_issued_by(authority.certificate)
    assert isinstance(svid.chain[0].signature_hash_algorithm, hashes.SHA256)
    own, _ = extension(svid, x509.SubjectKeyIdentifier)
    above, _ = extension(svid, x509.AuthorityKeyIdentifier)
    root = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert above.key_identifier == root.digest
    assert own == x509.SubjectKeyIdentifier.from_public_key(svid.chain[0].public_key())


def test_each_has_a_key_and_a_serial_of_its_own(authority, svid):
    other = issue_svid(authority, WEB, START)
    assert other.chain[0].public_key() != svid.chain[0].public_key()
    assert other.serial != svid.serial
    assert isinstance(svid.private_key, ec.EllipticCurvePrivateKey)
    assert svid.private_key.public_key() == svid.chain[0].public_key()
    assert svid.chain[0].serial_number.bit_length() > 64


def test_it_lives_for_an_hour_unless_told_otherwise(authority, svid):
    assert (svid.not_before, svid.not_after) == (START - BACKDATED, START + HOUR)
    assert issue_svid(authority, WEB, START, 5 * SECOND).not_after == START + 5 * SECOND


def test_never_longer_than_a_day(authority):
    assert issue_svid(authority, WEB, START, MAX_SVID_LIFETIME).not_after == START + DAY
    for lifetime in (MAX_SVID_LIFETIME + SECOND, 365 * DAY, timedelta.max):
        with pytest.raises(ConfigurationError, match="cannot live"):
            issue_svid(authority, WEB, START, lifetime)


@pytest.mark.parametrize("lifetime", [timedelta(0), -SECOND])
def test_a_life_without_length_is_refused(authority, lifetime):
    with pytest.raises(ConfigurationError, match="cannot live"):
        issue_svid(authority, WEB, START, lifetime)


def test_never_past_the_authority(authority):
    end = authority.certificate.not_valid_after_utc
    assert issue_svid(authority, WEB, end - 60 * SECOND).not_after == end
    assert issue_svid(authority, WEB, end - SECOND).not_after == end


@pytest.mark.parametrize("past", [timedelta(0), SECOND, DAY])
def test_an_authority_that_has_ended_issues_nothing(authority, past):
    with pytest.raises(ConfigurationError, match="not now"):
        issue_svid(authority, WEB, authority.certificate.not_valid_after_utc + past)


def test_nor_one_that_has_not_begun(authority):
    begin = authority.certificate.not_valid_before_utc
    with pytest.raises(ConfigurationError, match="not now"):
        issue_svid(authority, WEB, begin - SECOND)
    assert issue_svid(authority, WEB, begin).not_before == begin, "and no SVID is dated before its authority"


def test_fractions_of_a_second_are_cut_off(authority):
    svid = issue_svid(authority, WEB, START + timedelta(microseconds=999_999), HOUR)
    assert svid.not_after == START + HOUR


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("spiffe://other.test/web", "ID-14"),
        ("spiffe://sub.demo.test/web", "ID-14"),
        ("spiffe://demo.test", "X5-03"),
    ],
)
def test_only_workloads_of_the_own_trust_domain(authority, name, rule):
    with pytest.raises(IdentityError) as raised:
        issue_svid(authority, parse_spiffe_id(name), START)
    assert raised.value.rule == rule


def test_an_authority_of_another_make_signs_too():
    for key in (rsa_key(), ec.generate_private_key(ec.SECP384R1())):
        demo = DemoAuthority(key=key, subject_key_identifier=None)
        svid = issue_svid(Authority(demo.certificate, demo.key), WEB, START)
        assert verify_peer(svid.chain, demo.bundles(), START) == WEB


def test_an_authority_whose_key_cannot_sign_for_verifiers_is_refused():
    demo = DemoAuthority(key=ed25519.Ed25519PrivateKey.generate())
    with pytest.raises(ConfigurationError, match="Ed25519"):
        issue_svid(Authority(demo.certificate, demo.key), WEB, START)


# Before others


@pytest.mark.parametrize("after", [-BACKDATED, timedelta(0), HOUR])
def test_it_holds_before_a_peer_from_its_first_to_its_last_second(authority, svid, after):
    bundles = {"demo.test": Bundle("demo.test", (authority.certificate,))}
    assert verify_peer(svid.chain, bundles, START + after) == WEB


def test_it_survives_being_written_to_files(svid):
    read = parse_svid(pem(*svid.chain), key_pem(svid.private_key))
    assert read.chain == svid.chain and read.spiffe_id == WEB


def test_it_holds_before_openssl_at_its_strictest(authority, svid):
    store = crypto.X509Store()
    store.add_cert(crypto.X509.from_cryptography(authority.certificate))
    store.set_flags(crypto.X509StoreFlags.X509_STRICT | crypto.X509StoreFlags.CHECK_SS_SIGNATURE)
    store.set_time(START.replace(tzinfo=None))
    crypto.X509StoreContext(store, crypto.X509.from_cryptography(svid.chain[0])).verify_certificate()
