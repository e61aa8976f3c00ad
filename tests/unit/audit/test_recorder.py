from __future__ import annotations

import asyncio
import errno
import json

import pytest

from sidecar.audit import recorder as recorder_module
from sidecar.audit.record import Caller, Decision, Intent
from sidecar.audit.recorder import FLUSH_S, HANG_S, MAX_WAITING_BYTES, MAX_WAITING_RECORDS, WATCH_S, AuditLog
from sidecar.audit.verify import verify_log
from sidecar.errors import AuditUnavailable
from sidecar.metrics import SidecarMetrics
from tests.fakes.audit import ALLOW, CALLER, DENY, INTENT, OUTCOME, FakeDisk, FakeLoop, FakeThread, fail
from tests.fakes.clock import FakeClock
from tests.fakes.loops import both_loops, run_on


class World:
    """A log whose loop, threads, disk and clock move only when a test says so."""

    def __init__(self, disk: FakeDisk | None = None) -> None:
        self.clock = FakeClock()
        self.loop = FakeLoop(self.clock)
        self.thread = FakeThread(self.clock, disk)
        self.disk = self.thread.disk
        self.metrics = SidecarMetrics()
        self.released: list[bool] = []
        self.log = AuditLog(
            self.loop,
            self.clock,
            self.metrics,
            self.thread,
            recovered_journal_entries=3,
            release=lambda: self.released.append(True),
        )
        self.thread.listener = self.log
        self.told: list[bool] = []
        self.log.record("start", {"log": "0" * 32, "public_key": ""})
        self.run(0.1)

    def run(self, seconds: float = 0.0) -> None:
        self.loop.run(seconds, self.thread.run)

    def call(self, number: int = 0, intent: Intent = INTENT, **more: bool) -> None:
        self.log.record_call(
            f"id-{number}", self.clock.wall_s(), CALLER, intent, ALLOW, OUTCOME, "00-1-2-01", **more
        )

    def deny(self, number: int = 0, caller: Caller = CALLER, decision: Decision = DENY) -> bool:
        return self.log.record_denial(
            f"id-{number}", self.clock.wall_s(), caller, INTENT, decision, OUTCOME, ""
        )

    def wait(self) -> None:
        self.log.when_durable(self.told.append)

    def records(self, event: str | None = None) -> list[dict[str, object]]:
        records = [json.loads(line) for line in self.disk.lines()]
        return [record for record in records if event is None or record["event"] == event]

    def break_disk(self, number: int = errno.EIO) -> None:
        def fault(operation: str, place: int) -> int | None:
            raise fail(number)

        self.disk.fault = fault

    def mend_disk(self) -> None:
        self.disk.fault = lambda operation, number: None


@pytest.fixture
def world():
    return World()


# What is recorded, and when it moves


def test_records_are_collected_for_a_moment_and_then_handed_over(world):
    for number in range(5):
        world.call(number)
    assert world.log.waiting == 5
    world.loop.run(FLUSH_S - 0.001)
    assert world.thread.batches == []
    world.loop.run(0.001)
    (batch,) = world.thread.batches
    assert len(batch.entries) == 5 and batch.tickets == []
    world.run()
    assert [record["id"] for record in world.records("call")] == [f"id-{number}" for number in range(5)]
    assert world.log.waiting == 0


def test_the_way_to_the_kernel_is_within_10_ms():
    assert FLUSH_S <= 0.005


def test_a_record_schedules_nothing_while_a_batch_is_collected(world):
    world.call()
    pending = world.loop.pending()
    for _ in range(100):
        world.call()
    assert world.loop.pending() == pending


def test_an_open_call_has_its_own_line(world):
    world.log.record_call("x", 0.0, CALLER, INTENT, ALLOW, None, "", is_open=True)
    world.call()
    world.run(0.1)
    assert [(record["event"], record["outcome"] is None) for record in world.records()[2:4]] == [
        ("open", True),
        ("call", False),
    ]


def test_other_events_are_encoded_when_they_happen(world):
    body = {"operation": "reload", "list": [1]}
    world.log.record("admin", body)
    body["list"].append(2)
    world.run(0.1)
    (record,) = world.records("admin")
    assert (record["operation"], record["list"]) == ("reload", [1])
    assert record["ts"].startswith("2026-11-24T12:00:00.1")


def test_a_body_that_no_line_can_have_is_the_callers_mistake(world):
    with pytest.raises(ValueError, match="prev"):
        world.log.record("admin", {"prev": "x"})


def test_checkpoints_ask_for_the_journals_entries(world):
    assert world.log.journal_entries() == world.log.recovered_journal_entries == 3


# Who waits


def test_who_waits_hears_once_it_is_on_disk_and_never_before(world):
    world.call()
    world.wait()
    assert world.told == []
    world.loop.run()
    world.thread.run_writer()
    assert world.told == []
    world.thread.run_sync()
    assert world.told == [True]


def test_waiting_does_not_wait_for_the_batch_to_fill(world):
    world.call()
    world.wait()
    world.loop.run(0.0)
    assert len(world.thread.batches) == 1


def test_all_who_wait_in_one_turn_share_a_batch(world):
    for number in range(10):
        world.call(number)
        world.wait()
    world.loop.run(0.0)
    assert len(world.thread.batches) == 1 and len(world.thread.batches[0].entries) == 10
    world.run()
    assert world.told == [True] * 10


def test_with_nothing_new_the_answer_comes_at_once_but_never_inside(world):
    world.run(0.2)
    world.wait()
    assert world.told == []
    world.loop.run()
    assert world.told == [True] and world.thread.batches == []


def test_what_is_written_but_not_synced_is_not_on_disk(world):
    world.call()
    world.loop.run(FLUSH_S)
    world.thread.run_writer()
    world.wait()
    world.loop.run()
    assert world.told == []
    world.run()
    assert world.told == [True]


def test_one_who_waits_again_inside_its_answer_is_heard(world):
    def again(on_disk: bool) -> None:
        world.call(2)
        world.wait()

    world.call(1)
    world.log.when_durable(again)
    world.run(0.1)
    assert world.told == [True]


# Masses of refusals


def test_a_refusal_waits_and_too_many_are_summed(world):
    assert [world.deny(number) for number in range(103)] == [True] * 100 + [False] * 3
    world.run(0.9)
    assert len(world.records("call")) == 100 and world.records("denials") == []
    world.run(0.2)
    (denials,) = world.records("denials")
    assert (denials["caller"], denials["decision"]) == (
        {"id": CALLER.id},
        {"effect": "deny", "reason": "scope"},
    )
    assert (denials["count"], denials["first"], denials["last"]) == (3, "id-100", "id-102")
    world.run(3)
    assert len(world.records("denials")) == 1 and world.loop.pending() == 0


def test_allows_and_open_lines_are_never_summed(world):
    for number in range(1000):
        world.call(number)
        world.call(number, is_open=True)
    world.run(2)
    assert len(world.records("call")) == len(world.records("open")) == 1000


def test_a_flood_gets_a_line_a_second(world):
    for _ in range(40):
        for number in range(50):
            world.deny(number)
        world.run(0.1)
    world.run(2)
    lines, sums = world.records("call"), world.records("denials")
    assert len(lines) == 400 and len(sums) == 4
    assert len(lines) + sum(each["count"] for each in sums) == 2000


def test_refused_handshakes_are_recorded_and_summed(world):
    for _ in range(104):
        world.log.record_handshake("10.0.0.9", "X5-17", "not signed", "spiffe://demo.test/web")
    world.run(1.2)
    assert len(world.records("handshake")) == 100
    assert world.records("handshake")[0]["claimed"] == "spiffe://demo.test/web"
    assert world.records("handshake")[0]["unverified"] is True
    assert world.records("handshakes")[0]["count"] == 4


# Outages


def test_a_failing_disk_refuses_calls_and_whoever_waits(world):
    world.break_disk()
    assert world.log.available
    world.call()
    world.wait()
    world.run()
    assert world.told == [False]
    assert not world.log.available and world.log.trouble == "Input/output error"
    world.wait()
    world.run()
    assert world.told == [False, False]


def test_when_the_disk_is_back_so_is_the_log_and_a_gap_tells_of_it(world):
    world.break_disk(errno.EROFS)
    world.call(1)
    world.run(0.01)
    world.call(2)  # was let through before, ends now
    assert world.deny(3) is True, "it has to wait, and waiting says no"
    world.log.count_unrecorded()
    world.run(2.5)
    world.mend_disk()
    world.run(1.5)
    assert world.log.available
    world.run(0.1)
    (gap,) = world.records("gap")
    assert (gap["cause"], gap["refused"], gap["lost"]) == ("Read-only file system", 2, 0)
    assert gap["from"] < gap["to"]
    assert [record["id"] for record in world.records("call")] == ["id-1", "id-2"]
    world.call(4)
    world.wait()
    world.run()
    assert world.told == [True]


def test_a_disk_that_does_not_answer_is_noticed(world):
    world.call(1)
    world.wait()
    world.loop.run(FLUSH_S)
    world.thread.hung_since_s = world.clock.monotonic_s()
    world.loop.run(HANG_S)
    assert world.log.available and world.told == []
    world.loop.run(2 * WATCH_S)
    assert not world.log.available and world.told == [False]
    assert world.log.trouble == "the disk gives no answer"
    world.call(2)
    world.loop.run(10)
    assert not world.log.available
    world.thread.hung_since_s = None
    world.run(2 * WATCH_S)
    assert world.log.available and world.told == [False]
    world.run(0.1)
    assert len(world.records("call")) == 2 and len(world.records("gap")) == 1


def test_refusal_begins_exactly_at_the_bound(world):
    before = world.log.waiting
    for number in range(MAX_WAITING_RECORDS - before - 1):
        world.call(number)
    assert world.log.available
    world.call()
    assert not world.log.available
    assert world.log.waiting == MAX_WAITING_RECORDS
    assert world.deny() is True and world.log.waiting == MAX_WAITING_RECORDS, "nothing more is kept for it"


def test_long_paths_count_for_what_they_are(world):
    path = "/" + "a" * 8191
    count = 0
    while world.log.available:
        world.call(intent=Intent("GET", path))
        count += 1
    assert MAX_WAITING_BYTES // 9000 < count <= MAX_WAITING_BYTES // 8192 + 1


def test_at_the_bound_other_events_are_lost_and_counted_but_no_call_is(world, monkeypatch):
    monkeypatch.setattr(recorder_module, "MAX_WAITING_RECORDS", 1000)
    for number in range(1000):
        world.call(number)
    assert not world.log.available
    world.log.record("admin", {"operation": "drain"})
    world.call(-1)
    world.run(3)
    assert world.log.available
    world.run(0.1)
    (gap,) = world.records("gap")
    assert (gap["lost"], gap["cause"]) == (1, "more records wait than are kept")
    assert world.records("admin") == [] and len(world.records("call")) == 1001


def test_a_full_disk_refuses_until_there_is_room_again():
    disk = FakeDisk(capacity=200_000, reserve=50_000)
    world = World(disk)
    disk.filler = disk.room() - 500
    for number in range(5):
        world.call(number)
    world.wait()
    world.run(1)
    assert not world.log.available and world.told == [False]
    assert len(world.records("call")) == 5 and world.records()[-1]["event"] == "checkpoint"
    disk.filler += disk.room()
    world.run(5)
    assert not world.log.available
    disk.filler = 0
    world.run(2)
    assert world.log.available
    world.run(0.1)
    assert world.records()[-2]["event"] == "gap"
    assert disk.reserved == 50_000


# Metrics


def test_metrics_tell_what_waits_and_what_was_written(world):
    page = lambda: world.metrics.registry.render().decode()  # noqa: E731
    world.call(1)
    world.clock.advance(0.003)
    assert "sidecar_audit_queue_depth 1\n" in page()
    assert "sidecar_audit_oldest_unshipped_seconds 0.003" in page()
    world.run(1)
    assert "sidecar_audit_queue_depth 0\n" in page()
    assert "sidecar_audit_oldest_unshipped_seconds 0\n" in page()
    assert 'sidecar_audit_records_total{sink="file",result="written"} 2\n' in page()
    for number in range(120):
        world.deny(number)
    world.run(1)
    assert 'sidecar_audit_records_total{sink="file",result="summed"} 20\n' in page()


# The end


def close(world: World) -> None:
    asyncio.run(world.log.close())


def test_the_end_is_a_stop_line_and_a_checkpoint(world):
    for number in range(103):
        world.deny(number)
    close(world)
    events = [record["event"] for record in world.records()]
    assert events[-3:] == ["denials", "stop", "checkpoint"]
    assert bytes(world.disk.files[0].data) == world.disk.files[0].synced
    assert world.released == [True] and not world.log.available
    close(world)
    assert world.released == [True]


def test_after_the_end_nothing_is_accepted_and_nobody_waits_in_vain(world, caplog):
    close(world)
    lines = len(world.records())
    world.log.record("admin", {})
    world.call()
    world.wait()
    world.run(1)
    assert len(world.records()) == lines and world.told == [False]
    assert caplog.text.count("after the end of the audit log") == 2


def test_an_end_on_a_broken_disk_is_an_error(world):
    world.break_disk()
    world.call()
    with pytest.raises(AuditUnavailable, match="not on disk"):
        close(world)
    assert world.released == [True]


def test_an_end_that_takes_too_long_leaves_the_directory_locked(world, monkeypatch):
    monkeypatch.setattr(recorder_module, "CLOSE_S", 0.01)
    monkeypatch.setattr(world.thread, "finish", lambda finished: None)
    world.wait()
    world.call()
    world.wait()
    with pytest.raises(AuditUnavailable, match="no answer"):
        close(world)
    assert world.released == [] and False in world.told


def test_it_verifies_as_a_whole(world):
    for number in range(600):
        world.call(number)
        if number % 7 == 0:
            world.deny(number)
            world.wait()
        world.run(0.01)
    close(world)
    # The fake thread's log begins with a start that names no key: take the chain from its first checkpoint on.
    name, lines = world.disk.named()[0]
    report = verify_log([(name.replace("1", "2"), lines[1:])], world.thread.key.public, whole=False)
    assert report.signed_seq == report.seq


@both_loops
def test_sync_is_for_coroutines(factory):
    async def story() -> None:
        world = World()
        world.call()
        waiting = asyncio.ensure_future(world.log.sync())
        await asyncio.sleep(0)
        world.run()
        await waiting
        world.break_disk()
        world.call()
        waiting = asyncio.ensure_future(world.log.sync())
        await asyncio.sleep(0)
        world.run()
        with pytest.raises(AuditUnavailable, match="Input/output error"):
            await waiting

    run_on(factory, story())
