"""The issuer's work on a directory, with a clock that stands still until a test moves it."""

from __future__ import annotations

import logging
import os
import shutil
import stat
from datetime import timedelta

import pytest
from cryptography import x509

from sidecar.identity.spiffe_id import parse_spiffe_id
from sidecar.issuer.issuing import RETRY_S, Issuer
from sidecar.issuer.store import init_store
from sidecar.sources.reading import read_bundles, read_svid, verify_own
from tests.fakes.clock import FakeClock

WEB = parse_spiffe_id("spiffe://shop.test/web")
ORDERS = parse_spiffe_id("spiffe://shop.test/ns/orders")
HOUR = timedelta(hours=1)


class World:
    """A store with an authority, and an issuer on it."""

    def __init__(self, directory, lifetime=HOUR) -> None:
        self.clock = FakeClock()
        self.store = init_store(directory / "issuer", "shop.test", self.clock)
        self.lifetime = lifetime
        self.restart()

    def restart(self, lifetime=None) -> None:
        self.issuer = Issuer(
            self.store, self.store.load_authority(), self.clock, lifetime or self.lifetime, lambda: 0.5
        )

    def add(self, *ids) -> None:
        for each in ids:
            self.store.add(each, self.clock)

    def svid(self, spiffe_id=WEB):
        """What a reader would take, judged as a reader judges it."""
        places = self.store.places(spiffe_id)
        svid = read_svid(places, spiffe_id)
        verify_own(svid, read_bundles(places.bundle, "shop.test"), self.clock.now())
        return svid

    def files(self):
        return sorted(str(each.relative_to(self.store.svids)) for each in self.store.svids.rglob("*"))


@pytest.fixture()
def world(tmp_path):
    return World(tmp_path)


def test_without_entries_nothing_is_issued(world):
    assert world.issuer.tick() is True
    assert world.files() == []


def test_each_entry_has_three_files_that_hold(world):
    world.add(WEB, ORDERS)
    assert world.issuer.tick() is True
    assert world.files() == sorted(
        [
            name + end
            for name in ("web", "ns+orders")
            for end in ("", "/svid.pem", "/svid_key.pem", "/bundle.pem")
        ]
    )
    for each in (WEB, ORDERS):
        svid = world.svid(each)
        assert svid.spiffe_id == each
        assert HOUR - timedelta(seconds=1) <= svid.not_after - world.clock.now() <= HOUR
    places = world.store.places(WEB)
    assert stat.S_IMODE(places.key.stat().st_mode) == 0o600
    assert stat.S_IMODE(places.key.parent.stat().st_mode) == 0o700


def test_a_certificate_names_localhost_beside_its_id(world):
    world.add(WEB)
    world.issuer.tick()
    names = world.svid().chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [str(WEB)]


def test_it_is_renewed_at_half_of_its_life_with_another_key(world):
    world.add(WEB)
    world.issuer.tick()
    first = world.svid()
    directory = world.store.places(WEB).svid.parent.stat().st_ino
    world.clock.advance(1798)
    world.issuer.tick()
    assert world.svid().serial == first.serial
    world.clock.advance(2)
    world.issuer.tick()
    second = world.svid()
    assert second.serial != first.serial
    assert second.private_key.public_key() != first.private_key.public_key()
    assert second.not_after - first.not_after == timedelta(minutes=30)
    assert world.store.places(WEB).svid.parent.stat().st_ino == directory, "a container may have mounted it"


@pytest.mark.parametrize("seconds", [10, 60, 24 * 3600])
def test_any_lifetime_is_renewed_before_its_end_and_not_all_the_time(tmp_path, seconds):
    world = World(tmp_path, timedelta(seconds=seconds))
    world.add(WEB)
    serials = set()
    for _ in range(80):
        world.issuer.tick()
        serials.add(world.svid().serial)
        world.clock.advance(seconds / 20)
    assert 7 <= len(serials) <= 9


def test_a_restart_issues_nothing_anew(world):
    world.add(WEB)
    world.issuer.tick()
    serial = world.svid().serial
    world.restart()
    world.clock.advance(600)
    world.issuer.tick()
    assert world.svid().serial == serial
    world.clock.advance(1300)
    world.restart()
    world.issuer.tick()
    assert world.svid().serial != serial


def test_the_certificate_of_another_authority_is_replaced(world, tmp_path):
    world.add(WEB)
    world.issuer.tick()
    other = World(tmp_path / "other")
    other.add(WEB)
    other.issuer.tick()
    for name in ("svid", "key"):
        path = getattr(world.store.places(WEB), name)
        path.write_bytes(getattr(other.store.places(WEB), name).read_bytes())
    world.issuer.tick()
    world.issuer.tick()
    assert world.svid()


def test_a_shorter_lifetime_holds_at_once(world):
    world.add(WEB)
    world.issuer.tick()
    world.restart(lifetime=timedelta(minutes=1))
    world.issuer.tick()
    assert world.svid().not_after - world.clock.now() <= timedelta(minutes=1)


def test_a_restart_after_the_end_issues_anew(world):
    world.add(WEB)
    world.issuer.tick()
    world.clock.advance(7200)
    world.restart()
    world.issuer.tick()
    assert world.svid().not_after > world.clock.now()


def test_a_clock_that_was_stepped_makes_a_certificate_that_holds_now(world):
    world.add(WEB)
    world.clock.advance(86400)
    world.issuer.tick()
    for step in (3600, -3600, -7200):
        world.clock.step_wall(step)
        world.issuer.tick()
        assert timedelta(0) < world.svid().not_after - world.clock.now()
    assert world.svid().not_after - world.clock.now() <= HOUR


@pytest.mark.parametrize("name", ["svid", "key", "bundle"])
@pytest.mark.parametrize("how", ["removed", "damaged", "replaced"])
def test_a_file_that_was_touched_is_mended(world, name, how):
    world.add(WEB, ORDERS)
    world.issuer.tick()
    path = getattr(world.store.places(WEB), name)
    if how == "removed":
        path.unlink()
    elif how == "damaged":
        path.write_bytes(path.read_bytes()[:-30])
    else:
        path.write_bytes(getattr(world.store.places(ORDERS), name).read_bytes() + b"#")
    world.issuer.tick()
    world.issuer.tick()
    assert world.svid().spiffe_id == WEB
    assert path.stat().st_size == len(path.read_bytes()) > 0
    assert world.store.places(WEB).bundle.read_bytes() == world.store.places(ORDERS).bundle.read_bytes()


def test_somebody_who_removes_all_of_it_is_not_worked_against_at_once(world):
    world.add(WEB)
    world.issuer.tick()
    shutil.rmtree(world.store.places(WEB).svid.parent)
    world.issuer.tick()
    assert world.files() == []
    world.issuer.tick()
    assert world.svid()


def test_a_key_that_was_opened_to_others_is_replaced(world):
    world.add(WEB)
    world.issuer.tick()
    key = world.store.places(WEB).key
    before = key.read_bytes()
    key.chmod(0o644)
    world.issuer.tick()
    world.issuer.tick()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.read_bytes() != before


def test_the_files_of_a_removed_entry_go_and_those_of_another_stay(world):
    world.add(WEB, ORDERS)
    world.issuer.tick()
    serial = world.svid(ORDERS).serial
    world.store.remove(WEB)
    world.issuer.tick()
    assert not world.store.places(WEB).svid.parent.exists()
    assert world.svid(ORDERS).serial == serial
    world.add(WEB)
    world.issuer.tick()
    assert world.svid(WEB)


def test_files_of_an_entry_removed_while_nobody_issued_go_too(world):
    world.add(WEB)
    world.issuer.tick()
    world.store.remove(WEB)
    world.restart()
    world.issuer.tick()
    assert world.files() == []


def test_what_somebody_else_put_there_is_not_removed_and_told_once(world, caplog, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "svid.pem").touch()
    (world.store.svids / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (world.store.svids / "notes").mkdir()
    (world.store.svids / "notes" / "todo").touch()
    for _ in range(3):
        assert world.issuer.tick() is True
    assert (tmp_path / "elsewhere" / "svid.pem").exists()
    assert (world.store.svids / "notes" / "todo").exists()
    assert len(caplog.records) == 1 and caplog.records[0].entry == "notes"


def damaged(world, name="bad"):
    path = world.store.directory / "entries" / f"{name}.json"
    path.write_bytes(b"{")
    path.chmod(0o600)
    return path


def test_a_damaged_entry_stops_no_other_and_is_told_once(world, caplog):
    damaged(world)
    world.add(WEB)
    for _ in range(3):
        assert world.issuer.tick() is False
        world.clock.advance(RETRY_S)
    assert world.svid()
    assert [record.entry for record in caplog.records if record.levelno == logging.ERROR] == ["bad"]


def test_an_entry_that_became_damaged_keeps_its_files(world):
    world.add(WEB)
    world.issuer.tick()
    damaged(world, "web")
    world.issuer.tick()
    assert world.svid()
    (world.store.directory / "entries" / "web.json").unlink()
    world.add(WEB)
    world.clock.advance(RETRY_S)
    assert world.issuer.tick() is True


def test_a_disk_that_is_full_is_tried_again_and_told_once(world, monkeypatch, caplog):
    world.add(WEB, ORDERS)
    world.issuer.tick()
    serial = world.svid().serial
    full = [True]
    real = os.fsync

    def fsync(descriptor):
        if full[0]:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr("sidecar.issuer.durable.os.fsync", fsync)
    world.clock.advance(1801)
    for _ in range(4):
        assert world.issuer.tick() is False
        world.clock.advance(RETRY_S / 2)
    assert world.svid().serial == serial, "the old one stays until its end"
    assert sum(record.levelno == logging.ERROR for record in caplog.records) == 2
    full[0] = False
    world.clock.advance(RETRY_S)
    assert world.issuer.tick() is True
    assert world.svid().serial != serial
    assert not [name for name in world.files() if "+tmp-" in name]


def test_an_unforeseen_error_of_one_entry_stops_no_other(world, monkeypatch):
    real = Issuer._issue
    attempts = []

    def issue(self, name, entry):
        if entry.spiffe_id == ORDERS:
            attempts.append(name)
            raise ZeroDivisionError("no")
        real(self, name, entry)

    monkeypatch.setattr(Issuer, "_issue", issue)
    world.add(ORDERS, WEB)
    for _ in range(4):
        assert world.issuer.tick() is False
    assert world.svid(WEB)
    assert len(attempts) == 1, "tried again after a while, not all the time"
    world.clock.advance(RETRY_S)
    world.issuer.tick()
    assert len(attempts) == 2


def test_nothing_is_removed_when_the_entries_cannot_be_listed(world):
    world.add(WEB)
    world.issuer.tick()
    os.rename(world.store.directory / "entries", world.store.directory / "away")
    with pytest.raises(OSError):
        world.issuer.tick()
    assert world.svid()


def authority_left(world, seconds):
    end = world.store.load_certificate().not_valid_after_utc
    world.clock.advance((end - world.clock.now()).total_seconds() - seconds)


def test_no_certificate_outlives_the_authority_and_none_is_made_after_it(world):
    world.add(WEB)
    authority_left(world, 900)
    serials = set()
    for _ in range(180):
        world.issuer.tick()
        serials.add(world.svid().serial)
        assert world.svid().not_after <= world.store.load_certificate().not_valid_after_utc
        world.clock.advance(4.9)
    assert 5 < len(serials) < 20, "the last ones are not renewed over and over"
    world.clock.advance(60)
    assert world.issuer.tick() is False


def test_the_end_of_the_authority_is_warned_of_once_a_day(world, caplog):
    world.issuer.tick()
    assert caplog.records == []
    authority_left(world, 60 * 86400)
    for _ in range(48):
        world.issuer.tick()
        world.clock.advance(3600)
    assert len(caplog.records) == 2
    assert all("authority ends soon" in record.message for record in caplog.records)


def test_what_is_issued_is_logged_and_no_key(world, caplog):
    caplog.set_level(logging.INFO)
    world.add(WEB)
    world.issuer.tick()
    record = caplog.records[0]
    assert record.spiffe_id == str(WEB)
    assert record.serial == world.svid().serial
    assert record.not_after == "2026-11-24T13:00:00Z"
    assert "PRIVATE" not in caplog.text
