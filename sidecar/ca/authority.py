"""The signing authority of one trust domain: a value, and how a new one is made. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from sidecar.ca import profile
from sidecar.errors import ConfigurationError, IdentityError
from sidecar.identity.spiffe_id import SCHEME, parse_spiffe_id, parse_trust_domain


@dataclass(frozen=True, slots=True)
class Authority:
    """A self-signed certificate and its key, which no text of it ever shows."""

    certificate: x509.Certificate
    private_key: PrivateKeyTypes = field(repr=False)

    @property
    def trust_domain(self) -> str:
        """The trust domain that the certificate names, and the only one it signs for. Raises :class:`IdentityError`."""
        try:
            names = self.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            raise IdentityError("ID-15", "the authority's certificate names no trust domain") from None
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        if len(uris) != 1:
            raise IdentityError(
                "ID-15", f"the authority's certificate has {len(uris)} URI names, expected exactly 1"
            )
        spiffe_id = parse_spiffe_id(uris[0])
        if spiffe_id.is_workload:
            raise IdentityError("X5-12", f"{uris[0]!r} names a workload, which is no authority")
        return spiffe_id.trust_domain


def make_authority(
    trust_domain: str, now: datetime, lifetime: timedelta = profile.AUTHORITY_LIFETIME
) -> Authority:
    """A new authority for ``trust_domain``, with a new key, from ``now`` for ``lifetime`` (10 years at most).

    Raises :class:`IdentityError` for the name and :class:`ConfigurationError` for the lifetime.
    """
    parse_trust_domain(trust_domain)
    if not timedelta(0) < lifetime <= profile.MAX_AUTHORITY_LIFETIME:
        raise ConfigurationError(
            f"an authority cannot live for {lifetime}, expected at most {profile.MAX_AUTHORITY_LIFETIME.days} days"
        )
    key, serial = profile.new_key(), x509.random_serial_number()
    name = profile.authority_name(serial)
    now = now.replace(microsecond=0)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - profile.BACKDATED)
        .not_valid_after(now + lifetime)
        .add_extension(profile.AUTHORITY_CONSTRAINTS, critical=True)
        .add_extension(profile.AUTHORITY_USAGE, critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"{SCHEME}{trust_domain}")]),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)
