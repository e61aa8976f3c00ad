"""``x-forwarded-client-cert`` as Envoy writes it: by whom, which certificate, which workload. Pure."""

from __future__ import annotations

import re

from sidecar.identity.peer import Peer

_PLAIN = re.compile(
    r"By=spiffe://[a-z0-9._-]+/[A-Za-z0-9._/-]+;Hash=[0-9a-f]{64};URI=spiffe://[a-z0-9._-]+/[A-Za-z0-9._/-]+"
)


def build_xfcc(own_id: str, peer: Peer) -> bytes:
    """The header's value for calls of ``peer``: ``By=<own id>;Hash=<leaf's SHA-256>;URI=<peer's id>``. Once a connection.

    SPIFFE IDs cannot hold what the grammar would have to quote (C9). Should one ever: ValueError, and no call.
    """
    text = f"By={own_id};Hash={peer.leaf_sha256};URI={peer.id_text}"
    if _PLAIN.fullmatch(text) is None:
        raise ValueError("an identity that is no workload's SPIFFE ID cannot be forwarded")
    return text.encode("ascii")
