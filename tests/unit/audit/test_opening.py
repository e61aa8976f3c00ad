from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime

import pytest

from sidecar.audit.chain import show_key
from sidecar.audit.lines import Lines
from sidecar.audit.opening import open_files
from sidecar.errors import StateError
from tests.fakes.audit import WALL_S, call, event
from tests.fakes.clock import FakeClock


class World:
    def __init__(self, tmp_path) -> None:
        self.audit = tmp_path / "audit"
        self.key = tmp_path / "audit.key"
        self.file = self.audit / "00000001.jsonl"
        # Up since 1,000 seconds, by the fake clock.
        self.clock = FakeClock(datetime.fromtimestamp(WALL_S, UTC))

    def open(self):
        return open_files(self.audit, self.key, self.clock)

    def write(self, *entries: object, signed: bool = True, torn: bytes = b"", journal: int = 12) -> bytes:
        """A first run that leaves these records behind."""
        opened = self.open()
        lines = Lines(opened.place, opened.key, lambda: journal)
        data = lines.encode([event("start", **opened.start), *entries])
        if signed:
            data += lines.sign(WALL_S)
        opened.file.write(data + torn, 0)
        opened.file.close()
        opened.directory.close()
        return data


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def close(opened) -> None:
    opened.file.close()
    opened.directory.close()


def test_the_first_start_begins_a_log(world):
    opened = world.open()
    assert (opened.place.seq, opened.place.head, opened.place.offset) == (0, None, 0)
    assert (opened.torn_bytes, opened.journal_entries) == (0, None)
    said = opened.start
    assert list(said) == ["log", "public_key", "pid", "boot", "after", "may_lack_ms"]
    assert said["public_key"] == show_key(opened.key.public) and said["pid"] == os.getpid()
    assert (said["after"], said["may_lack_ms"]) == ("first", 0)
    assert len(opened.place.log) == 32 and said["log"] == opened.place.log
    assert sorted(os.listdir(world.audit)) == ["00000001.jsonl", "reserve"]
    close(opened)


def test_each_log_has_an_id_of_its_own(tmp_path):
    ids = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        opened = World(tmp_path / name).open()
        ids.add(opened.place.log)
        close(opened)
    assert len(ids) == 2


def test_after_a_clean_end_nothing_is_missing(world):
    data = world.write(call(1), event("stop"))
    opened = world.open()
    assert (opened.start["after"], opened.start["may_lack_ms"]) == ("clean", 0)
    assert (opened.place.seq, opened.place.offset, opened.journal_entries) == (4, len(data), 12)
    assert opened.start["log"] == json.loads(data.splitlines()[0])["log"]
    close(opened)


def test_a_killed_process_may_lack_10_ms_and_a_power_cut_100(world):
    world.write(call(1, WALL_S))
    opened = world.open()
    assert (opened.start["after"], opened.start["may_lack_ms"]) == ("crash", 10)
    close(opened)
    world.clock.step_wall(86_400)  # the last line is older than this boot
    opened = world.open()
    assert (opened.start["after"], opened.start["may_lack_ms"]) == ("crash", 100)
    close(opened)


def test_a_torn_line_is_cut_back(world):
    data = world.write(call(1), torn=b'{"v":1,"se')
    opened = world.open()
    assert (opened.torn_bytes, opened.place.offset, opened.start["after"]) == (10, len(data), "crash")
    assert world.file.read_bytes() == data
    close(opened)


def test_a_first_line_that_is_torn_begins_a_log_anew(world):
    opened = world.open()
    opened.file.write(b'{"v":1', 0)
    close(opened)
    opened = world.open()
    assert (opened.torn_bytes, opened.place.seq, opened.start["after"]) == (6, 0, "crash")
    assert world.file.read_bytes() == b""
    close(opened)


@pytest.mark.parametrize("how", ["emptied", "removed"])
def test_a_key_without_its_log_says_that_the_log_is_lost(world, caplog, how):
    close(world.open())
    if how == "removed":
        shutil.rmtree(world.audit)
    opened = world.open()
    assert (opened.torn_bytes, opened.start["after"], opened.journal_entries) == (0, "lost", None)
    assert "the audit log that was here is gone" in caplog.text
    close(opened)


def test_damage_is_told_in_the_start_line(world, caplog):
    data = world.write(signed=True)
    with world.file.open("ab") as file:
        file.write(b"rubbish\n")
    opened = world.open()
    assert "not a JSON object" in opened.start["damage"] and "damaged" in caplog.text
    assert opened.place.offset == len(data) + 8
    close(opened)


def test_without_its_key_a_log_is_not_gone_on_with(world):
    world.write(call(1))
    world.key.unlink()
    with pytest.raises(StateError, match=r"key .* is missing"):
        world.open()
    assert not world.key.exists()
    world.audit.rename(world.audit.with_name("old"))
    world.audit.with_suffix(".pub").unlink()
    close(world.open())


def test_with_another_key_a_log_is_not_gone_on_with(world):
    world.write(call(1))
    world.key.unlink()
    world.key.with_suffix(".pub").unlink()
    other = World(world.audit.parent / "other")
    other.audit.parent.mkdir()
    close(other.open())
    other.key.rename(world.key)
    with pytest.raises(StateError, match="another key"):
        world.open()


def test_what_fails_lets_go_of_the_directory(world):
    world.write(call(1))
    key = world.key.read_bytes()
    world.key.write_bytes(b"broken")
    with pytest.raises(StateError, match="damaged"):
        world.open()
    world.key.write_bytes(key)
    close(world.open())


def test_a_disk_that_fails_is_a_state_error(world, monkeypatch):
    world.write(call(1))
    monkeypatch.setattr(
        "sidecar.audit.opening.read_ending", lambda *args, **more: (_ for _ in ()).throw(OSError(5, "broken"))
    )
    with pytest.raises(StateError, match="broken"):
        world.open()


def test_a_log_without_a_reserve_is_better_than_none(world, monkeypatch, caplog):
    def fail(self: object) -> None:
        raise OSError(28, "full")

    monkeypatch.setattr("sidecar.audit.directory.LogDirectory.make_reserve", fail)
    close(world.open())
    assert "no reserve" in caplog.text
