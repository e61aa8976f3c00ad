from __future__ import annotations

import queue
import threading

import pytest

from sidecar.audit.batch import Batch, SyncJob
from sidecar.audit.lines import Place
from sidecar.audit.threads import WriterThread
from sidecar.audit.verify import verify_log
from sidecar.audit.writer import Writer
from sidecar.clock import SYSTEM_CLOCK
from tests.fakes.audit import LOG, FakeDisk, call, make_key, start

WAIT_S = 10.0


class Heard:
    """What the threads say, for a test to wait for."""

    def __init__(self) -> None:
        self.said: queue.SimpleQueue[tuple[str, object]] = queue.SimpleQueue()

    def settled(self, tickets: list[int], on_disk: bool) -> None:
        self.said.put(("settled", (tickets, on_disk)))

    def troubled(self, trouble: str) -> None:
        self.said.put(("troubled", trouble))

    def recovered(self) -> None:
        self.said.put(("recovered", None))

    def next(self) -> tuple[str, object]:
        return self.said.get(timeout=WAIT_S)


class World:
    def __init__(self, **options: object) -> None:
        self.disk = FakeDisk()
        self.heard = Heard()
        self.thread = WriterThread(
            lambda begin: Writer(
                self.disk,
                self.disk.files[0],
                Place(LOG),
                make_key(),
                SYSTEM_CLOCK,
                self.heard,
                begin,
                **options,
            ),
            SYSTEM_CLOCK,
            self.heard,
        )
        self.thread.start()

    def give(self, *entries: object, ticket: int | None = None) -> None:
        tickets = [] if ticket is None else [ticket]
        self.thread.put(Batch(list(entries), SYSTEM_CLOCK.monotonic_s(), 0, tickets))

    def finish(self) -> bool:
        done: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.thread.finish(done.put)
        return done.get(timeout=WAIT_S)


@pytest.fixture
def world():
    world = World()
    yield world
    world.disk.fault = lambda operation, number: None
    world.finish()


def test_who_waits_hears_when_it_is_on_disk(world):
    world.give(start(make_key()), ticket=1)
    assert world.heard.next() == ("settled", ([1], True))
    assert b'"start"' in world.disk.files[0].synced


def test_without_anybody_waiting_things_come_to_the_disk_by_themselves(world):
    synced = threading.Event()
    world.disk.fault = lambda operation, number: synced.set() if operation == "sync" else None
    world.give(call(1))
    assert synced.wait(WAIT_S)


def test_a_sync_that_takes_long_keeps_nothing_from_the_kernel(world):
    in_sync, go_on, written = threading.Event(), threading.Event(), threading.Event()

    def fault(operation: str, number: int) -> None:
        if operation == "sync":
            in_sync.set()
            assert go_on.wait(WAIT_S)
        elif operation == "write" and in_sync.is_set():
            written.set()

    world.disk.fault = fault
    world.give(start(make_key()), ticket=1)
    assert in_sync.wait(WAIT_S)
    assert world.thread.blocked_since_s() is not None
    world.give(call(1))
    assert written.wait(WAIT_S)
    go_on.set()
    assert world.heard.next() == ("settled", ([1], True))


def test_a_write_that_hangs_is_seen_from_outside(world):
    hanging, go_on = threading.Event(), threading.Event()

    def fault(operation: str, number: int) -> None:
        if operation == "write":
            hanging.set()
            assert go_on.wait(WAIT_S)

    world.disk.fault = fault
    world.give(start(make_key()), ticket=1)
    assert hanging.wait(WAIT_S)
    since_s = world.thread.blocked_since_s()
    assert since_s is not None and since_s <= SYSTEM_CLOCK.monotonic_s()
    go_on.set()
    assert world.heard.next() == ("settled", ([1], True))


def test_a_failing_disk_is_told_and_tried_again(world, monkeypatch):
    monkeypatch.setattr("sidecar.audit.writer.RETRY_S", 0.01)
    failures = iter(range(3))

    def fault(operation: str, number: int) -> None:
        if operation == "write" and next(failures, None) is not None:
            raise OSError(5, "broken")

    world.disk.fault = fault
    world.give(start(make_key()), ticket=1)
    assert world.heard.next() == ("troubled", "broken")
    assert world.heard.next() == ("settled", ([1], False))
    assert world.heard.next() == ("recovered", None)
    world.give(call(1), ticket=2)
    assert world.heard.next() == ("settled", ([2], True))


def test_finishing_leaves_a_whole_log():
    world = World()
    world.give(start(make_key()))
    world.give(*[call(number) for number in range(500)])
    assert world.finish() is True
    report = verify_log(world.disk.named(synced=True), make_key().public)
    assert report.lines == 501 + report.checkpoints and report.signed_seq == report.seq


def test_finishing_waits_for_the_sync_that_runs():
    world = World()
    in_sync, second = threading.Event(), threading.Event()
    early: list[bool] = []

    def fault(operation: str, number: int) -> None:
        if operation == "sync" and not in_sync.is_set():
            in_sync.set()
            early.append(second.wait(0.2))
        elif operation == "sync":
            second.set()

    world.disk.fault = fault
    world.give(start(make_key()), ticket=1)
    assert in_sync.wait(WAIT_S)
    world.give(call(1))
    assert world.finish() is True
    assert early == [False]


def test_finishing_on_a_broken_disk_says_so():
    world = World()

    def fault(operation: str, number: int) -> None:
        raise OSError(5, "broken")

    world.disk.fault = fault
    world.give(call(1))
    assert world.finish() is False


def test_a_writer_that_fails_itself_leaves_nobody_waiting(caplog):
    world = World(journal_entries=lambda: 1 // 0)
    world.give(start(make_key()), ticket=1)
    said = [world.heard.next(), world.heard.next()]
    assert ("settled", ([1], False)) in said
    assert ("troubled", "its writer failed: ZeroDivisionError") in said
    world.give(call(1), ticket=2)
    assert world.heard.next() == ("settled", ([2], False))
    assert world.finish() is False
    assert world.thread.writer.trouble is not None


def test_a_sync_job_is_told_before_the_writer_goes_on():
    heard, done = Heard(), queue.SimpleQueue()
    from sidecar.audit.threads import SyncThread

    disk = FakeDisk()
    thread = SyncThread(SYSTEM_CLOCK, heard, lambda job, error: done.put((job, error)))
    thread.start()
    job = SyncJob(disk.files[0], 1, 1, [7])
    thread.begin(job)
    assert done.get(timeout=WAIT_S) == (job, None)
    assert heard.said.get_nowait() == ("settled", ([7], True))
    disk.fault = lambda operation, number: (_ for _ in ()).throw(OSError(5, "broken"))
    thread.begin(job)
    assert str(done.get(timeout=WAIT_S)[1]) == "[Errno 5] broken"
    assert heard.said.empty(), "the writer has to know first"
    thread.stop()
