from __future__ import annotations

import stat

import pytest

from sidecar.errors import ConfigurationError, StateError
from sidecar.identity.spiffe_id import parse_spiffe_id
from sidecar.issuer.durable import TEMPORARY
from sidecar.issuer.store import ensure_store, init_store, open_store
from tests.fakes.clock import FakeClock

WEB = parse_spiffe_id("spiffe://shop.test/web")
CLOCK = FakeClock()


@pytest.fixture()
def store(tmp_path):
    return init_store(tmp_path / "state" / "issuer", "shop.test", CLOCK)


def test_a_new_store_is_private_and_complete(store):
    modes = {
        each.name: stat.S_IMODE(each.stat().st_mode) for each in [store.directory, *store.directory.iterdir()]
    }
    assert modes == {
        "issuer": 0o700,
        "format": 0o600,
        "trust-domain": 0o644,
        "authority.pem": 0o644,
        "authority_key.pem": 0o600,
        "entries": 0o700,
        "svids": 0o700,
        "change.lock": 0o600,
    }
    assert open_store(store.directory) == store
    authority = store.load_authority()
    assert authority.certificate == store.load_certificate()
    assert str(store.trust_domain) == "shop.test"


def test_the_authority_lives_a_year(store):
    left = store.load_certificate().not_valid_after_utc - CLOCK.now()
    assert 364 <= left.days <= 366


@pytest.mark.parametrize("again", ["shop.test", "other.test"])
def test_an_authority_is_never_overwritten(store, again):
    before = (store.directory / "authority_key.pem").read_bytes()
    with pytest.raises(ConfigurationError, match=r"already holds the authority of 'shop\.test'"):
        init_store(store.directory, again, CLOCK)
    assert (store.directory / "authority_key.pem").read_bytes() == before


def test_an_interrupted_init_is_finished_with_the_same_authority(store):
    (store.directory / "trust-domain").unlink()
    before = store.load_certificate()
    with pytest.raises(StateError, match="of another trust domain"):
        init_store(store.directory, "other.test", CLOCK)
    assert init_store(store.directory, "shop.test", CLOCK).load_certificate() == before


def test_a_key_alone_is_no_authority_yet(store):
    (store.directory / "trust-domain").unlink()
    (store.directory / "authority.pem").unlink()
    init_store(store.directory, "shop.test", CLOCK).load_authority()


def test_ensure_makes_it_once_and_refuses_another_trust_domain(tmp_path):
    first = ensure_store(tmp_path / "i", "shop.test", CLOCK).load_certificate()
    assert ensure_store(tmp_path / "i", "shop.test", CLOCK).load_certificate() == first
    with pytest.raises(
        ConfigurationError, match=r"holds the authority of 'shop\.test', not of 'other\.test'"
    ):
        ensure_store(tmp_path / "i", "other.test", CLOCK)


def test_where_there_is_no_authority_the_way_to_one_is_told(tmp_path):
    with pytest.raises(ConfigurationError, match="sidecar issuer init --trust-domain"):
        open_store(tmp_path)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("format", b"sidecar issuer 2\n", "not of a format"),
        ("format", b"", "not of a format"),
        ("trust-domain", b"", "damaged"),
        ("trust-domain", b"Shop.test\n", "damaged"),
        ("trust-domain", b"shop.test\nmore", "damaged"),
        ("trust-domain", b"shop.test\xff", "damaged"),
        ("trust-domain", b"a" * 70000, "larger"),
    ],
)
def test_a_damaged_store_is_refused(store, name, data, words):
    (store.directory / name).write_bytes(data)
    with pytest.raises(StateError, match=words):
        open_store(store.directory)


@pytest.mark.parametrize("name", ["", "entries", "svids"])
def test_a_store_that_others_may_write_to_is_refused(store, name):
    (store.directory / name).chmod(0o777)
    with pytest.raises(StateError, match="may be written by others"):
        open_store(store.directory)


@pytest.mark.parametrize("name", ["format", "entries", "svids"])
def test_a_store_with_a_part_missing_is_refused(store, name):
    path = store.directory / name
    path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(StateError):
        open_store(store.directory)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_an_authority_key_that_is_open_to_others_is_not_used(store, mode):
    (store.directory / "authority_key.pem").chmod(mode)
    with pytest.raises(StateError, match="open to others"):
        store.load_authority()
    store.load_certificate()


def test_an_authority_whose_parts_do_not_fit_is_refused(store, tmp_path):
    other = init_store(tmp_path / "other", "shop.test", CLOCK)
    foreign = init_store(tmp_path / "foreign", "other.test", CLOCK)
    key = store.directory / "authority_key.pem"
    kept = key.read_bytes()
    key.write_bytes((other.directory / "authority_key.pem").read_bytes())
    with pytest.raises(StateError, match="do not belong together"):
        store.load_authority()
    key.write_bytes(kept[:50])
    with pytest.raises(StateError, match="damaged"):
        store.load_authority()
    key.write_bytes((foreign.directory / "authority_key.pem").read_bytes())
    certificate = store.directory / "authority.pem"
    certificate.write_bytes((foreign.directory / "authority.pem").read_bytes())
    with pytest.raises(StateError, match="of another trust domain"):
        store.load_authority()
    for data in (b"", b"garbage", certificate.read_bytes() * 2):
        certificate.write_bytes(data)
        with pytest.raises(StateError, match="damaged"):
            store.load_certificate()


def test_entries_come_and_go(store):
    assert store.entries() == {}
    assert store.add(WEB, CLOCK) is True
    assert store.add(WEB, CLOCK) is False
    entry = store.entries()["web"]
    assert (entry.spiffe_id, entry.added_at) == (WEB, CLOCK.now())
    assert store.remove(WEB) is True
    assert store.remove(WEB) is False
    assert store.entries() == {}


def test_odd_names_come_back_as_they_are(store):
    paths = ["/.json", "/a.json", "/...", "/.x/-y", "/a/b", "/A", "/a"]
    ids = [parse_spiffe_id(f"spiffe://shop.test{path}") for path in paths]
    for each in ids:
        store.add(each, CLOCK)
    assert {entry.spiffe_id for entry in store.entries().values()} == set(ids)


def test_a_damaged_entry_is_its_error_and_others_are_read(store):
    store.add(WEB, CLOCK)
    for name, data in (("bad", b"{"), ("moved", (store.directory / "entries" / "web.json").read_bytes())):
        path = store.directory / "entries" / f"{name}.json"
        path.write_bytes(data)
        path.chmod(0o600)
    (store.directory / "entries" / f"{TEMPORARY}x.json").touch()
    (store.directory / "entries" / "notes.txt").touch()
    found = store.entries()
    assert list(found) == ["bad", "moved", "web"]
    assert [type(each) for each in found.values()][:2] == [StateError, StateError]


def test_an_entry_that_others_may_write_to_is_not_believed(store):
    store.add(WEB, CLOCK)
    (store.directory / "entries" / "web.json").chmod(0o666)
    assert isinstance(store.entries()["web"], StateError)


def test_one_process_issues_at_a_time(store):
    assert store.is_issuing() is False
    lock = store.run_lock()
    assert lock.acquire(wait=False)
    assert store.is_issuing() is True
    assert not store.run_lock().acquire(wait=False)
    lock.release()
    assert store.is_issuing() is False


def test_what_a_killed_process_left_is_removed(store):
    store.add(WEB, CLOCK)
    (store.svids / "web").mkdir()
    left = [store.directory, store.directory / "entries", store.svids, store.svids / "web"]
    for directory in left:
        (directory / f"{TEMPORARY}1").touch()
    store.remove_temporaries()
    assert not any(list(directory.glob(f"{TEMPORARY}*")) for directory in left)
    assert list(store.entries()) == ["web"]


def test_a_certificate_that_was_issued(store):
    assert store.issued_certificate(WEB) is None
    (store.svids / "web").mkdir()
    (store.svids / "web" / "svid.pem").write_bytes(b"garbage")
    assert store.issued_certificate(WEB) is None
    (store.svids / "web" / "svid.pem").write_bytes((store.directory / "authority.pem").read_bytes())
    assert store.issued_certificate(WEB) == store.load_certificate()
