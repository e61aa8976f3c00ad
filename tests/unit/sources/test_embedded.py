"""The issuer as our child, and the files that it writes; the child is a fake, the files are real."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.errors import ConfigurationError, UnavailableError
from sidecar.identity.spiffe_id import parse_spiffe_id
from sidecar.sources.child import FIRST_BACKOFF_S, IssuerChild
from sidecar.sources.embedded import START_DEADLINE_S, EmbeddedSource
from sidecar.sources.files import FilesSource
from sidecar.sources.places import issued_places
from tests.fakes.certificates import SECOND, START, DemoAuthority
from tests.fakes.clock import FakeClock
from tests.fakes.loops import both_loops, run_on

OWN = parse_spiffe_id("spiffe://demo.test/orders")


class FakeIssuer:
    """A child that writes what it is told to after some polls; ``code`` is its exit code once it has ended."""

    def __init__(self, stage) -> None:
        self.stage = stage
        self.code: int | None = None
        self.told: list[str] = []

    def poll(self):
        return self.code

    def terminate(self):
        self.told.append("terminate")
        self.code = -15

    def kill(self):
        raise AssertionError("it ends when it is asked to")

    def wait(self, timeout=None):
        return self.code


class Stage:
    def __init__(self, directory) -> None:
        self.clock = FakeClock()
        self.authority = DemoAuthority()
        self.places = issued_places(directory, OWN)
        self.started: list[FakeIssuer] = []
        self.pauses = 0
        self.at_pause: dict[int, object] = {}
        self.snapshots, self.failures = [], []
        self.turn = asyncio.Event()
        self.child = IssuerChild(self._start, self.clock, lambda: 1.0)
        files = FilesSource(self.places, OWN, self.clock, self._watch_pause)
        self.source = EmbeddedSource(self.child, files, self.clock, self._pause)

    def write(self, **shape) -> None:
        issued = self.authority.issue(str(OWN), **shape)
        self.places.svid.parent.mkdir(parents=True, exist_ok=True)
        self.places.svid.write_bytes(issued.chain_pem)
        self.places.key.touch(0o600)
        self.places.key.write_bytes(issued.key_pem)
        self.places.bundle.write_bytes(self.authority.bundle_pem)

    def _start(self):
        self.started.append(FakeIssuer(self))
        return self.started[-1]

    async def _pause(self, seconds: float) -> None:
        """Time goes by; what is planned for this pause happens."""
        self.pauses += 1
        self.clock.advance(seconds)
        happen = self.at_pause.pop(self.pauses, None)
        if happen is not None:
            happen()
        await asyncio.sleep(0)
        if self.pauses > 1000:
            await asyncio.Event().wait()  # nothing more is planned

    async def _watch_pause(self, seconds: float) -> None:
        await self.turn.wait()
        self.turn.clear()


@both_loops
def test_the_child_is_started_and_its_first_files_are_the_first_snapshot(factory, tmp_path):
    async def play():
        stage = Stage(tmp_path)
        stage.at_pause[20] = stage.write
        snapshot = await stage.source.start()
        assert snapshot.svid.spiffe_id == OWN and snapshot.generation == 1
        assert len(stage.started) == 1 and stage.pauses == 20
        await stage.source.close()
        await stage.source.close()
        assert stage.started[0].told == ["terminate"]

    run_on(factory, play())


def test_an_svid_that_has_ended_is_waited_for_until_it_is_renewed(tmp_path):
    async def play():
        stage = Stage(tmp_path)
        stage.write(not_after=START - SECOND)
        stage.at_pause[5] = stage.write
        assert (await stage.source.start()).svid.not_after > stage.clock.now()
        await stage.source.close()

    asyncio.run(play())


@pytest.mark.parametrize(("code", "kind"), [(2, ConfigurationError), (1, UnavailableError)])
def test_a_child_that_ends_fails_the_start(tmp_path, code, kind):
    async def play():
        stage = Stage(tmp_path)
        stage.at_pause[3] = lambda: setattr(stage.started[0], "code", code)
        with pytest.raises(kind, match=f"ended with exit code {code}"):
            await stage.source.start()
        assert len(stage.started) == 1

    asyncio.run(play())


def test_a_child_that_writes_nothing_fails_the_start_after_its_deadline_and_is_stopped(tmp_path):
    async def play():
        stage = Stage(tmp_path)
        began_s = stage.clock.monotonic_s()
        with pytest.raises(UnavailableError, match=r"no SVID within 10 s: .*svid\.pem"):
            await stage.source.start()
        assert START_DEADLINE_S <= stage.clock.monotonic_s() - began_s <= START_DEADLINE_S + 1
        assert stage.started[0].told == ["terminate"]

    asyncio.run(play())


def test_a_start_that_is_cancelled_leaves_no_child(tmp_path):
    async def play():
        stage = Stage(tmp_path)
        task = asyncio.create_task(stage.source.start())
        stage.at_pause[5] = task.cancel
        with pytest.raises(asyncio.CancelledError):
            await task
        assert stage.started[0].told == ["terminate"]

    asyncio.run(play())


@both_loops
def test_a_child_that_dies_is_told_and_started_again(factory, tmp_path):
    async def play():
        stage = Stage(tmp_path)
        stage.write()
        await stage.source.start()
        told = asyncio.Event()

        def fail(error):
            stage.failures.append(str(error))
            told.set()

        stage.started[0].code = -9
        stage.source.watch(stage.snapshots.append, fail)
        await told.wait()
        while len(stage.started) < 2:
            await asyncio.sleep(0)
        assert stage.failures == ["the issuer process ended with signal 9; the log before this line says why"]
        assert stage.snapshots == [], "the last good one stays in force"
        await stage.source.close()
        assert stage.started[1].told == ["terminate"]

    run_on(factory, play())


def test_the_loop_that_looks_after_the_child_outlives_a_callback_that_raises(tmp_path, caplog):
    async def play():
        stage = Stage(tmp_path)
        stage.write()
        await stage.source.start()

        def fail(error):
            raise ZeroDivisionError("no")

        stage.started[0].code = 1
        stage.source.watch(stage.snapshots.append, fail)
        while len(stage.started) < 2:
            await asyncio.sleep(0)
        await stage.source.close()

    asyncio.run(play())
    assert any("looking after the issuer process failed" in record.message for record in caplog.records)


@both_loops
def test_what_the_child_renews_is_taken(factory, tmp_path):
    async def play():
        stage = Stage(tmp_path)
        stage.write()
        await stage.source.start()
        taken = asyncio.Event()

        def take(snapshot):
            stage.snapshots.append(snapshot)
            taken.set()

        stage.source.watch(take, stage.failures.append)
        stage.write()
        stage.turn.set()
        await taken.wait()
        assert [each.generation for each in stage.snapshots] == [2]
        stage.write()
        await stage.source.reload()
        assert [each.generation for each in stage.snapshots] == [2, 3]
        await stage.source.close()

    run_on(factory, play())


def test_the_first_pause_after_a_death_is_short():
    assert FIRST_BACKOFF_S <= 1
