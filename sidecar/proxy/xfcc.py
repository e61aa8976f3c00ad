"""``x-forwarded-client-cert`` as Envoy writes it: by whom, which certificate, which workload. Pure."""

from __future__ import annotations

import re

from sidecar.identity.peer import Peer

_PLAIN = re.compile(
    r"By=spiffe://[a-z0-9._-]+/[A-Za-z0-9._/-]+;Hash=[0-9a-f]{64};URI=spiffe://[a-z0-9._-]+/[A-Za-z0-9._/-]+"
)


def build_xfcc(own_id: str, peer: Peer) -> bytes:
    """``By=<own id>;Hash=<SHA-256 of the peer's leaf>;URI=<peer's id>``, made once a connection.

    SPIFFE IDs cannot hold what the grammar would have to quote (C9); should one ever, ValueError.
    """
    text = f"By={own_id};Hash={peer.leaf_sha256};URI={peer.id_text}"
    if _PLAIN.fullmatch(text) is None:
        raise ValueError("an identity that is no workload's SPIFFE ID cannot be forwarded")
    return text.encode("ascii")
