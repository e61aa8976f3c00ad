from __future__ import annotations

import os

import pytest

from sidecar.errors import ConfigurationError
from sidecar.sources import reading
from sidecar.sources.places import Places
from sidecar.sources.reading import (
    MAX_BUNDLE_BYTES,
    MAX_SVID_BYTES,
    mark_of,
    read_bundles,
    read_file,
    read_svid,
)
from tests.fakes.certificates import DemoAuthority


@pytest.fixture()
def places(tmp_path):
    issued = DemoAuthority().issue("spiffe://demo.test/orders")
    places = Places(tmp_path / "svid.pem", tmp_path / "key.pem", tmp_path / "bundle.pem")
    places.svid.write_bytes(issued.chain_pem)
    places.key.write_bytes(issued.key_pem)
    places.key.chmod(0o600)
    return places


def test_a_file_is_read_up_to_its_limit(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100_000)
    assert read_file(path, 100_000) == b"x" * 100_000
    with pytest.raises(ConfigurationError, match="larger than 99999 bytes"):
        read_file(path, 99_999)


def test_files_larger_than_any_real_one_are_refused(places):
    with places.svid.open("ab") as file:
        file.truncate(MAX_SVID_BYTES + 1)
    with pytest.raises(ConfigurationError, match="larger than 1048576 bytes"):
        read_svid(places, None)
    with places.bundle.open("ab") as file:
        file.truncate(MAX_BUNDLE_BYTES + 1)
    with pytest.raises(ConfigurationError, match="larger than 4194304 bytes"):
        read_bundles(places.bundle, "demo.test")


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_refused(device):
    with pytest.raises(ConfigurationError, match="not a regular file"):
        read_file(device, 10)


def test_a_pipe_that_nobody_writes_to_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="not a regular file"):
        read_file(tmp_path / "pipe", 10)


def test_a_file_that_is_written_to_meanwhile_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"first")
    real_read, more = os.read, [b"more"]

    def read(descriptor, count):
        data = real_read(descriptor, count)
        if more:
            with path.open("ab") as file:
                file.write(more.pop())
        return data

    monkeypatch.setattr(reading.os, "read", read)
    with pytest.raises(ConfigurationError, match="written to while it was read"):
        read_file(path, 100)


@pytest.mark.parametrize(
    ("mode", "is_ours", "fits"),
    [
        (0o600, True, True),
        (0o400, True, True),
        (0o640, True, False),
        (0o610, True, False),
        (0o604, True, False),
        (0o644, True, False),
        (0o640, False, True),
        (0o440, False, True),
        (0o660, False, False),
        (0o644, False, False),
        (0o641, False, False),
    ],
)
def test_who_may_read_the_key(places, monkeypatch, mode, is_ours, fits):
    places.key.chmod(mode)
    uid = os.geteuid()
    monkeypatch.setattr(reading.os, "geteuid", lambda: uid if is_ours else uid + 1)
    if fits:
        assert str(read_svid(places, None).spiffe_id) == "spiffe://demo.test/orders"
    else:
        with pytest.raises(ConfigurationError, match=f"open to others .mode {mode:04o}."):
            read_svid(places, None)


def test_no_error_shows_the_key(places):
    secret = places.key.read_text().splitlines()[1]
    places.svid.write_bytes(places.key.read_bytes())
    with pytest.raises(Exception) as caught:
        read_svid(places, None)
    assert secret not in str(caught.value)


def test_the_mark_changes_with_the_file_behind_a_link(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(b"same")
    link = tmp_path / "link"
    assert mark_of(link) is None
    link.symlink_to("one")
    before = mark_of(link)
    assert before == mark_of(tmp_path / "one") is not None
    link.unlink()
    link.symlink_to("two")
    assert mark_of(link) != before
