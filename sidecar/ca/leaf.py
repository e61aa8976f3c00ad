"""X.509-SVIDs signed by an authority. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sidecar.ca import profile
from sidecar.ca.authority import Authority
from sidecar.clock import rfc3339
from sidecar.errors import ConfigurationError, IdentityError
from sidecar.identity.spiffe_id import SpiffeId
from sidecar.identity.svid import Svid

# For tools that can check nothing but host names and addresses; no sidecar ever looks at them.
LOCAL_NAMES: Final = ("localhost",)
LOCAL_ADDRESSES: Final = (IPv4Address("127.0.0.1"), IPv6Address("::1"))


def issue_svid(
    authority: Authority,
    spiffe_id: SpiffeId,
    now: datetime,
    lifetime: timedelta = profile.SVID_LIFETIME,
    dns_names: Sequence[str] = LOCAL_NAMES,
    ip_addresses: Sequence[IPv4Address | IPv6Address] = LOCAL_ADDRESSES,
) -> Svid:
    """A new SVID for ``spiffe_id`` with a new key, from ``now`` for ``lifetime`` (24 h at most).

    It never outlives the authority: then it is shorter. Raises :class:`IdentityError` for an id that is not a
    workload's of the authority's own trust domain, and :class:`ConfigurationError` for a lifetime out of bounds or an
    authority that is not valid now.
    """
    _check_id(authority, spiffe_id)
    now = now.replace(microsecond=0)
    not_before, not_after = _dates(authority, now, lifetime)
    key = profile.new_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(profile.svid_name())
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(profile.SVID_CONSTRAINTS, critical=True)
        .add_extension(profile.SVID_USAGE, critical=True)
        .add_extension(profile.SVID_PURPOSES, critical=False)
        .add_extension(_names(spiffe_id, dns_names, ip_addresses), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_authority_key(authority), critical=False)
        .sign(_signing_key(authority), hashes.SHA256())
    )
    return Svid(spiffe_id, (certificate,), key)


def _check_id(authority: Authority, spiffe_id: SpiffeId) -> None:
    if not spiffe_id.is_workload:
        raise IdentityError(
            "X5-03", f"{str(spiffe_id)!r} names a trust domain, not a workload: it needs a path"
        )
    if spiffe_id.trust_domain != authority.trust_domain:
        raise IdentityError(
            "ID-14", f"the authority of {authority.trust_domain!r} cannot sign for {str(spiffe_id)!r}"
        )


def _dates(authority: Authority, now: datetime, lifetime: timedelta) -> tuple[datetime, datetime]:
    if not timedelta(0) < lifetime <= profile.MAX_SVID_LIFETIME:
        raise ConfigurationError(
            f"an SVID cannot live for {lifetime}, expected at most {profile.MAX_SVID_LIFETIME}"
        )
    begin, end = authority.certificate.not_valid_before_utc, authority.certificate.not_valid_after_utc
    if not begin <= now < end:
        raise ConfigurationError(f"the authority is valid from {rfc3339(begin)} to {rfc3339(end)}, not now")
    return max(now - profile.BACKDATED, begin), min(now + lifetime, end)


def _names(
    spiffe_id: SpiffeId, dns_names: Sequence[str], ip_addresses: Sequence[IPv4Address | IPv6Address]
) -> x509.SubjectAlternativeName:
    """The SPIFFE ID is the only URI, and there is exactly one (X509-SVID, section 2)."""
    return x509.SubjectAlternativeName(
        [
            x509.UniformResourceIdentifier(str(spiffe_id)),
            *map(x509.DNSName, dns_names),
            *map(x509.IPAddress, ip_addresses),
        ]
    )


def _authority_key(authority: Authority) -> x509.AuthorityKeyIdentifier:
    try:
        found = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(_signing_key(authority).public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found.value)


def _signing_key(authority: Authority) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    key = authority.private_key
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
        raise ConfigurationError(f"the authority's key is {type(key).__name__}, expected RSA, P-256 or P-384")
    return key
