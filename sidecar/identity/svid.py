"""X.509-SVIDs and snapshots: values, immutable, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from sidecar.identity.bundle import Bundles
from sidecar.identity.spiffe_id import SpiffeId


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
