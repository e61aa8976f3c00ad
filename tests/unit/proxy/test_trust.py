"""Bundles change while connections are open."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from sidecar.errors import IdentityError
from sidecar.identity.bundle import Bundle, Bundles
from sidecar.identity.spiffe_id import SpiffeId
from sidecar.proxy import trust
from tests.fakes.certificates import DemoAuthority
from tests.fakes.data_plane import GET, WEB, DataPlane, in_memory, make_peer, turn
from tests.fakes.transports import FakeTransport


def open_connection(plane: DataPlane, authority: DemoAuthority, id_text: str = WEB) -> FakeTransport:
    """A connection whose peer presented a chain of this authority's."""
    issued = authority.issue(id_text)
    return plane.caller(chain=[each.public_bytes(Encoding.DER) for each in issued.chain])


@in_memory
async def test_rel8_who_is_no_longer_trusted_is_cut_with_the_open_call():
    plane = DataPlane()
    ours, theirs = DemoAuthority(), DemoAuthority()
    stays, goes = open_connection(plane, ours), open_connection(plane, theirs)
    goes.feed(GET)
    await turn()
    plane.inbound.recheck_trust(ours.bundles(), plane.clock.now())
    assert not stays.is_closed
    assert goes.is_aborted
    assert plane.service.link.is_aborted
    line = plane.line()
    assert (line.outcome.cut, line.outcome.status) == ("untrusted", None)
    assert goes.take() == b""


@pytest.mark.parametrize("bundles", [{}, {"demo.test": Bundle("demo.test", ())}], ids=["gone", "empty"])
@in_memory
async def test_rel8_a_bundle_that_is_empty_or_gone_trusts_nobody(bundles: Bundles):
    plane = DataPlane()
    caller = open_connection(plane, DemoAuthority())
    plane.inbound.recheck_trust(bundles, plane.clock.now())
    assert caller.is_aborted


@pytest.mark.parametrize("chain", [(), (b"no certificate",)])
@in_memory
async def test_a_chain_that_cannot_be_judged_is_not_trusted(chain: tuple[bytes, ...]):
    plane = DataPlane()
    caller = plane.caller(chain=chain)
    plane.inbound.recheck_trust(DemoAuthority().bundles(), plane.clock.now())
    assert caller.is_aborted


@in_memory
async def test_a_chain_that_proves_another_is_not_trusted():
    plane = DataPlane()
    authority = DemoAuthority()
    caller = open_connection(plane, authority, "spiffe://demo.test/other")
    plane.inbound.recheck_trust(authority.bundles(), plane.clock.now())
    assert caller.is_aborted


@in_memory
async def test_many_are_judged_in_portions_and_a_later_change_begins_anew(monkeypatch: pytest.MonkeyPatch):
    judged: list[int] = []

    def verify(chain: list[bytes], bundles: dict[str, int], now: datetime) -> SpiffeId:
        judged.append(bundles["generation"])
        if bundles["generation"] == 2:
            raise IdentityError("test", "no longer")
        return make_peer().spiffe_id

    monkeypatch.setattr(trust, "verify_peer", verify)
    monkeypatch.setattr(trust.x509, "load_der_x509_certificate", lambda data: data)
    plane = DataPlane()
    callers = [plane.caller(chain=[b"%d" % number]) for number in range(100)]
    same = plane.caller(chain=[b"0"])
    plane.inbound.recheck_trust({"generation": 1}, plane.clock.now())  # type: ignore[dict-item]
    assert len(judged) == 16
    await asyncio.sleep(0)
    assert len(judged) == 32
    plane.inbound.recheck_trust({"generation": 2}, plane.clock.now())  # type: ignore[dict-item]
    await turn(20)
    assert judged.count(2) == 100
    assert judged.count(1) == 32
    assert all(caller.is_aborted for caller in [*callers, same])
