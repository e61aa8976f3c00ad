"""What a finished handshake has proved about the other side. A value; no I/O."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.identity.spiffe_id import SpiffeId


@dataclass(frozen=True, slots=True)
class Peer:
    """One proven workload at one address.

    ``id_text`` is ``str(spiffe_id)``, kept because every call needs it. ``serial`` and ``leaf_sha256`` are lower-case
    hex of the leaf's serial number and of the SHA-256 of its DER form; ``not_after_s`` is the leaf's end, Unix seconds;
    ``source`` the address without port; ``generation`` that of the snapshot whose bundles proved it.
    """

    spiffe_id: SpiffeId
    id_text: str
    serial: str
    leaf_sha256: str
    not_after_s: float
    source: str
    generation: int
