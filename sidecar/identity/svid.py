"""X.509-SVIDs and snapshots: values, immutable, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
)

from sidecar.errors import IdentityError
from sidecar.identity.bundle import Bundles
from sidecar.identity.pem import PRIVATE_KEY, parse_blocks, parse_certificates
from sidecar.identity.spiffe_id import SpiffeId, parse_workload_id


@dataclass(frozen=True, slots=True)
class Svid:
    """An own identity: its id, the chain (leaf first) and the leaf's key, which no text of it ever shows."""

    spiffe_id: SpiffeId
    chain: tuple[x509.Certificate, ...]
    private_key: PrivateKeyTypes = field(repr=False)

    @property
    def not_before(self) -> datetime:
        """When the leaf becomes valid, aware UTC."""
        return self.chain[0].not_valid_before_utc

    @property
    def not_after(self) -> datetime:
        """When the leaf ends, aware UTC."""
        return self.chain[0].not_valid_after_utc

    @property
    def serial(self) -> str:
        """The leaf's serial number in lower-case hex."""
        return f"{self.chain[0].serial_number:x}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One generation of own SVID and bundles; swapped whole, never changed."""

    generation: int
    svid: Svid
    bundles: Bundles


def parse_svid(chain_pem: bytes, key_pem: bytes) -> Svid:
    """The SVID in a PEM chain (leaf first) and an unencrypted PKCS#8 key. Raises :class:`IdentityError`.

    The key fits the leaf, and the leaf names one workload. Whether anybody should believe it, dates included, is for
    :func:`sidecar.tls.verify.verify_peer` to say.
    """
    chain = parse_certificates(chain_pem)
    spiffe_id = read_workload_id(chain[0])
    private_key = _parse_key(key_pem)
    if not _is_key_of(private_key, chain[0]):
        raise IdentityError("KEY", f"the key does not belong to the leaf of {str(spiffe_id)!r}")
    return Svid(spiffe_id, tuple(chain), private_key)


def read_workload_id(leaf: x509.Certificate) -> SpiffeId:
    """The workload that the leaf claims to be: its only URI name, whatever other names there are.

    Raises :class:`IdentityError` (X5-01, X5-03, ID-01 to ID-12). The leaf's extensions must be readable.
    """
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise IdentityError("X5-01", "the leaf has no subject alternative name, so no SPIFFE ID") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise IdentityError("X5-01", f"the leaf has {len(uris)} URI names, expected exactly 1")
    return parse_workload_id(uris[0])


def _parse_key(key_pem: bytes) -> PrivateKeyTypes:
    blocks = parse_blocks(key_pem, PRIVATE_KEY)
    if len(blocks) != 1:
        raise IdentityError("KEY", f"there are {len(blocks)} private keys, expected exactly 1")
    try:
        return load_der_private_key(blocks[0], password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Without the cause: no text about the inside of a key leaves this function.
        raise IdentityError("KEY", "the private key cannot be read, expected unencrypted PKCS#8") from None


def _is_key_of(private_key: PrivateKeyTypes, leaf: x509.Certificate) -> bool:
    try:
        certified = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise IdentityError("KEY", "the leaf's key cannot be read") from exc
    return private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == certified
