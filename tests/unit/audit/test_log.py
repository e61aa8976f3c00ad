from __future__ import annotations

import asyncio
import json

import pytest

from sidecar.audit.key import load_public_key
from sidecar.audit.log import open_log
from sidecar.audit.verify import verify_log
from sidecar.clock import SYSTEM_CLOCK
from sidecar.errors import AuditUnavailable, ConfigurationError, StateError
from sidecar.metrics import SidecarMetrics
from tests.fakes.audit import ALLOW, CALLER, DENY, INTENT, OUTCOME
from tests.fakes.loops import both_loops, run_on


class World:
    def __init__(self, tmp_path) -> None:
        self.directory = tmp_path / "audit"
        self.key = tmp_path / "audit.key"
        self.metrics = SidecarMetrics()

    async def open(self, **options: object):
        return await open_log(
            self.directory,
            self.key,
            clock=SYSTEM_CLOCK,
            metrics=self.metrics,
            start={"version": "1.2"},
            **options,
        )

    def files(self):
        return sorted(self.directory.glob("*.jsonl"))

    def records(self):
        return [json.loads(line) for path in self.files() for line in path.read_bytes().splitlines()]

    def verify(self):
        files = [(path.name, path.read_bytes().splitlines(keepends=True)) for path in self.files()]
        return verify_log(files, load_public_key(self.key.with_suffix(".pub")))


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@both_loops
def test_a_run_leaves_a_log_that_verifies(world, factory):
    async def story() -> None:
        log = await world.open()
        assert log.available and log.seq == 2
        for number in range(1000):
            log.record_call(f"id-{number}", SYSTEM_CLOCK.wall_s(), CALLER, INTENT, ALLOW, OUTCOME, "")
        assert log.record_denial("refused", SYSTEM_CLOCK.wall_s(), CALLER, INTENT, DENY, OUTCOME, "") is True
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        log.when_durable(done.set_result)
        assert not done.done()
        assert await done is True
        assert b'"refused"' in world.files()[-1].read_bytes()
        await log.sync()
        await log.close()

    run_on(factory, story())
    report = world.verify()
    assert report.signed_seq == report.seq and report.starts == 1
    records = world.records()
    assert records[0]["event"] == "start" and records[0]["version"] == "1.2"
    assert [record["id"] for record in records if record["event"] == "call"] == [
        f"id-{n}" for n in range(1000)
    ] + ["refused"]


@both_loops
def test_runs_continue_one_chain_across_files(world, factory):
    async def story() -> None:
        for _ in range(3):
            log = await world.open(rotate_bytes=20_000)
            for number in range(100):
                log.record_call(f"id-{number}", SYSTEM_CLOCK.wall_s(), CALLER, INTENT, ALLOW, OUTCOME, "")
                if number % 10 == 0:
                    await log.sync()
            await log.close()

    run_on(factory, story())
    report = world.verify()
    assert (report.starts, report.crashes) == (3, 0) and report.files > 3
    assert [record["after"] for record in world.records() if record["event"] == "start"] == [
        "first",
        "clean",
        "clean",
    ]


@both_loops
def test_a_run_after_a_torn_end_records_what_was_cut(world, factory):
    async def story() -> None:
        log = await world.open()
        await log.close()
        with world.files()[-1].open("ab") as file:
            file.write(b'{"v":1,"seq":99')
        log = await world.open()
        assert log.recovered_journal_entries == 0
        await log.close()

    run_on(factory, story())
    (recovered,) = [record for record in world.records() if record["event"] == "recovered"]
    assert (recovered["bytes"], recovered["file"]) == (15, "00000001.jsonl")
    assert world.verify().crashes == 1


@both_loops
def test_what_the_journal_holds_is_known_at_the_next_start(world, factory):
    async def story() -> None:
        log = await world.open()
        assert log.recovered_journal_entries is None
        log.journal_entries = lambda: 42
        log.record("grant", {"what": "submit"})
        await log.close()
        log = await world.open()
        assert log.recovered_journal_entries == 42
        log.record("grant", {"what": "use"})
        await log.close()

    run_on(factory, story())
    entries = [record["entries"] for record in world.records() if record["event"] == "checkpoint"]
    # Until the journal is read again, nothing lower is signed than what was known.
    assert entries == [0, 42, 42, 42, 42, 42][: len(entries)] and entries[-1] == 42
    assert world.verify().warnings == ()


@both_loops
def test_two_writers_of_one_log_are_one_too_many(world, factory):
    async def story() -> None:
        log = await world.open()
        with pytest.raises(StateError, match="another process"):
            await world.open()
        await log.sync()
        await log.close()

    run_on(factory, story())
    assert world.verify().starts == 1


@both_loops
def test_a_disk_that_takes_no_first_line_is_no_start(world, factory, monkeypatch):
    def write(self: object, data: bytes, offset: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sidecar.audit.directory.LogFile.write", write)

    async def story() -> None:
        with pytest.raises(AuditUnavailable, match="No space left"):
            await world.open()
        monkeypatch.undo()
        log = await world.open()
        await log.close()

    run_on(factory, story())
    assert world.verify().starts == 1


@both_loops
def test_copies_are_loaded_by_name(world, factory, capfd):
    async def story() -> None:
        log = await world.open(sinks=("stdout",))
        log.record_call("copied", SYSTEM_CLOCK.wall_s(), CALLER, INTENT, ALLOW, OUTCOME, "")
        await log.close()
        with pytest.raises(ConfigurationError, match="no audit sink"):
            await world.open(sinks=("nowhere",))

    run_on(factory, story())
    assert capfd.readouterr().out.encode() == world.files()[0].read_bytes()
    assert world.metrics.audit_records.labels("stdout", "written").value == len(world.records())
    assert world.metrics.audit_records.labels("stdout", "dropped").value == 0


@both_loops
def test_a_file_that_is_removed_while_it_is_written_stops_the_calls(world, factory):
    async def story() -> None:
        log = await world.open()
        world.files()[0].unlink()
        log.record_call("x", SYSTEM_CLOCK.wall_s(), CALLER, INTENT, ALLOW, OUTCOME, "")
        with pytest.raises(AuditUnavailable, match="removed or replaced"):
            await log.sync()
        assert not log.available
        with pytest.raises(AuditUnavailable):
            await log.close()

    run_on(factory, story())
