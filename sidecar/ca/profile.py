"""What authorities and SVIDs look like, bit by bit (SPIFFE X509-SVID, section 4 and appendix A). Pure."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# A certificate is used the moment it is made, also by a machine whose clock is a little behind.
BACKDATED: Final = timedelta(seconds=10)

# A year: whoever trusts the authority has to be given the next one by hand, which should not be a weekly task, nor so
# rare that nobody remembers how. Short life is what the SVIDs have.
AUTHORITY_LIFETIME: Final = timedelta(days=365)
MAX_AUTHORITY_LIFETIME: Final = timedelta(days=10 * 366)

# There is no revocation list: a stolen key is worth something until its certificate ends, so that it has to end soon.
SVID_LIFETIME: Final = timedelta(hours=1)
MAX_SVID_LIFETIME: Final = timedelta(hours=24)

ORGANISATION: Final = "svid-sidecar"

AUTHORITY_CONSTRAINTS: Final = x509.BasicConstraints(
    ca=True, path_length=0
)  # signs SVIDs, and no other authority
SVID_CONSTRAINTS: Final = x509.BasicConstraints(ca=False, path_length=None)

AUTHORITY_USAGE: Final = x509.KeyUsage(
    digital_signature=False,  # never appears in a handshake itself
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
SVID_USAGE: Final = x509.KeyUsage(
    digital_signature=True,  # all that TLS 1.3 asks of a key, and all that a P-256 key does in TLS 1.2
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
# Both, always: a workload calls and is called under one identity (X509-SVID, section 4.4).
SVID_PURPOSES: Final = x509.ExtendedKeyUsage(
    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A new P-256 key: what SPIRE uses, and the cheapest that every TLS stack has."""
    return ec.generate_private_key(ec.SECP256R1())


def authority_name(serial: int) -> x509.Name:
    """The authority's name. The number in it tells two authorities of one trust domain apart, for who goes by names.

    The trust domain is not in it: it may be longer than a name may be, and nothing reads it there.
    """
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, f"{serial:x}"),
        ]
    )


def svid_name() -> x509.Name:
    """Every SVID's subject: not empty, so that the alternative name need not be critical, and it identifies nobody."""
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION)])
