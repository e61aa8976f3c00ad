from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar import journal as journal_module
from sidecar.errors import StateError, UnavailableError
from sidecar.journal import MAX_ENTRY_BYTES, Journal, open_journal
from tests.fakes.loops import both_loops, run_on

ENTRIES = [b"one", b"two" * 20, b"\0" * 30, b"four"]


def read(path: Path) -> list[bytes]:
    """What a new start finds, and the file closed again."""
    found: list[bytes] = []

    async def story() -> None:
        await open_journal(path, found.append).close()

    asyncio.run(story())
    return found


def write(path: Path, *entries: bytes) -> None:
    async def story() -> None:
        journal = open_journal(path, lambda entry: None)
        await asyncio.gather(*(journal.append(entry) for entry in entries))
        await journal.close()

    asyncio.run(story())


def recovered(path: Path) -> int:
    async def story() -> int:
        journal = open_journal(path, lambda entry: None)
        await journal.close()
        return journal.recovered_bytes

    return asyncio.run(story())


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def whole(path) -> bytes:
    write(path, *ENTRIES)
    return path.read_bytes()


@both_loops
def test_what_is_appended_is_there_after_a_restart(factory, path):
    async def story() -> None:
        journal = open_journal(path, lambda entry: None)
        assert journal.entries == 0
        await asyncio.gather(*(journal.append(entry) for entry in ENTRIES))
        assert journal.entries == 4 and journal.trouble is None
        await journal.close()
        await journal.close()

    run_on(factory, story())
    assert read(path) == ENTRIES
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["journal"]


def test_entries_are_counted_once_they_are_on_disk(path, monkeypatch):
    go = threading.Event()
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (go.wait(10), real(fd))[1])

    async def story() -> None:
        journal = open_journal(path, lambda entry: None)
        future = journal.append(b"x")
        await asyncio.sleep(0)
        assert journal.entries == 0 and not future.done()
        go.set()
        await future
        assert journal.entries == 1
        await journal.close()

    asyncio.run(story())


def test_one_sync_serves_all_that_wait(path, monkeypatch):
    begun, go, syncs = threading.Event(), threading.Event(), []
    real = os.fdatasync

    def slow(fd: int) -> None:
        syncs.append(threading.current_thread())
        begun.set()
        go.wait(10)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", slow)

    async def story() -> None:
        journal = open_journal(path, lambda entry: None)
        first = journal.append(b"first")
        await asyncio.get_running_loop().run_in_executor(None, begun.wait, 10)
        rest = [journal.append(b"%d" % number) for number in range(100)]
        go.set()
        await asyncio.gather(first, *rest)
        await journal.close()

    asyncio.run(story())
    assert len(syncs) == 2 and threading.main_thread() not in syncs
    assert read(path) == [b"first", *(b"%d" % number for number in range(100))]


def test_a_file_torn_at_any_byte_loses_whole_entries_from_its_end_only(whole, path):
    header = len(whole) - sum(len(entry) + 24 for entry in ENTRIES)
    for length in range(header, len(whole)):
        path.write_bytes(whole[:length])
        found = read(path)
        assert found == ENTRIES[: len(found)] and len(found) < len(ENTRIES)
        kept = header + sum(len(entry) + 24 for entry in found)
        assert kept <= length and path.stat().st_size == kept


@pytest.mark.parametrize("length", [0, 1, 16, 59])
def test_a_torn_header_is_damage_because_it_is_never_written_in_place(length, whole, path):
    path.write_bytes(whole[:length])
    with pytest.raises(StateError, match="no journal"):
        read(path)


def test_what_was_cut_back_is_reported_and_gone(whole, path):
    path.write_bytes(whole[:-5])
    assert recovered(path) == len(b"four") + 24 - 5
    assert recovered(path) == 0
    write(path, b"five")
    assert read(path) == [*ENTRIES[:3], b"five"]


@pytest.mark.parametrize("zeros", [1, 24, 4096])
def test_zeros_where_the_disk_never_got_the_bytes_are_a_torn_end(zeros, whole, path):
    path.write_bytes(whole + bytes(zeros))
    assert read(path) == ENTRIES
    path.write_bytes(whole[:-20] + bytes(20 + zeros))
    assert read(path) == ENTRIES[:3]


def test_zeros_with_something_behind_them_are_damage(whole, path):
    path.write_bytes(whole + bytes(100) + b"x")
    with pytest.raises(StateError, match="damaged"):
        read(path)
    path.write_bytes(whole[:-20] + bytes(100) + b"x")
    with pytest.raises(StateError, match="damaged"):
        read(path)


def test_every_flipped_byte_is_found(whole, path):
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        with pytest.raises(StateError):
            read(path)
        assert path.read_bytes() == damaged  # left as it was, for whoever looks into it


def entry_bounds(whole: bytes) -> list[tuple[int, int]]:
    at = len(whole) - sum(len(entry) + 24 for entry in ENTRIES)
    bounds = []
    for entry in ENTRIES:
        bounds.append((at, at + len(entry) + 24))
        at += len(entry) + 24
    return bounds


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_entry_taken_out_of_the_middle_is_found(number, whole, path):
    start, stop = entry_bounds(whole)[number]
    path.write_bytes(whole[:start] + whole[stop:])
    with pytest.raises(StateError, match=f"after {number} entries"):
        read(path)


def test_entries_that_changed_places_or_stand_twice_are_found(whole, path):
    (first, second), last = entry_bounds(whole)[:2], entry_bounds(whole)[3]
    swapped = whole[: first[0]] + whole[slice(*second)] + whole[slice(*first)] + whole[second[1] :]
    for damaged in (swapped, whole + whole[slice(*last)]):
        path.write_bytes(damaged)
        with pytest.raises(StateError, match="damaged"):
            read(path)


def test_entries_of_another_journal_do_not_fit(whole, path, tmp_path):
    write(tmp_path / "other", *ENTRIES)
    other = (tmp_path / "other").read_bytes()
    start, _ = entry_bounds(whole)[0]
    path.write_bytes(whole[:start] + other[start:])
    with pytest.raises(StateError, match="damaged"):
        read(path)


@given(st.binary(max_size=200))
def test_any_bytes_give_entries_or_an_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "journal"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(StateError):
        read(path)


def test_another_format_is_refused(whole, path):
    path.write_bytes(whole[:16] + (2).to_bytes(4, "big") + whole[20:])
    with pytest.raises(StateError, match="format 2; this version reads 1"):
        read(path)


def test_two_writers_in_one_process_cannot_be(path):
    async def story() -> None:
        journal = open_journal(path, lambda entry: None)
        with pytest.raises(StateError, match="another process has"):
            open_journal(path, lambda entry: None)
        await journal.close()
        await open_journal(path, lambda entry: None).close()

    asyncio.run(story())


def test_two_processes_cannot_both_write(path):
    script = (
        "import sys, pathlib\n"
        "from sidecar.journal import open_journal\n"
        "from sidecar.errors import StateError\n"
        "try: open_journal(pathlib.Path(sys.argv[1]), print)\n"
        "except StateError as exc: print(exc)\n"
    )

    async def story() -> str:
        journal = open_journal(path, lambda entry: None)
        done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
        await journal.close()
        return done.stdout

    assert "another process has the journal" in asyncio.run(story())


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_journal_that_others_may_write_is_refused(mode, whole, path):
    path.chmod(mode)
    with pytest.raises(StateError, match="only its owner"):
        read(path)


def test_what_is_no_file_is_refused(path):
    path.symlink_to(path.parent / "elsewhere")
    with pytest.raises(UnavailableError):
        read(path)
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(StateError, match="no regular file"):
        read(path)


def test_a_missing_directory_is_said(tmp_path):
    with pytest.raises(UnavailableError, match="No such file"):
        read(tmp_path / "none" / "journal")


def test_an_error_while_reading_comes_through_and_frees_the_file(whole, path):
    def fail(entry: bytes) -> None:
        raise StateError("odd entry")

    with pytest.raises(StateError, match="odd entry"):
        open_journal(path, fail)
    assert read(path) == ENTRIES


@pytest.mark.parametrize("entry", [b"", b"x" * (MAX_ENTRY_BYTES + 1)])
def test_empty_and_huge_entries_are_refused(entry, path):
    async def story() -> None:
        journal = open_journal(path, lambda entry: None)
        with pytest.raises(ValueError, match="1 to 65536 bytes"):
            journal.append(entry)
        await journal.append(b"x" * MAX_ENTRY_BYTES)
        await journal.close()

    asyncio.run(story())
    assert read(path) == [b"x" * MAX_ENTRY_BYTES]


def failing(monkeypatch: pytest.MonkeyPatch, name: str, code: int = errno.EIO) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, name, fail)


@pytest.mark.parametrize(("name", "code"), [("fdatasync", errno.EIO), ("pwrite", errno.ENOSPC)])
@both_loops
def test_a_disk_that_fails_poisons_the_journal_until_it_is_opened_anew(
    factory, name, code, path, monkeypatch
):
    async def story() -> None:
        journal = open_journal(path, lambda entry: None)
        await journal.append(b"good")
        with monkeypatch.context() as planted:
            failing(planted, name, code)
            outcomes = await asyncio.gather(
                *(journal.append(b"bad%d" % number) for number in range(5)), return_exceptions=True
            )
        assert [type(each) for each in outcomes] == [UnavailableError] * 5
        with pytest.raises(UnavailableError, match="cannot be written"):
            await journal.append(b"later")  # the disk is well again, but nobody knows what it holds
        assert journal.entries == 1 and journal.trouble is not None
        await journal.close()

    run_on(factory, story())
    assert read(path) == [b"good"]


def test_what_waits_while_the_disk_fails_fails_too(path, monkeypatch):
    begun, go = threading.Event(), threading.Event()

    def fail(fd: int) -> None:
        begun.set()
        go.wait(10)
        raise OSError(errno.EIO, "gone")

    async def story() -> None:
        journal = open_journal(path, lambda entry: None)
        with monkeypatch.context() as planted:
            planted.setattr(os, "fdatasync", fail)
            first = journal.append(b"first")
            await asyncio.get_running_loop().run_in_executor(None, begun.wait, 10)
            second = journal.append(b"second")
            go.set()
            outcomes = await asyncio.gather(first, second, return_exceptions=True)
        assert [type(each) for each in outcomes] == [UnavailableError] * 2
        await journal.close()

    asyncio.run(story())
    assert read(path) == []


def test_a_crash_in_the_middle_of_a_batch_leaves_whole_entries(path, monkeypatch):
    """The process dies after half a write: what the next start finds was whole."""
    real = os.pwrite

    def half(fd: int, data: memoryview, offset: int) -> int:
        real(fd, bytes(data)[: len(data) // 2 + 3], offset)
        raise OSError(errno.EIO, "power")

    async def story() -> None:
        journal = open_journal(path, lambda entry: None)
        await journal.append(b"good")
        with monkeypatch.context() as planted:
            planted.setattr(os, "pwrite", half)
            failing(planted, "ftruncate")  # nobody is left to tidy up
            batch = [journal.append(b"entry %d" % number) for number in range(6)]
            await asyncio.gather(*batch, return_exceptions=True)
        await journal.close()

    asyncio.run(story())
    left = path.stat().st_size
    found = read(path)
    assert found[0] == b"good" and found[1:] == [b"entry %d" % number for number in range(len(found) - 1)]
    assert len(found) < 7 and path.stat().st_size < left


def test_short_writes_are_carried_on(path, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, bytes(data)[:7], offset))
    write(path, *ENTRIES)
    assert read(path) == ENTRIES


def test_a_closed_journal_takes_nothing(path):
    async def story() -> None:
        journal = open_journal(path, lambda entry: None)
        await journal.close()
        with pytest.raises(StateError, match="is closed"):
            await journal.append(b"late")

    asyncio.run(story())
    assert read(path) == []


def test_closing_writes_what_waits(path):
    async def story() -> None:
        journal = open_journal(path, lambda entry: None)
        futures = [journal.append(b"%d" % number) for number in range(50)]
        await journal.close()
        await asyncio.gather(*futures)

    asyncio.run(story())
    assert len(read(path)) == 50


def test_a_cancelled_wait_takes_nothing_back(path):
    async def story() -> None:
        journal = open_journal(path, lambda entry: None)
        journal.append(b"kept").cancel()
        await journal.append(b"after")
        await journal.close()

    asyncio.run(story())
    assert read(path) == [b"kept", b"after"]


def test_too_many_that_wait_are_refused_without_poison(path, monkeypatch):
    monkeypatch.setattr(journal_module, "MAX_WAITING", 2)
    go = threading.Event()
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (go.wait(10), real(fd))[1])

    async def story() -> None:
        journal = open_journal(path, lambda entry: None)
        taken = [journal.append(b"x") for _ in range(3)]
        refused = [future for future in taken if future.done()]
        more = [journal.append(b"y") for _ in range(10)]
        refused += [future for future in more if future.done()]
        assert len(refused) >= 8  # the thread holds one batch of at most 2, and 2 more may wait
        for future in refused:
            with pytest.raises(UnavailableError, match="2 entries wait"):
                await future
        go.set()
        await asyncio.gather(*(future for future in [*taken, *more] if future not in refused))
        await journal.append(b"z")
        await journal.close()

    asyncio.run(story())


def test_a_full_journal_refuses_but_keeps_a_reserve_for_what_is_urgent(path, monkeypatch):
    monkeypatch.setattr(journal_module, "MAX_FILE_BYTES", 400)
    monkeypatch.setattr(journal_module, "RESERVE_BYTES", 200)

    async def story() -> None:
        journal = open_journal(path, lambda entry: None)
        await journal.append(b"x" * 100)
        with pytest.raises(UnavailableError, match="full at 200 bytes"):
            await journal.append(b"use")
        await journal.append(b"revocation", urgent=True)
        with pytest.raises(UnavailableError, match="full at 400 bytes"):
            await journal.append(b"y" * 200, urgent=True)
        assert journal.trouble is None
        await journal.close()

    asyncio.run(story())
    assert read(path) == [b"x" * 100, b"revocation"]
    monkeypatch.setattr(journal_module, "MAX_FILE_BYTES", 100)
    with pytest.raises(StateError, match="more than 100 bytes"):
        read(path)


def test_a_rewrite_replaces_the_content_and_goes_on_counting(whole, path):
    async def story() -> None:
        journal = open_journal(path, lambda entry: None)
        journal.rewrite([b"sum"])
        assert (journal.entries, journal.file_entries) == (5, 1)
        await journal.append(b"next")
        assert journal.entries == 6
        with pytest.raises(StateError, match="another process"):
            open_journal(path, lambda entry: None)  # the lock went along
        with pytest.raises(RuntimeError, match="before it is appended to"):
            journal.rewrite([])
        await journal.close()
        again = open_journal(path, lambda entry: None)
        assert (again.entries, again.file_entries) == (6, 2)
        await again.close()

    asyncio.run(story())
    assert read(path) == [b"sum", b"next"]
    assert [each.name for each in path.parent.iterdir()] == ["journal"]


@pytest.mark.parametrize("name", ["rename", "fsync", "pwrite"])
def test_a_rewrite_that_fails_leaves_everything_as_it_was(name, whole, path, monkeypatch):
    async def story() -> None:
        journal = open_journal(path, lambda entry: None)
        with monkeypatch.context() as planted:
            failing(planted, name)
            with pytest.raises(UnavailableError, match="cannot be rewritten"):
                journal.rewrite([b"sum"])
        await journal.append(b"five")
        await journal.close()

    asyncio.run(story())
    assert read(path) == [*ENTRIES, b"five"]
    assert [each.name for each in path.parent.iterdir()] == ["journal"]


def test_a_file_that_was_replaced_while_it_was_opened_is_not_used(whole, path, monkeypatch):
    real = os.fstat

    def swapped(fd: int) -> os.stat_result:
        os.replace(path, path.with_name("old"))
        path.write_bytes(whole)
        monkeypatch.setattr(os, "fstat", real)
        return real(fd)

    monkeypatch.setattr(os, "fstat", swapped)
    with pytest.raises(StateError, match="replaced the journal"):
        read(path)


def test_futures_of_a_loop_that_is_gone_disturb_nobody(path):
    journals: list[Journal] = []

    async def leave() -> None:
        journals.append(open_journal(path, lambda entry: None))
        journals[0].append(b"left behind")

    asyncio.run(leave())

    async def close() -> None:
        await journals[0].close()

    asyncio.run(close())
    assert read(path) == [b"left behind"]


KILLED = """
import asyncio, pathlib, sys
from sidecar.journal import open_journal

async def story():
    journal = open_journal(pathlib.Path(sys.argv[1]), lambda entry: None)
    number = journal.entries
    while True:
        futures = [journal.append(b"%d" % (number + place)) for place in range(7)]
        await asyncio.gather(*futures)
        number += 7
        print(number, flush=True)

asyncio.run(story())
"""


def test_rel_22_what_was_acknowledged_survives_a_kill(path):
    for batches in (1, 5, 20):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process.stdout:
            acknowledged = [int(process.stdout.readline()) for _ in range(batches)][-1]
            process.kill()
            process.wait()
        found = read(path)
        assert len(found) >= acknowledged
        assert found == [b"%d" % number for number in range(len(found))]
        assert recovered(path) == 0
