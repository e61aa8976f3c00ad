"""Judging the peers of open connections anew when bundles have changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime

from cryptography import x509

from sidecar.authz.reasons import Reason
from sidecar.errors import IdentityError
from sidecar.identity.bundle import Bundles
from sidecar.proxy.connection import Connection
from sidecar.tls.verify import verify_peer

log = logging.getLogger(__name__)

_PORTION = 16


class TrustCheck:
    """One pass over the connections that were open when it began; those with the same chain are judged
    together."""

    def __init__(self, bundles: Bundles, now: datetime, connections: Sequence[Connection]) -> None:
        self._bundles = bundles
        self._now = now
        self._by_chain: dict[tuple[bytes, ...], list[Connection]] = {}
        for connection in connections:
            self._by_chain.setdefault(connection.peer_chain, []).append(connection)
        self._handle: asyncio.Handle | None = None

    def start(self) -> None:
        """Judges the first portion now and the others in later turns of the loop."""
        self._handle = None
        for _ in range(min(_PORTION, len(self._by_chain))):
            chain, connections = self._by_chain.popitem()
            if not self._is_trusted(chain, connections[0]):
                for connection in connections:
                    connection.cut(Reason.UNTRUSTED)
        if self._by_chain:
            self._handle = asyncio.get_running_loop().call_soon(self.start)

    def cancel(self) -> None:
        """Judges no further."""
        if self._handle is not None:
            self._handle.cancel()

    def _is_trusted(self, chain: tuple[bytes, ...], connection: Connection) -> bool:
        try:
            certificates = [x509.load_der_x509_certificate(each) for each in chain]
            spiffe_id = verify_peer(certificates, self._bundles, self._now)
        except IdentityError as exc:
            log.warning("%s is no longer trusted: %s", connection.peer.id_text, exc)
            return False
        except Exception:
            log.exception("the chain of %s could not be judged", connection.peer.id_text)
            return False
        return spiffe_id == connection.peer.spiffe_id
