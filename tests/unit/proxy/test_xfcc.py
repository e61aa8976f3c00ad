"""The header that names the caller: Envoy's grammar, and nothing in it that would need quoting."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.identity.peer import Peer
from sidecar.identity.spiffe_id import parse_spiffe_id
from sidecar.proxy.xfcc import build_xfcc

OWN = "spiffe://demo.test/orders"
WEB = "spiffe://demo.test/web"
PEER = Peer(parse_spiffe_id(WEB), WEB, "5f0c", "ab" * 32, 2e9, "192.0.2.7", 1)


def test_the_value() -> None:
    assert (
        build_xfcc(OWN, PEER)
        == b"By=spiffe://demo.test/orders;Hash=" + b"ab" * 32 + b";URI=spiffe://demo.test/web"
    )


@pytest.mark.parametrize(
    "part", ["\r\nx: y", ",By=spiffe://demo.test/admin", ";URI=spiffe://demo.test/admin", '"', " ", "=", "é"]
)
def test_c9_what_would_need_quoting_is_not_forwarded(part: str) -> None:
    with pytest.raises(ValueError, match="cannot be forwarded"):
        build_xfcc(OWN, replace(PEER, id_text=WEB + part))
    with pytest.raises(ValueError, match="cannot be forwarded"):
        build_xfcc(OWN + part, PEER)
    with pytest.raises(ValueError, match="cannot be forwarded"):
        build_xfcc(OWN, replace(PEER, leaf_sha256="ab" * 32 + part))


@pytest.mark.parametrize(
    "text", ["", "spiffe://demo.test", "spiffe://demo.test/", "https://demo.test/web", WEB + "\n"]
)
def test_only_a_workload_is_forwarded(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be forwarded"):
        build_xfcc(OWN, replace(PEER, id_text=text))
