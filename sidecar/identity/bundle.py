"""Trust bundles: the authorities of one trust domain (SPIFFE Trust Domain and Bundle). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cryptography import x509


@dataclass(frozen=True, slots=True)
class Bundle:
    """The X.509 authorities of ``trust_domain``, CA certificates only; none at all means "trust nobody"."""

    trust_domain: str
    authorities: tuple[x509.Certificate, ...]
    sequence: int | None = None
    refresh_hint_s: int | None = None


Bundles = Mapping[str, Bundle]
"""One bundle per trust domain name. A peer is judged by the bundle of its own trust domain and by no other."""
