"""Why a handshake came to nothing: one value, and the rules that are not the verifier's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

NO_CERTIFICATE: Final = "no-certificate"
CERTIFICATE: Final = "certificate"
"""A certificate that could not even be judged."""
CHAIN: Final = "chain"
"""More certificates than a chain may have."""
UNPROVEN: Final = "unproven"
"""A handshake that finished without a verdict about the certificate that it presents."""
PROTOCOL: Final = "protocol"
VERSION: Final = "version"
ALPN: Final = "alpn"
PEER_ALERT: Final = "peer-alert"
"""The peer refused us."""
NOT_TLS: Final = "not-tls"
TOO_LARGE: Final = "too-large"
TIMEOUT: Final = "timeout"
UNAVAILABLE: Final = "unavailable"
"""There is no own certificate in force."""
INTERNAL: Final = "internal"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A handshake that was refused.

    ``rule`` is a SPIFFE clause such as ``X5-17`` or one of this module's names; ``detail`` one line for
    people. ``claimed`` is the first URI in the certificate that was presented: nobody has proved it.
    ``source`` is the address without port.
    """

    rule: str
    detail: str
    claimed: str | None
    source: str
