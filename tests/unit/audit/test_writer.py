from __future__ import annotations

import errno
import json

import pytest

from sidecar.audit.batch import Batch
from sidecar.audit.verify import verify_log
from sidecar.audit.writer import CHECKPOINT_RECORDS, CHECKPOINT_S, RETRY_S, SYNC_AFTER_S
from tests.fakes.audit import FakeDisk, FakeThread, call, event, fail, start
from tests.fakes.clock import FakeClock


class World(FakeThread):
    """A writer on a disk, with what it was given and what it said; checks each promise as it is made."""

    def __init__(self, disk: FakeDisk | None = None, **options: object) -> None:
        super().__init__(FakeClock(), disk, **options)
        self.given = 0
        self.ticket = 0
        self.expects: dict[int, int] = {}
        self.troubles: list[str | None] = []

    def give(
        self, calls: int = 0, *, wait: bool = False, first: bool = False, name: str | None = None
    ) -> None:
        entries: list[object] = [start(self.key)] if first else []
        entries += [event(name)] if name else []
        entries += [call(self.given + number) for number in range(calls)]
        self.given += calls
        batch = Batch(entries, self.clock.monotonic_s(), size=100 * len(entries))
        if wait:
            self.ticket += 1
            batch.tickets.append(self.ticket)
            self.expects[self.ticket] = self.given
        self.put(batch)

    def settled(self, tickets: list[int], on_disk: bool) -> None:
        super().settled(tickets, on_disk)
        for ticket in tickets:
            if on_disk:
                assert len(self.calls(synced=True)) >= self.expects[ticket], (
                    "told that it is on disk, and it is not"
                )

    def troubled(self, trouble: str) -> None:
        self.troubles.append(trouble)

    def recovered(self) -> None:
        self.troubles.append(None)
        assert len(self.calls(synced=True)) == self.given

    def calls(self, *, synced: bool = False) -> list[str]:
        records = [
            json.loads(line)
            for _, lines in self.disk.named(synced=synced)
            for line in lines
            if line.endswith(b"\n")
        ]
        return [record["id"] for record in records if record["event"] == "call"]

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.disk.lines()]

    def verify(self, *, synced: bool = False):
        return verify_log(self.disk.named(synced=synced), self.key.public)

    def live(self, seconds: float) -> None:
        """Lets time go on in small steps."""
        for _ in range(round(seconds / 0.01)):
            self.clock.advance(0.01)
            self.run()

    def all_are_there(self) -> None:
        assert self.calls() == [f"call-{number}" for number in range(self.given)]


def begin(disk: FakeDisk | None = None, **options: object) -> World:
    world = World(disk, **options)
    world.give(first=True, wait=True)
    world.run()
    assert world.settled_tickets == [(1, True)]
    return world


# When what reaches the kernel and the disk


def test_a_start_is_followed_by_a_checkpoint_and_both_are_on_disk():
    world = begin()
    assert world.events() == ["start", "checkpoint"]
    assert world.verify(synced=True).signed_seq == 2


def test_records_reach_the_kernel_at_once_and_the_disk_within_100_ms():
    world = begin()
    world.give(3)
    world.run()
    world.all_are_there()
    assert world.calls(synced=True) == []
    assert world.writer.due_in_s() == pytest.approx(SYNC_AFTER_S)
    world.clock.advance(SYNC_AFTER_S - 0.001)
    world.run()
    assert world.calls(synced=True) == []
    world.clock.advance(0.002)
    world.run()
    assert len(world.calls(synced=True)) == 3
    assert world.writer.tail.synced_records == 4


def test_a_slow_disk_keeps_no_record_from_the_kernel():
    world = begin()
    world.give(1, wait=True)
    world.run_writer()
    assert len(world.jobs) == 1
    world.give(5)
    world.run_writer()
    assert len(world.calls()) == 6 and world.calls(synced=True) == []


def test_one_sync_serves_all_that_wait():
    world = begin()
    world.give(1, wait=True)
    world.run_writer()
    for _ in range(20):
        world.give(1, wait=True)
        world.run_writer()
    syncs = world.disk.operations.count("sync")
    world.run()
    assert world.disk.operations.count("sync") == syncs + 2
    assert [on_disk for _, on_disk in world.settled_tickets] == [True] * 22


def test_who_waits_for_nothing_new_is_told_at_once():
    world = begin()
    world.give(wait=True)
    world.run()
    assert world.settled_tickets[-1] == (2, True)
    assert world.disk.operations.count("sync") == 1


def test_who_waits_for_records_written_before_is_told_after_a_sync():
    world = begin()
    world.give(2)
    world.run_writer()
    world.give(wait=True)
    world.run_writer()
    assert len(world.settled_tickets) == 1
    world.run()
    assert world.settled_tickets[-1] == (2, True)


# Checkpoints


def test_a_checkpoint_comes_after_256_records():
    world = begin()
    for _ in range(3):
        world.give(CHECKPOINT_RECORDS - 1)
    world.run()
    assert world.events().count("checkpoint") == 3
    assert world.verify().lines == 2 + 3 * (CHECKPOINT_RECORDS - 1) + 2


def test_one_batch_may_need_several_checkpoints():
    world = begin()
    world.give(3 * CHECKPOINT_RECORDS)
    world.run()
    assert world.events().count("checkpoint") == 4


def test_a_checkpoint_comes_a_second_after_the_first_unsigned_record_and_only_then():
    world = begin()
    world.live(5)
    assert world.events() == ["start", "checkpoint"]
    world.give(1)
    world.live(CHECKPOINT_S - 0.02)
    assert world.events().count("checkpoint") == 1
    world.live(0.1)
    assert world.events() == ["start", "checkpoint", "call", "checkpoint"]
    assert world.verify(synced=True).signed_seq == 4
    assert world.writer.due_in_s() is None


@pytest.mark.parametrize("name", ["grant", "gap", "stop"])
def test_what_is_worth_pinning_is_pinned_at_once(name):
    world = begin()
    world.give(2, name=name)
    world.run()
    assert world.events() == ["start", "checkpoint", name, "call", "call", "checkpoint"]


def test_a_checkpoint_states_the_journals_entries():
    world = begin(journal_entries=lambda: 17)
    assert json.loads(world.disk.lines()[1])["entries"] == 17


def test_finishing_signs_syncs_and_closes():
    world = begin()
    world.give(3)
    world.run()
    assert world.writer.finish() is True
    assert world.verify(synced=True).signed_seq == 6
    assert world.disk.files[0].is_closed


# The next file


def test_a_file_that_is_full_ends_in_a_checkpoint_which_the_next_one_repeats():
    world = begin(rotate_bytes=5000)
    for _ in range(60):
        world.give(1, wait=True)
        world.run()
    assert len(world.disk.files) > 5
    report = world.verify(synced=True)
    assert report.files == len(world.disk.files)
    assert all(file.is_closed for file in world.disk.files[:-1])
    assert all(len(file.data) < 7500 for file in world.disk.files)
    assert [on_disk for _, on_disk in world.settled_tickets] == [True] * 61


def test_a_next_file_that_cannot_be_made_keeps_nobody_waiting():
    disk = FakeDisk()
    disk.fault = lambda operation, number: _raise(fail(errno.EMFILE)) if operation == "create" else None
    world = begin(disk, rotate_bytes=2000)
    for _ in range(20):
        world.give(1, wait=True)
        world.run()
    assert len(disk.files) == 1 and world.troubles == []
    assert disk.operations.count("create") == 1, "not tried at every record"
    disk.fault = lambda operation, number: None
    world.give(1)
    world.live(1.2)
    assert len(disk.files) == 2
    world.all_are_there()
    assert world.verify().files == 2


# Trouble


def _raise(error: OSError) -> None:
    raise error


def story(world: World) -> None:
    """A little of everything."""
    world.give(5, first=True, wait=True)
    world.run()
    for _ in range(4):
        world.give(3)
        world.give(2, wait=True)
        world.run()
        world.live(0.06)
    world.give(1, name="grant", wait=True)
    world.run()
    world.live(1.1)


def operations_of_story(**options: object) -> list[str]:
    world = World(**options)
    story(world)
    assert world.troubles == []
    return world.disk.operations


OPERATIONS = operations_of_story(rotate_bytes=9000)
assert {"write", "sync", "create"} <= set(OPERATIONS)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("lasting", [1, 4, 400])
@pytest.mark.parametrize("place", range(len(OPERATIONS)))
def test_whatever_fails_wherever_nothing_is_lost_and_nobody_is_lied_to(place, lasting, error):
    disk = FakeDisk(reserve=1 << 16)
    broken = [True]

    def fault(operation: str, number: int) -> int | None:
        if broken[0] and place <= number < place + lasting:
            raise fail(error)
        return None

    disk.fault = fault
    world = World(disk, rotate_bytes=9000)
    story(world)
    broken[0] = False
    world.live(2 * RETRY_S)
    world.give(1, wait=True)
    world.run()
    world.live(1.2)
    assert world.writer.trouble is None
    assert sorted(ticket for ticket, _ in world.settled_tickets) == list(range(1, world.ticket + 1))
    world.all_are_there()
    assert len(world.calls(synced=True)) == world.given
    assert world.verify().signed_seq == world.verify(synced=True).seq
    if OPERATIONS[place] in ("write", "sync"):
        assert world.troubles[0] is not None and world.troubles[-1] is None


@pytest.mark.parametrize("kept", [0, 1, 7, 500])
@pytest.mark.parametrize("place", [number for number, name in enumerate(OPERATIONS) if name == "write"])
def test_a_write_that_fails_half_way_leaves_whole_lines(place, kept):
    disk = FakeDisk()

    def fault(operation: str, number: int) -> int | None:
        if number == place:
            return kept
        if number == place + 1 and operation == "write":
            raise fail(errno.EIO)
        return None

    disk.fault = fault
    world = World(disk, rotate_bytes=9000)
    torn = []
    troubled = world.troubled
    world.troubled = lambda trouble: (troubled(trouble), torn.append(bytes(disk.files[-1].data)))  # type: ignore[method-assign]
    story(world)
    world.live(2 * RETRY_S)
    assert all(data.endswith(b"\n") or not data for data in torn)
    world.all_are_there()
    world.verify()


@pytest.mark.parametrize("step", [1, 2, 3, 100])
def test_short_writes_are_gone_on_with(step):
    disk = FakeDisk()
    disk.fault = lambda operation, number: step if operation == "write" else None
    world = World(disk)
    story(world)
    assert world.troubles == []
    world.all_are_there()
    world.verify()


def test_a_write_that_takes_nothing_is_an_error_and_no_endless_loop():
    world = begin()
    world.disk.fault = lambda operation, number: 0 if operation == "write" else None
    world.give(1, wait=True)
    world.run()
    assert world.settled_tickets[-1] == (2, False)
    assert world.writer.trouble is not None


def test_a_torn_line_that_cannot_be_cut_back_is_written_over():
    disk = FakeDisk()
    world = begin(disk)
    seen = []

    def fault(operation: str, number: int) -> int | None:
        seen.append(operation)
        if operation == "write" and len(seen) == 1:
            return 10
        if len(seen) < 5:
            raise fail(errno.EROFS)
        return None

    disk.fault = fault
    world.give(2, wait=True)
    world.run()
    assert not disk.files[0].data.endswith(b"\n")
    world.live(5)
    world.all_are_there()
    world.verify()


def test_a_sync_that_failed_means_that_everything_since_the_last_one_is_written_again():
    world = begin()
    lost = len(world.disk.files[0].data)
    world.give(3, wait=True)
    world.run_writer()
    world.disk.fault = lambda operation, number: _raise(fail(errno.EIO)) if operation == "sync" else None
    world.run_sync()
    assert not any(world.disk.files[0].data[lost:]), "the kernel may drop what it could not write"
    world.disk.fault = lambda operation, number: None
    world.live(1.1)
    assert world.settled_tickets[-1] == (2, False)
    world.all_are_there()
    assert world.verify(synced=True).seq == world.verify().seq


def test_while_there_is_trouble_records_are_kept_and_nobody_is_told_yes():
    world = begin()
    world.disk.fault = lambda operation, number: _raise(fail(errno.EIO))
    world.give(1, wait=True)
    world.run()
    for _ in range(10):
        world.give(7, wait=True)
        world.run()
    assert [on_disk for _, on_disk in world.settled_tickets[1:]] == [False] * 11
    assert world.writer.tail.records - world.writer.tail.written_records == 71
    assert world.troubles == ["Input/output error"]
    world.disk.fault = lambda operation, number: None
    world.live(1.1)
    world.all_are_there()
    assert world.troubles[-1] is None


def test_a_disk_that_stays_broken_is_tried_once_a_second():
    world = begin()
    world.disk.fault = lambda operation, number: _raise(fail(errno.EROFS))
    world.give(1)
    world.run()
    before = len(world.disk.operations)
    world.live(10)
    assert 9 <= len(world.disk.operations) - before <= 22


def test_a_full_disk_gets_the_reserve_for_what_was_accepted_and_a_last_checkpoint():
    disk = FakeDisk(reserve=1 << 16)
    world = begin(disk)
    disk.filler = disk.room() - 100
    world.give(10, wait=True)
    world.run()
    assert disk.reserved == 0
    world.all_are_there()
    report = world.verify(synced=True)
    assert report.signed_seq == report.seq == 13
    assert world.troubles == ["No space left on device"] and world.writer.trouble is not None
    # What was let through before is written too, as long as there is room.
    world.give(4, wait=True)
    world.run()
    world.live(3)
    world.all_are_there()
    assert world.settled_tickets[-1] == (3, False)
    assert world.writer.trouble is not None, "there is no room for a reserve"
    lines = len(disk.lines())
    world.live(10)
    assert len(disk.lines()) == lines, "waiting costs no room"
    disk.filler = 0
    world.live(1.1)
    assert world.writer.trouble is None and disk.reserved == 1 << 16
    world.give(1, wait=True)
    world.run()
    assert world.settled_tickets[-1] == (4, True)
    world.verify()


def test_a_disk_that_is_full_to_the_last_byte_loses_nothing_either():
    disk = FakeDisk(reserve=600)
    world = begin(disk)
    disk.filler = disk.room()
    world.give(10, wait=True)
    world.run()
    world.live(3)
    assert all(line.endswith(b"\n") for line in disk.lines())
    world.verify()
    disk.filler = 0
    world.live(1.1)
    world.all_are_there()
    assert world.troubles[-1] is None


def test_a_disk_that_is_full_while_a_sync_runs_is_rescued_after_it():
    disk = FakeDisk(reserve=1 << 16)
    world = begin(disk)
    world.give(1, wait=True)
    world.run_writer()
    disk.filler = disk.room()
    world.give(5)
    world.run_writer()
    assert len(world.calls()) == 1
    world.run()
    assert len(world.calls(synced=True)) == 6


def test_finishing_in_trouble_tries_once_more_and_tells():
    world = begin()
    world.disk.fault = lambda operation, number: _raise(fail(errno.EIO))
    world.give(3, wait=True)
    world.run()
    assert world.writer.finish() is False
    other = begin()
    other.disk.fault = lambda operation, number: _raise(fail(errno.EIO))
    other.give(3)
    other.run()
    other.disk.fault = lambda operation, number: None
    assert other.writer.finish() is True
    other.all_are_there()


def test_it_says_since_when_it_is_blocked():
    world = begin()
    seen = []
    world.disk.fault = lambda operation, number: seen.append((operation, world.writer.blocked_since_s))
    world.give(1, wait=True)
    world.run_writer()
    assert seen == [("write", world.clock.monotonic_s())]
    assert world.writer.blocked_since_s is None


def test_copies_get_each_line_once_and_only_what_the_file_has():
    class Copy:
        def __init__(self) -> None:
            self.lines: list[bytes] = []

        def take(self, lines: bytes) -> None:
            self.lines += lines.splitlines(keepends=True)

    copy = Copy()
    disk = FakeDisk()
    world = begin(disk, copies=(copy,), rotate_bytes=9000)
    disk.fault = lambda operation, number: _raise(fail(errno.EIO)) if operation == "sync" else None
    world.give(5, wait=True)
    world.run()
    disk.fault = lambda operation, number: _raise(fail(errno.EIO))
    world.give(5)
    world.run()
    disk.fault = lambda operation, number: None
    world.live(2.2)
    for _ in range(20):
        world.give(1)
        world.run()
    world.live(1.1)
    seqs = [json.loads(line)["seq"] for line in copy.lines]
    assert seqs == list(range(1, len(seqs) + 1)) and len(world.disk.files) > 1
    assert copy.lines[-1] == world.disk.lines()[-1]


def test_the_counters_follow():
    world = begin()
    world.give(3)
    world.run()
    tail = world.writer.tail
    assert (tail.records, tail.written_records, tail.size, tail.written_size) == (4, 4, 400, 400)
    assert (tail.synced_records, world.writer.seq, world.writer.oldest_s) == (1, 5, None)


def test_after_the_stop_line_no_file_begins():
    world = begin(rotate_bytes=100)
    files = len(world.disk.files)
    world.give(name="stop")
    world.run()
    world.live(1)
    assert world.writer.finish() is True
    assert len(world.disk.files) == files and world.events()[-2:] == ["stop", "checkpoint"]


def test_a_file_is_not_left_while_a_sync_of_it_runs():
    world = begin(rotate_bytes=1000)
    files = len(world.disk.files)
    world.give(1, wait=True)
    world.run_writer()
    assert len(world.jobs) == 1
    world.give(1)
    world.run_writer()
    world.clock.advance(2)
    world.writer.tick()
    assert len(world.disk.files) == files and not world.disk.files[-1].is_closed
    world.run()
    assert len(world.disk.files) > files
    world.verify()


def test_a_checkpoint_of_many_records_goes_to_disk_with_them():
    world = begin()
    world.give(CHECKPOINT_RECORDS)
    world.run_writer()
    assert world.jobs == []
    world.live(SYNC_AFTER_S + 0.01)
    assert world.verify(synced=True).signed_seq == CHECKPOINT_RECORDS + 3


def test_trouble_does_not_end_before_something_could_be_written():
    disk = FakeDisk(reserve=1 << 16)
    world = begin(disk)
    disk.filler = disk.room() - 100
    world.give(1, wait=True)
    world.run()
    assert world.writer.tail.since_s is None, "the reserve had room for it"
    disk.reserve = 0  # and cannot be had again
    disk.filler += disk.room()
    world.live(5)
    assert world.writer.trouble is not None
    disk.filler = 0
    world.live(1.1)
    assert world.writer.trouble is None
    world.verify()
