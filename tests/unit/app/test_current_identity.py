from __future__ import annotations

import pytest

from sidecar.app.current_identity import CurrentIdentity, describe
from sidecar.errors import IdentityError, UnavailableError
from sidecar.identity.bundle import Bundle
from sidecar.identity.svid import Snapshot, Svid
from sidecar.metrics import SidecarMetrics
from tests.fakes.certificates import HOUR, START, DemoAuthority, new_key
from tests.fakes.clock import FakeClock

AUTHORITY = DemoAuthority()


def snapshot(generation: int, bundles=None) -> Snapshot:
    svid = AUTHORITY.issue("spiffe://demo.test/orders").svid
    return Snapshot(generation, svid, AUTHORITY.bundles() if bundles is None else bundles)


class Held:
    """A current identity and what it has told."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.metrics = SidecarMetrics()
        self.records = []
        self.bundles = []
        self.first = snapshot(1)
        self.identity = CurrentIdentity(
            self.first,
            self.clock,
            self.metrics,
            lambda event, body: self.records.append((event, body["result"])),
            self.bundles.append,
        )


def test_a_newer_snapshot_is_in_force_for_new_handshakes():
    held = Held()
    before = held.identity.context()
    second = snapshot(2)
    held.identity.take(second)
    assert held.identity.snapshot is second
    assert held.identity.context() is not before and held.identity.context().generation == 2
    assert held.records == [("svid", "ok")]
    assert held.metrics.svid_rotations.labels("ok").value == 1
    assert held.bundles == []


def test_e37_a_key_that_does_not_fit_leaves_the_old_snapshot_in_force():
    held = Held()
    before = held.identity.context()
    good = snapshot(2)
    held.identity.take(Snapshot(2, Svid(good.svid.spiffe_id, good.svid.chain, new_key()), good.bundles))
    assert held.identity.snapshot is held.first and held.identity.context() is before
    assert held.records == [("svid", "failed")]
    assert held.identity.trouble is not None
    held.identity.take(good)
    assert held.identity.trouble is None


def test_other_bundles_are_told_of_so_that_open_connections_are_judged_anew():
    held = Held()
    empty = snapshot(2, {"demo.test": Bundle("demo.test", ())})
    held.identity.take(empty)
    assert held.bundles == [empty]


def test_rel_11_it_serves_until_the_end_of_the_svid_to_the_second():
    held = Held()
    held.identity.fail(IdentityError("X", "the files are gone"))
    held.clock.advance(HOUR.total_seconds() - 1)
    assert held.identity.is_fit() and held.identity.context().generation == 1
    held.clock.advance(1)
    assert not held.identity.is_fit()
    with pytest.raises(UnavailableError, match="ended at 2026-11-24T13:00:00Z"):
        held.identity.context()
    held.clock.step_wall(-1)
    assert held.identity.is_fit()


def test_the_ends_are_shown_as_absolute_times():
    held = Held()
    text = held.metrics.registry.render().decode()
    end = int((START + HOUR).timestamp())
    assert f"sidecar_svid_not_after_timestamp_seconds {end}" in text
    root = int(AUTHORITY.certificate.not_valid_after_utc.timestamp())
    assert f'sidecar_bundle_not_after_timestamp_seconds{{trust_domain="demo.test"}} {root}' in text


def test_a_description_has_no_key_in_it():
    described = describe(snapshot(3))
    assert described["spiffe_id"] == "spiffe://demo.test/orders" and described["bundles"] == {"demo.test": 1}
    assert set(described) == {"spiffe_id", "serial", "not_after", "generation", "bundles"}
