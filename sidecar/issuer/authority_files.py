"""The authority's certificate and key as PEM. Pure."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from sidecar.ca.authority import Authority
from sidecar.errors import IdentityError, StateError


def dump_certificate(certificate: x509.Certificate) -> bytes:
    """The certificate as PEM."""
    return certificate.public_bytes(Encoding.PEM)


def dump_key(key: PrivateKeyTypes) -> bytes:
    """The key as PEM (PKCS#8, not encrypted): for a file of mode 0600 and for nothing else."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def parse_certificate(data: bytes) -> x509.Certificate:
    """The one certificate in ``data``. Raises :class:`StateError`."""
    try:
        certificates = x509.load_pem_x509_certificates(data)
    except ValueError as exc:
        raise StateError("authority.pem is damaged: it holds no certificate") from exc
    if len(certificates) != 1:
        raise StateError(f"authority.pem is damaged: it holds {len(certificates)} certificates, expected 1")
    return certificates[0]


def parse_authority(trust_domain: str, certificate_pem: bytes, key_pem: bytes) -> Authority:
    """The authority of ``trust_domain``. :class:`StateError` if the two do not fit, or are another's."""
    certificate = parse_certificate(certificate_pem)
    try:
        key = load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError) as exc:
        raise StateError("authority_key.pem is damaged: it holds no key that can be read") from exc
    if key.public_key() != certificate.public_key():
        raise StateError("authority.pem and authority_key.pem do not belong together")
    authority = Authority(certificate, key)
    try:
        found = authority.trust_domain
    except (IdentityError, ValueError) as exc:
        raise StateError(f"authority.pem is damaged: {exc}") from exc
    if found != trust_domain:
        raise StateError(f"authority.pem is of another trust domain: {found!r}, expected {trust_domain!r}")
    return authority
