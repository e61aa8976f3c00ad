"""SVIDs from three files: the first set has to be in order, later ones replace it only as far as they are."""

from __future__ import annotations

import asyncio
import json
import os
from base64 import b64encode
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from sidecar.errors import ConfigurationError, IdentityError, SidecarError
from sidecar.identity.spiffe_id import parse_spiffe_id
from sidecar.sources.files import POLL_S, SETTLE_S, START_ATTEMPTS, FilesSource
from sidecar.sources.places import Places
from tests.fakes.certificates import HOUR, SECOND, START, DemoAuthority
from tests.fakes.clock import FakeClock
from tests.fakes.loops import both_loops, run_on

ORDERS = "spiffe://demo.test/orders"
WEB = "spiffe://demo.test/web"


def bundle_json(*authorities: DemoAuthority) -> bytes:
    keys = [
        {
            "use": "x509-svid",
            "kty": "EC",
            "x5c": [b64encode(each.certificate.public_bytes(Encoding.DER)).decode()],
        }
        for each in authorities
    ]
    return json.dumps({"keys": keys}).encode()


class Ticks:
    """A pause between looks lasts until the test lets one turn pass; in the short ones ``meanwhile`` happens."""

    def __init__(self) -> None:
        self.asked_s: list[float] = []
        self.meanwhile = lambda: None
        self._arrived = asyncio.Event()
        self._turns = asyncio.Semaphore(0)

    async def pause(self, seconds: float) -> None:
        self.asked_s.append(seconds)
        if seconds == SETTLE_S:
            self.meanwhile()
            return
        self._arrived.set()
        await self._turns.acquire()

    async def turn(self) -> None:
        await self._arrived.wait()
        self._arrived.clear()
        self._turns.release()
        await self._arrived.wait()


class Stage:
    """The three files, a source that reads them, and what it tells."""

    def __init__(self, directory, expected: str | None = ORDERS) -> None:
        self.clock = FakeClock()
        self.authority = DemoAuthority()
        self.places = Places(directory / "svid.pem", directory / "key.pem", directory / "bundle.pem")
        self.ticks = Ticks()
        self.snapshots = []
        self.failures: list[SidecarError] = []
        self.put(self.authority.issue(ORDERS))
        self.places.bundle.write_bytes(self.authority.bundle_pem)
        self.source = FilesSource(
            self.places, expected and parse_spiffe_id(expected), self.clock, self.ticks.pause
        )

    def put(self, issued) -> None:
        self.put_key(issued)
        replace(self.places.svid, issued.chain_pem)

    def put_key(self, issued) -> None:
        replace(self.places.key, issued.key_pem, 0o600)

    def put_bundle(self, data: bytes) -> None:
        replace(self.places.bundle, data)

    def watch(self) -> None:
        self.source.watch(self.snapshots.append, self.failures.append)

    @property
    def words(self) -> list[str]:
        return [str(each) for each in self.failures]


def replace(path, data: bytes, mode: int = 0o644) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.chmod(mode)
    os.replace(new, path)


def story(test):
    """Runs the coroutine function on both loops with a fresh stage, started and watching, and closes it."""

    @both_loops
    def run(factory, tmp_path):
        async def play():
            stage = Stage(tmp_path)
            first = await stage.source.start()
            assert first.generation == 1
            stage.watch()
            try:
                await test(stage)
            finally:
                await stage.source.close()

        run_on(factory, play())

    return run


async def refused_start(stage) -> SidecarError:
    pauses = []

    async def no_pause(seconds: float) -> None:
        pauses.append(seconds)

    stage.source._pause = no_pause
    with pytest.raises(SidecarError) as caught:
        await stage.source.start()
    assert len(pauses) == START_ATTEMPTS - 1, "the pair may be in the middle of its renewal"
    return caught.value


@both_loops
def test_the_first_set(factory, tmp_path):
    async def play():
        stage = Stage(tmp_path)
        snapshot = await stage.source.start()
        assert str(snapshot.svid.spiffe_id) == ORDERS
        assert snapshot.bundles["demo.test"].authorities == (stage.authority.certificate,)
        await stage.source.close()
        await stage.source.close()

    run_on(factory, play())


def spoil(name):
    def remove(stage):
        getattr(stage.places, name).unlink()

    def empty(stage):
        getattr(stage.places, name).write_bytes(b"")

    def garbage(stage):
        getattr(stage.places, name).write_bytes(b"\x00" * 40)

    def directory(stage):
        getattr(stage.places, name).unlink()
        getattr(stage.places, name).mkdir()

    def pipe(stage):
        getattr(stage.places, name).unlink()
        os.mkfifo(getattr(stage.places, name), 0o600)

    def cut(stage):
        path = getattr(stage.places, name)
        path.write_bytes(path.read_bytes()[:-60])

    return [
        pytest.param(each, id=f"{name}-{each.__name__}")
        for each in (remove, empty, garbage, directory, pipe, cut)
    ]


SPOILED = spoil("svid") + spoil("key") + spoil("bundle")


@pytest.mark.parametrize("spoil", SPOILED)
def test_a_set_that_is_not_whole_does_not_start(spoil, tmp_path, request):
    stage = Stage(tmp_path)
    spoil(stage)
    error = asyncio.run(refused_start(stage))
    name = request.node.callspec.id.partition("-")[0]
    assert str(getattr(stage.places, name)) in str(error)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.put(s.authority.issue(WEB)), f"is for {WEB!r}, expected {ORDERS!r}"),
        (lambda s: s.put_key(s.authority.issue(ORDERS)), "key"),
        (lambda s: s.put(s.authority.issue(ORDERS, not_after=START - SECOND)), "own bundle"),
        (lambda s: s.put(s.authority.issue(ORDERS, not_before=START + HOUR)), "own bundle"),
        (lambda s: s.put(DemoAuthority().issue(ORDERS)), "own bundle"),
        (lambda s: s.put(s.authority.self_sign(ORDERS)), "own bundle"),
        (lambda s: s.put_bundle(bundle_json()), "own bundle"),
        (lambda s: s.put_bundle(DemoAuthority("other.test").bundle_pem), "own bundle"),
        (lambda s: s.places.key.chmod(0o640), "open to others (mode 0640)"),
        (lambda s: s.places.key.chmod(0o604), "open to others (mode 0604)"),
    ],
    ids=["id", "pair", "ended", "early", "stranger", "self", "nobody", "bundle", "group", "world"],
)
def test_a_set_that_is_not_fit_for_use_does_not_start(change, words, tmp_path):
    stage = Stage(tmp_path)
    change(stage)
    assert words in str(asyncio.run(refused_start(stage)))


def test_the_name_of_an_id_is_compared_whole(tmp_path):
    stage = Stage(tmp_path, ORDERS + "2")
    assert "expected" in str(asyncio.run(refused_start(stage)))


def test_a_pair_in_the_middle_of_its_renewal_is_waited_for(tmp_path):
    stage = Stage(tmp_path)
    fresh = stage.authority.issue(ORDERS)
    stage.put_key(fresh)

    async def pause(seconds: float) -> None:
        stage.put(fresh)

    stage.source._pause = pause
    assert asyncio.run(stage.source.start()).svid.chain == fresh.chain


@story
async def test_it_looks_often_enough_to_see_a_change_within_a_second(stage):
    await stage.ticks.turn()
    assert set(stage.ticks.asked_s) == {POLL_S} and POLL_S <= 0.5


@story
async def test_a_renewed_svid_is_one_new_snapshot(stage):
    fresh = stage.authority.issue(ORDERS)
    stage.put(fresh)
    await stage.ticks.turn()
    await stage.ticks.turn()
    assert [each.generation for each in stage.snapshots] == [2]
    assert stage.snapshots[0].svid.chain == fresh.chain
    assert stage.failures == []


@story
async def test_the_same_content_again_is_no_news(stage):
    for path in (stage.places.svid, stage.places.bundle):
        replace(path, path.read_bytes())
    replace(stage.places.key, stage.places.key.read_bytes(), 0o600)
    await stage.ticks.turn()
    await stage.source.reload()
    assert stage.snapshots == [] and stage.failures == []


@story
async def test_nothing_is_read_while_nothing_changes(
    stage,
):
    stage.source._read = None  # would raise, and be told as a failure
    for _ in range(3):
        await stage.ticks.turn()
    assert stage.failures == []


@story
async def test_a_pair_that_does_not_match_keeps_the_old_one_and_is_told_once(stage):
    fresh = stage.authority.issue(ORDERS)
    replace(stage.places.svid, fresh.chain_pem)
    for _ in range(3):
        await stage.ticks.turn()
    assert stage.snapshots == []
    assert len(stage.failures) == 1 and str(stage.places.key) in stage.words[0]
    stage.put_key(fresh)
    await stage.ticks.turn()
    assert [each.svid.chain for each in stage.snapshots] == [fresh.chain]
    stage.put_key(stage.authority.issue(ORDERS))
    await stage.ticks.turn()
    assert len(stage.failures) == 2, "after a good set the same failure is a new one"


@story
async def test_a_pair_in_the_middle_of_its_renewal_is_no_failure(stage):
    fresh = stage.authority.issue(ORDERS)
    replace(stage.places.svid, fresh.chain_pem)
    stage.ticks.meanwhile = lambda: stage.put_key(fresh)
    await stage.ticks.turn()
    assert [each.svid.chain for each in stage.snapshots] == [fresh.chain] and stage.failures == []


@story
async def test_a_withdrawal_does_not_wait_for_the_rest_to_settle(stage):
    seen = []
    stage.ticks.meanwhile = lambda: seen.append(len(stage.snapshots))
    stage.put_key(stage.authority.issue(ORDERS))
    stage.put_bundle(bundle_json())
    await stage.ticks.turn()
    assert seen == [1]


@story
async def test_a_missing_file_keeps_the_old_set(stage):
    for path in (stage.places.svid, stage.places.key, stage.places.bundle):
        kept, mode = path.read_bytes(), path.stat().st_mode & 0o777
        path.unlink()
        await stage.ticks.turn()
        assert str(path) in stage.words[-1]
        replace(path, kept, mode)
        await stage.ticks.turn()
    assert len(stage.failures) == 3 and stage.snapshots == []


@story
async def test_an_svid_for_another_workload_keeps_the_old_one(stage):
    stage.put(stage.authority.issue(WEB))
    await stage.ticks.turn()
    assert stage.snapshots == [] and f"is for {WEB!r}" in stage.words[0]


@both_loops
def test_without_an_expected_id_the_first_one_is_the_only_one(factory, tmp_path):
    async def play():
        stage = Stage(tmp_path, None)
        await stage.source.start()
        stage.watch()
        stage.put(stage.authority.issue(WEB))
        await stage.ticks.turn()
        assert stage.snapshots == [] and f"expected {ORDERS!r}" in stage.words[0]
        await stage.source.close()

    run_on(factory, play())


@story
async def test_a_new_svid_that_no_peer_would_accept_keeps_the_old_one(stage):
    for issued in (
        DemoAuthority().issue(ORDERS),
        stage.authority.issue(ORDERS, not_after=START - SECOND),
        stage.authority.issue(ORDERS, not_before=START + 600 * SECOND, not_after=START + 2 * HOUR),
    ):
        stage.put(issued)
        await stage.ticks.turn()
    assert stage.snapshots == []
    assert len(stage.failures) == 3 and all("own bundle" in each for each in stage.words)
    stage.clock.advance(1200)
    await stage.ticks.turn()
    assert [each.generation for each in stage.snapshots] == [2], "what was early is tried again"


@story
async def test_rel_8_a_bundle_that_becomes_empty_is_in_force_at_once(stage):
    stage.put_bundle(bundle_json())
    await stage.ticks.turn()
    await stage.ticks.turn()
    assert [each.bundles["demo.test"].authorities for each in stage.snapshots] == [()]
    assert len(stage.failures) == 1 and "own bundle" in stage.words[0]
    stage.put_bundle(bundle_json(stage.authority))
    await stage.ticks.turn()
    assert stage.snapshots[-1].generation == 3
    assert stage.snapshots[-1].bundles["demo.test"].authorities == (stage.authority.certificate,)


@story
async def test_an_authority_that_is_taken_out_is_trusted_no_more_whatever_becomes_of_the_own_svid(stage):
    other = DemoAuthority()
    stage.put_bundle(other.bundle_pem)
    await stage.ticks.turn()
    assert [each.bundles["demo.test"].authorities for each in stage.snapshots] == [(other.certificate,)]
    assert len(stage.failures) == 1
    stage.put_key(other.issue(ORDERS))
    stage.put_bundle(bundle_json())
    await stage.ticks.turn()
    assert stage.snapshots[-1].bundles["demo.test"].authorities == (), (
        "not even while the pair does not match"
    )


@story
async def test_rel_10_a_malformed_bundle_keeps_the_old_one_and_a_new_svid_comes_through(stage):
    for data in (
        b"{",
        b"{}",
        b"[]",
        b"\n",
        stage.authority.bundle_pem[:-40],
        bundle_json(stage.authority)[:-2],
    ):
        stage.put_bundle(data)
        await stage.ticks.turn()
    assert stage.snapshots == [] and len(stage.failures) >= 1
    assert all(str(stage.places.bundle) in each for each in stage.words)
    fresh = stage.authority.issue(ORDERS)
    stage.put(fresh)
    await stage.ticks.turn()
    assert [each.svid.chain for each in stage.snapshots] == [fresh.chain]
    assert stage.snapshots[0].bundles["demo.test"].authorities == (stage.authority.certificate,)


@story
async def test_a_rotation_of_the_authority_in_the_usual_order(stage):
    new = DemoAuthority()
    stage.put_bundle(bundle_json(stage.authority, new))
    await stage.ticks.turn()
    stage.put(new.issue(ORDERS))
    await stage.ticks.turn()
    stage.put_bundle(bundle_json(new))
    await stage.ticks.turn()
    assert [each.generation for each in stage.snapshots] == [2, 3, 4]
    assert stage.failures == []


@story
async def test_the_end_of_the_own_svid_is_told_once_and_a_new_one_is_taken(stage):
    stage.clock.advance(3600)
    await stage.ticks.turn()
    stage.clock.advance(60)
    await stage.ticks.turn()
    assert stage.snapshots == [] and len(stage.failures) == 1 and "own bundle" in stage.words[0]
    stage.put(stage.authority.issue(ORDERS, not_after=stage.clock.now() + timedelta(hours=1)))
    await stage.ticks.turn()
    assert len(stage.snapshots) == 1


@story
async def test_a_swap_behind_a_link_is_seen(stage):
    directory = stage.places.svid.parent
    for name in ("old", "new"):
        (directory / name).mkdir()
    for path in (stage.places.svid, stage.places.key, stage.places.bundle):
        os.rename(path, directory / "old" / path.name)
        path.symlink_to(f"..data/{path.name}")
    (directory / "..data").symlink_to("old")
    await stage.ticks.turn()
    assert stage.snapshots == [] and stage.failures == []
    fresh = stage.authority.issue(ORDERS)
    replace(directory / "new" / "svid.pem", fresh.chain_pem)
    replace(directory / "new" / "key.pem", fresh.key_pem, 0o600)
    replace(directory / "new" / "bundle.pem", stage.authority.bundle_pem)
    (directory / "..data_tmp").symlink_to("new")
    os.replace(directory / "..data_tmp", directory / "..data")
    await stage.ticks.turn()
    assert [each.svid.chain for each in stage.snapshots] == [fresh.chain]


@story
async def test_reload_looks_now(stage):
    stage.put(stage.authority.issue(ORDERS))
    await stage.source.reload()
    assert [each.generation for each in stage.snapshots] == [2]
    stage.put_bundle(b"{")
    await stage.source.reload()
    assert len(stage.failures) == 1
    await stage.source.reload()
    assert len(stage.failures) == 1


@story
async def test_a_snapshot_that_could_not_be_handed_over_is_handed_over_again(stage):
    taken = []

    def take(snapshot):
        taken.append(snapshot)
        if len(taken) == 1:
            raise ZeroDivisionError("no")

    stage.source.watch(take, stage.failures.append)
    stage.put(stage.authority.issue(ORDERS))
    await stage.ticks.turn()
    assert stage.words == ["looking for a new SVID failed: ZeroDivisionError: no"]
    await stage.ticks.turn()
    await stage.ticks.turn()
    assert [each.generation for each in taken] == [2, 2]


@pytest.mark.parametrize("kind", [ConfigurationError, IdentityError])
def test_what_is_raised_is_ours(kind, tmp_path):
    stage = Stage(tmp_path)
    if kind is ConfigurationError:
        stage.places.svid.unlink()
    else:
        stage.put(stage.authority.issue(WEB))
    assert type(asyncio.run(refused_start(stage))) is kind
