"""The verdict about a peer, given inside the handshake, and its proof once the handshake is over."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from cryptography import x509
from OpenSSL import SSL, crypto

from sidecar.clock import Clock
from sidecar.errors import IdentityError
from sidecar.identity.bundle import Bundles
from sidecar.identity.peer import Peer
from sidecar.identity.spiffe_id import MAX_ID_BYTES, SpiffeId
from sidecar.tls.refusal import CERTIFICATE, CHAIN, UNPROVEN
from sidecar.tls.verify import verify_peer

MAX_CHAIN_CERTIFICATES: Final = 5

_OK: Final = 0
_CHAIN_TOO_LONG: Final = 22  # X509_V_ERR_CERT_CHAIN_TOO_LONG

Judge = Callable[[SSL.Connection, crypto.X509, int, int, int], bool]


class Judgement:
    """What one handshake has found out about its peer.

    A verdict is either ``spiffe_id`` with ``leaf`` and ``chain`` (DER, leaf first), or ``refusal``: rule
    and detail. The first refusal stands. Neither means that nobody has judged.
    """

    __slots__ = ("_seen", "chain", "leaf", "refusal", "spiffe_id")

    def __init__(self) -> None:
        self._seen: dict[int, crypto.X509] = {}
        self.chain: tuple[bytes, ...] = ()
        self.leaf: x509.Certificate | None = None
        self.spiffe_id: SpiffeId | None = None
        self.refusal: tuple[str, str] | None = None

    def see(self, certificate: crypto.X509, error: int, depth: int, bundles: Bundles, clock: Clock) -> bool:
        """Takes one certificate of the chain as OpenSSL shows it; whether the handshake may go on.

        OpenSSL finds fault with every chain, because it trusts nobody: its errors say nothing. Its last
        word is always depth 0 without an error, and then it is our turn. Raises :class:`IdentityError`.
        """
        if self.refusal is not None:
            return False
        if error == _CHAIN_TOO_LONG or depth >= MAX_CHAIN_CERTIFICATES:
            raise IdentityError(CHAIN, f"the chain has more than {MAX_CHAIN_CERTIFICATES} certificates")
        self._seen[depth] = certificate
        if depth == 0 and error == _OK:
            encoded = tuple(_encode(self._seen[place]) for place in sorted(self._seen))
            chain = [x509.load_der_x509_certificate(each) for each in encoded]
            self.spiffe_id = verify_peer(chain, bundles, clock.now())
            self.leaf, self.chain = chain[0], encoded
        return True

    def refuse(self, rule: str, detail: str) -> None:
        """Notes a refusal; one that stands already is kept."""
        if self.refusal is None:
            self.refusal = (rule, detail)

    def claimed(self) -> str | None:
        """The first URI that the leaf carries, SPIFFE IDs first, escaped to printable ASCII; nobody has proved it."""
        try:
            leaf = self._seen[0].to_cryptography()
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        except Exception:  # noqa: BLE001 -- the certificate is the peer's; what cannot be read claims nothing
            return None
        first = min(uris, key=lambda uri: not uri.startswith("spiffe://"), default=None)
        return None if first is None else first.encode("unicode_escape").decode("ascii")[:MAX_ID_BYTES]


def build_judge(bundles: Bundles, clock: Clock) -> Judge:
    """OpenSSL's verify callback: judges by ``bundles``; the connection's app data is its :class:`Judgement`."""

    def judge(
        connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, is_ok: int
    ) -> bool:
        judgement: Judgement = connection.get_app_data()
        try:
            return judgement.see(certificate, error, depth, bundles, clock)
        except IdentityError as exc:
            judgement.refuse(exc.rule, str(exc))
        except Exception as exc:  # noqa: BLE001 -- whatever goes wrong while judging is a refusal
            judgement.refuse(CERTIFICATE, f"the certificate cannot be judged: {type(exc).__name__}")
        return False

    return judge


def proven_peer(connection: SSL.Connection, judgement: Judgement, source: str, generation: int) -> Peer:
    """The peer that a finished handshake has proved. Raises :class:`IdentityError`.

    OpenSSL has checked that the peer holds the key of the certificate which it presents; we have judged a
    certificate. Only if both are the same one, byte for byte, is anything proved: a handshake that never
    came to our judge (a resumed one, say) proves nothing.
    """
    if judgement.refusal is not None:
        raise IdentityError(*judgement.refusal)
    leaf, spiffe_id = judgement.leaf, judgement.spiffe_id
    if leaf is None or spiffe_id is None or not judgement.chain:
        raise IdentityError(UNPROVEN, "the handshake ended without a verdict")
    presented = connection.get_peer_certificate()
    if presented is None or _encode(presented) != judgement.chain[0]:
        raise IdentityError(
            UNPROVEN, "the handshake presents another certificate than the one that was judged"
        )
    # A server's list leaves the leaf out. OpenSSL takes what is beside the path without a word.
    if len(connection.get_peer_cert_chain() or ()) >= MAX_CHAIN_CERTIFICATES:
        raise IdentityError(CHAIN, f"the peer sent more than {MAX_CHAIN_CERTIFICATES} certificates")
    return Peer(
        spiffe_id=spiffe_id,
        id_text=str(spiffe_id),
        serial=f"{leaf.serial_number:x}",
        leaf_sha256=hashlib.sha256(judgement.chain[0]).hexdigest(),
        not_after_s=leaf.not_valid_after_utc.timestamp(),
        source=source,
        generation=generation,
    )


def _encode(certificate: crypto.X509) -> bytes:
    """The certificate in DER."""
    return crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
