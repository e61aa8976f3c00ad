from __future__ import annotations

import os

import pytest

from sidecar.errors import StateError
from sidecar.issuer.private import (
    FileLock,
    check_private_directory,
    locked,
    make_private_directory,
    read_private_file,
)


def test_every_missing_parent_is_made_for_the_owner_only(tmp_path):
    before = os.umask(0)
    try:
        make_private_directory(tmp_path / "state" / "issuer")
    finally:
        os.umask(before)
    for path in (tmp_path / "state", tmp_path / "state" / "issuer"):
        assert path.stat().st_mode & 0o777 == 0o700
    make_private_directory(tmp_path / "state" / "issuer")


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o720])
def test_a_directory_that_others_may_write_to_is_refused(tmp_path, mode):
    (tmp_path / "d").mkdir()
    (tmp_path / "d").chmod(mode)
    with pytest.raises(StateError, match=f"may be written by others .mode {mode:04o}.; chmod it to 0700"):
        make_private_directory(tmp_path / "d")


def test_a_directory_of_another_user_is_refused_to_everybody(tmp_path, monkeypatch):
    monkeypatch.setattr("sidecar.issuer.private.os.geteuid", lambda: os.getuid() + 1)
    with pytest.raises(StateError, match="belongs to uid"):
        check_private_directory(tmp_path)


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "f").touch()
    with pytest.raises(StateError):
        make_private_directory(tmp_path / "f")
    with pytest.raises(StateError):
        make_private_directory(tmp_path / "f" / "below")
    with pytest.raises(StateError, match="cannot be used"):
        check_private_directory(tmp_path / "missing")


def planted(tmp_path, mode=0o600, data=b"content"):
    path = tmp_path / "file"
    path.write_bytes(data)
    path.chmod(mode)
    return path


def test_a_private_file_is_read(tmp_path):
    assert read_private_file(planted(tmp_path), 7, is_secret=True) == b"content"
    assert read_private_file(planted(tmp_path, 0o644), 7) == b"content"


@pytest.mark.parametrize(
    ("mode", "is_secret"), [(0o640, True), (0o604, True), (0o601, True), (0o620, False), (0o602, False)]
)
def test_a_file_that_is_open_to_others_is_refused(tmp_path, mode, is_secret):
    with pytest.raises(StateError, match="open to others"):
        read_private_file(planted(tmp_path, mode), 100, is_secret=is_secret)


def test_a_file_of_another_user_is_refused(tmp_path, monkeypatch):
    path = planted(tmp_path)
    monkeypatch.setattr("sidecar.issuer.private.os.geteuid", lambda: os.getuid() + 1)
    with pytest.raises(StateError, match="belongs to uid"):
        read_private_file(path, 100)


def test_a_file_that_is_too_large_missing_linked_or_none_is_refused(tmp_path):
    path = planted(tmp_path)
    with pytest.raises(StateError, match="larger than 6 bytes"):
        read_private_file(path, 6)
    with pytest.raises(StateError, match="cannot be read"):
        read_private_file(tmp_path / "missing", 6)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(StateError, match="cannot be read"):
        read_private_file(tmp_path / "link", 100)
    with pytest.raises(StateError):
        read_private_file(tmp_path, 100)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(StateError, match="not a regular file"):
        read_private_file(tmp_path / "pipe", 100)


def test_one_lock_at_a_time(tmp_path):
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.acquire(wait=False) and first.is_held
    assert not second.acquire(wait=False) and not second.is_held
    first.release()
    first.release()
    assert not first.is_held
    assert second.acquire(wait=False)
    second.release()
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("replace", [True, False])
def test_a_lock_whose_file_was_replaced_or_removed_is_not_held(tmp_path, replace):
    lock = FileLock(tmp_path / "lock")
    lock.acquire(wait=False)
    (tmp_path / "lock").unlink()
    if replace:
        (tmp_path / "lock").touch()
    assert not lock.is_held
    lock.release()


def test_a_lock_that_cannot_be_made_is_an_error(tmp_path):
    with pytest.raises(StateError, match="cannot be locked"):
        FileLock(tmp_path / "missing" / "lock").acquire(wait=False)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError, match="cannot be locked"):
        FileLock(tmp_path / "link").acquire(wait=False)


def test_a_lock_for_a_block_ends_with_it(tmp_path):
    other = FileLock(tmp_path / "lock")
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "lock"):
        assert not other.acquire(wait=False)
        raise ZeroDivisionError
    assert other.acquire(wait=False)
    other.release()
