from __future__ import annotations

import os

import pytest

from sidecar.issuer.durable import TEMPORARY, Content, remove_temporaries, write_directory, write_files


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_files_appear_with_their_bytes_and_modes_whatever_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        write_files(tmp_path, [Content("open", b"a", 0o644), Content("secret", b"b")])
    finally:
        os.umask(before)
    assert names(tmp_path) == ["open", "secret"]
    assert (tmp_path / "open").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "secret").read_bytes() == b"b"


def test_a_file_is_replaced_and_not_written_into(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with (tmp_path / "a").open("rb") as reader:
        write_files(tmp_path, [Content("a", b"new")])
        assert reader.read() == b"old"
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_disk_that_is_full_changes_nothing_and_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")
    calls = []

    def full(*args):
        calls.append(args)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("sidecar.issuer.durable.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_files(tmp_path, [Content("a", b"new"), Content("b", b"new")])
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_everything_is_synced_before_the_first_rename_and_the_names_after_the_last(tmp_path, monkeypatch):
    steps = []
    real_fsync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(
        "sidecar.issuer.durable.os.fsync", lambda fd: (steps.append("sync"), real_fsync(fd))[1]
    )
    monkeypatch.setattr(
        "sidecar.issuer.durable.os.replace", lambda a, b: (steps.append("rename"), real_replace(a, b))[1]
    )
    write_files(tmp_path, [Content("a", b"1"), Content("b", b"2")])
    assert steps == ["sync", "sync", "rename", "rename", "sync"]


def test_a_directory_appears_whole(tmp_path):
    write_directory(tmp_path / "web", [Content("a", b"1", 0o644), Content("b", b"2")])
    assert names(tmp_path) == ["web"]
    assert (tmp_path / "web").stat().st_mode & 0o777 == 0o700
    assert names(tmp_path / "web") == ["a", "b"]


def test_a_directory_with_files_is_never_replaced(tmp_path):
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "kept").touch()
    with pytest.raises(OSError):
        write_directory(tmp_path / "web", [Content("a", b"1")])
    assert names(tmp_path) == ["web"]
    assert names(tmp_path / "web") == ["kept"]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / f"{TEMPORARY}1").touch()
    (tmp_path / f"{TEMPORARY}2").mkdir()
    (tmp_path / f"{TEMPORARY}2" / "svid.pem").touch()
    (tmp_path / f"{TEMPORARY}3").symlink_to(tmp_path / "kept", target_is_directory=True)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "inside").touch()
    remove_temporaries(tmp_path)
    assert names(tmp_path) == ["kept"]
    assert names(tmp_path / "kept") == ["inside"]
