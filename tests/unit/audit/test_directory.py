from __future__ import annotations

import errno
import os
import stat

import pytest

from sidecar.audit import directory as directory_module
from sidecar.audit.directory import open_directory, sync_directory
from sidecar.errors import StateError


@pytest.fixture
def opened(tmp_path):
    directory = open_directory(tmp_path / "audit")
    yield directory
    directory.close()


def test_it_is_made_for_its_owner_only(tmp_path):
    old = os.umask(0)
    try:
        directory = open_directory(tmp_path / "deep" / "audit")
        directory.create_next(b"").close()
    finally:
        os.umask(old)
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(directory.newest.stat().st_mode) == 0o600
    directory.close()
    directory.close()


def test_files_are_numbered_and_gone_on_with(opened):
    assert opened.number == 0
    file = opened.create_next(b"one\n")
    assert file.write(b"two\n", 4) == 4
    file.sync()
    file.close()
    opened.create_next(b"first\n").close()
    opened.close()
    again = open_directory(opened.path)
    assert (again.number, again.newest.name) == (2, "00000002.jsonl")
    file = again.open_newest()
    file.write(b"more\n", 6)
    file.truncate(9)
    file.close()
    again.close()
    assert (opened.path / "00000001.jsonl").read_bytes() == b"one\ntwo\n"
    assert (opened.path / "00000002.jsonl").read_bytes() == b"first\nmor"
    assert sorted(os.listdir(opened.path)) == ["00000001.jsonl", "00000002.jsonl"]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.unlink(), "removed or replaced"),
        (lambda path: path.rename(path.with_name("moved")), "removed or replaced"),
        (lambda path: path.parent.rename(path.parent.with_name("moved")), "removed or replaced"),
        (
            lambda path: (
                path.with_name("new").write_bytes(path.read_bytes()),
                path.with_name("new").rename(path),
            ),
            "replaced",
        ),
        (lambda path: os.truncate(path, 3), "was cut"),
    ],
)
def test_a_file_that_is_taken_away_while_it_is_written_is_noticed(opened, harm, message):
    file = opened.create_next(b"one\n")
    file.write(b"two\n", 4)
    file.sync()
    harm(opened.newest)
    with pytest.raises(OSError, match=message):
        file.sync()
    with pytest.raises(OSError, match=message):
        file.write(b"three\n", 8)
    file.close()


def test_what_we_cut_back_ourselves_is_no_harm(opened):
    file = opened.create_next(b"one\n")
    file.write(b"tw", 4)
    file.truncate(4)
    file.sync()
    file.close()


def test_a_second_writer_is_refused(opened):
    with pytest.raises(StateError, match="another process writes"):
        open_directory(opened.path)
    opened.close()
    open_directory(opened.path).close()


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_directory_that_others_may_write_to_is_refused(tmp_path, mode):
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit").chmod(mode)
    with pytest.raises(StateError, match="may be written by others"):
        open_directory(tmp_path / "audit")


def test_a_file_that_others_may_write_to_is_refused(opened):
    opened.create_next(b"").close()
    opened.newest.chmod(0o666)
    with pytest.raises(StateError, match="may be written by others"):
        opened.open_newest()


def test_a_link_or_a_pipe_in_a_files_place_is_refused(opened, tmp_path):
    opened.create_next(b"").close()
    opened.newest.unlink()
    opened.newest.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        opened.open_newest()
    opened.newest.unlink()
    os.mkfifo(opened.newest, 0o600)
    with pytest.raises(StateError, match="no regular file"):
        opened.open_newest()


def test_a_file_in_the_directorys_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot be made"):
        open_directory(tmp_path / "file" / "audit")
    with pytest.raises(StateError, match="cannot be made"):
        open_directory(tmp_path / "file")


def test_a_hole_between_the_files_is_found_at_the_start(opened):
    for _ in range(3):
        opened.create_next(b"x\n").close()
    (opened.path / "00000002.jsonl").unlink()
    opened.close()
    with pytest.raises(StateError, match="is missing between"):
        open_directory(opened.path)


def test_old_files_may_have_been_taken_away(opened):
    for _ in range(3):
        opened.create_next(b"x\n").close()
    (opened.path / "00000001.jsonl").unlink()
    opened.close()
    again = open_directory(opened.path)
    assert again.number == 3
    again.close()


def test_a_next_file_never_replaces_one(opened):
    (opened.path / "00000001.jsonl").write_bytes(b"somebody's\n")
    with pytest.raises(FileExistsError):
        opened.create_next(b"mine\n")
    assert (opened.path / "00000001.jsonl").read_bytes() == b"somebody's\n"
    assert os.listdir(opened.path) == ["00000001.jsonl"] and opened.number == 0


def test_a_next_file_whose_name_does_not_reach_the_disk_is_taken_back(opened, monkeypatch):
    def fsync(fd: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(directory_module.os, "fsync", fsync)
    with pytest.raises(OSError, match="broken"):
        opened.create_next(b"x\n")
    assert os.listdir(opened.path) == [] and opened.number == 0
    unlink = os.unlink
    monkeypatch.setattr(
        directory_module.os,
        "unlink",
        lambda path, **more: fsync(0) if ".jsonl" in str(path) else unlink(path, **more),
    )
    with pytest.raises(StateError, match="neither kept nor removed"):
        opened.create_next(b"x\n")


def test_what_a_crash_left_of_a_next_file_is_cleared_away(opened):
    (opened.path / ".next").write_bytes(b"half")
    opened.close()
    again = open_directory(opened.path)
    assert os.listdir(again.path) == []
    again.close()


def test_the_reserve_takes_room_and_gives_it_back(opened):
    opened.plan_reserve()
    opened.make_reserve()
    reserve = opened.path / "reserve"
    status = reserve.stat()
    assert status.st_size == directory_module.RESERVE_BYTES
    assert status.st_blocks * 512 >= directory_module.RESERVE_BYTES
    opened.make_reserve()
    opened.free_reserve()
    opened.free_reserve()
    assert not reserve.exists()
    opened.make_reserve()
    opened.close()
    assert not reserve.exists(), "a log at rest holds none"


@pytest.mark.parametrize(
    ("free", "left", "planned"),
    [
        (80 << 20, 0, 10 << 20),
        (1 << 40, 0, 16 << 20),
        (1 << 19, 0, 65536),
        (1 << 18, 0, 0),
        (0, 1 << 20, 1 << 20),
    ],
)
def test_the_reserve_is_an_eighth_of_the_room(opened, monkeypatch, free, left, planned):
    if left:
        (opened.path / "reserve").write_bytes(bytes(left))

    class Room:
        f_bavail = free // 512
        f_frsize = 512

    monkeypatch.setattr(directory_module.os, "fstatvfs", lambda fd: Room)
    opened.plan_reserve()
    opened.make_reserve()
    found = (opened.path / "reserve").stat().st_size if (opened.path / "reserve").exists() else 0
    assert found == planned


def test_where_there_is_no_room_no_reserve_stays(opened, monkeypatch):
    def fallocate(fd: int, offset: int, size: int) -> None:
        os.ftruncate(fd, size)
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(directory_module.os, "posix_fallocate", fallocate)
    opened.plan_reserve()
    with pytest.raises(OSError, match="full"):
        opened.make_reserve()
    assert os.listdir(opened.path) == []


def test_a_file_system_without_reserves_does_without(opened, monkeypatch, caplog):
    def fallocate(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not here")

    monkeypatch.setattr(directory_module.os, "posix_fallocate", fallocate)
    opened.plan_reserve()
    opened.make_reserve()
    opened.make_reserve()
    assert os.listdir(opened.path) == [] and caplog.text.count("reserve") == 1


def test_a_directory_that_is_gone_cannot_be_synced(tmp_path):
    sync_directory(tmp_path)
    with pytest.raises(OSError, match="No such file"):
        sync_directory(tmp_path / "gone")
