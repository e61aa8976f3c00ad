"""The issuer as a real process, and the source that keeps it as a child."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import textwrap
import time

import pytest

from sidecar.clock import SYSTEM_CLOCK
from sidecar.errors import ConfigurationError, SidecarError
from sidecar.identity.spiffe_id import parse_spiffe_id
from sidecar.issuer.store import open_store
from sidecar.settings import load_settings
from sidecar.sources import load_source
from sidecar.sources.places import issued_places
from sidecar.sources.reading import read_bundles, read_svid, verify_own
from tests.fakes.loops import both_loops, run_on
from tests.fakes.program import surroundings

pytestmark = pytest.mark.integration

WEB = parse_spiffe_id("spiffe://shop.test/web")
ORDERS = parse_spiffe_id("spiffe://shop.test/orders")
WAIT_S = 15.0


def sidecar(*words) -> list[str]:
    return [sys.executable, "-m", "sidecar", *map(str, words)]


def run(*words) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        sidecar(*words), env=surroundings(), capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def wait_until(holds, what: str, timeout_s: float = WAIT_S) -> float:
    """How long it took, in seconds."""
    began_s = time.monotonic()
    while not holds():
        assert time.monotonic() - began_s < timeout_s, f"waited in vain until {what}"
        time.sleep(0.01)
    return time.monotonic() - began_s


def is_running(pid: int) -> bool:
    """Whether the process is there and no zombie that nobody has asked for."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Issuers:
    """Issuer processes on one directory; all of them are gone at the end."""

    def __init__(self, directory) -> None:
        self.directory = directory
        self.processes: list[subprocess.Popen[str]] = []
        run("issuer", "init", "--trust-domain", "shop.test", "--dir", directory)

    def start(self, *words, **options) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            sidecar("issuer", "run", "--dir", self.directory, *words),
            env=surroundings(),
            stderr=subprocess.PIPE,
            text=True,
            **{"stdin": subprocess.DEVNULL, **options},
        )
        self.processes.append(process)
        return process

    def read(self, spiffe_id=WEB):
        """What a reader takes: it tries again when it meets a pair in the middle of its renewal."""
        places = issued_places(self.directory, spiffe_id)
        for _ in range(5):
            try:
                svid = read_svid(places, spiffe_id)
                verify_own(svid, read_bundles(places.bundle, "shop.test"), SYSTEM_CLOCK.now())
                return svid
            except SidecarError as exc:
                error = exc
                time.sleep(0.02)
        raise error

    def has(self, spiffe_id=WEB) -> bool:
        return issued_places(self.directory, spiffe_id).svid.exists()

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stderr):
                if stream is not None:
                    stream.close()


@pytest.fixture()
def issuers(tmp_path):
    issuers = Issuers(tmp_path / "issuer")
    yield issuers
    issuers.stop()


def test_an_entry_gets_a_certificate_that_a_tls_library_takes(issuers):
    run("issuer", "entry", "add", WEB, "--dir", issuers.directory)
    process = issuers.start()
    wait_until(issuers.has, "the SVID is written")
    assert issuers.read().spiffe_id == WEB
    places = issued_places(issuers.directory, WEB)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=places.bundle)
    context.load_cert_chain(places.svid, places.key)
    process.terminate()
    _, err = process.communicate(timeout=5)
    assert process.returncode == 0
    lines = [json.loads(line) for line in err.splitlines()]
    assert [line["spiffe_id"] for line in lines if line["message"] == "SVID issued"] == [str(WEB)]
    assert "PRIVATE" not in err


def test_entries_come_and_go_within_a_second(issuers):
    process = issuers.start()
    wait_until(lambda: "issuing" in process.stderr.readline(), "it issues")
    run("issuer", "entry", "add", WEB, "--dir", issuers.directory)
    assert wait_until(issuers.has, "the new entry has an SVID") < 1.5
    run("issuer", "entry", "remove", WEB, "--dir", issuers.directory)
    assert wait_until(lambda: not issuers.has(), "the removed entry has none") < 1.5


def test_renewals_are_seen_by_a_reader_that_never_meets_a_mixture_for_long(issuers):
    issuers.start("--entry", str(WEB), "--leaf-ttl", "10s")
    wait_until(issuers.has, "the SVID is written")
    serials = set()

    def renewed() -> bool:
        serials.add(issuers.read().serial)
        return len(serials) == 2

    took_s = wait_until(renewed, "it was renewed")
    assert 3 < took_s < 8, "about half of its life"


def test_a_second_process_stands_by_and_takes_over_when_the_first_is_killed(issuers):
    first = issuers.start("--entry", str(WEB))
    wait_until(issuers.has, "the first issues")
    second = issuers.start("--entry", str(ORDERS))
    wait_until(lambda: issuers.has(ORDERS), "the first issues to the second's entry")
    assert "standing by" in next(line for line in second.stderr if "standing" in line)
    serial = issuers.read().serial
    os.kill(first.pid, signal.SIGKILL)
    assert wait_until(lambda: "issuing" in second.stderr.readline(), "the second issues") < 2
    run("issuer", "entry", "add", "spiffe://shop.test/third", "--dir", issuers.directory)
    wait_until(lambda: issuers.has(parse_spiffe_id("spiffe://shop.test/third")), "the second issues", 3)
    assert issuers.read().serial == serial, "what was good stays"


def test_a_tied_process_ends_with_its_parent_s_end_of_the_pipe(issuers):
    process = issuers.start("--tied", "--entry", str(WEB), stdin=subprocess.PIPE)
    wait_until(issuers.has, "it issues")
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.2)
    assert process.poll() is None, "an interrupt at the terminal is the parent's to act on"
    process.stdin.close()
    assert process.wait(5) == 0


def test_killed_over_and_over_it_leaves_nothing_that_a_reader_could_not_use(issuers):
    ids = [parse_spiffe_id(f"spiffe://shop.test/w{number}") for number in range(20)]
    for each in ids:
        open_store(issuers.directory).add(each, SYSTEM_CLOCK)
    for round_ in range(8):
        process = issuers.start(
            "--leaf-ttl", f"{60 - round_}s"
        )  # each lifetime is shorter: all is issued anew
        wait_until(lambda process=process: "SVID issued" in process.stderr.readline(), "it began")
        time.sleep(0.003 * round_)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    run("issuer", "run", "--once", "--leaf-ttl", "10s", "--dir", issuers.directory)
    assert all(issuers.read(each) for each in ids)
    assert not list(issuers.directory.rglob("+tmp-*"))


def settings_for(directory, spiffe_id=WEB):
    return load_settings(
        {
            "SIDECAR_POLICY": "/p",
            "SIDECAR_IDENTITY": "embedded",
            "SIDECAR_SPIFFE_ID": str(spiffe_id),
            "SIDECAR_ISSUER_DIR": str(directory),
            "SIDECAR_STATE_DIR": str(directory.parent),
        }
    )


def children(directory) -> list[int]:
    """The issuer processes on this directory, wherever they come from."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            continue
        if str(directory).encode() in words and b"issuer" in words and is_running(int(name)):
            found.append(int(name))
    return found


@both_loops
def test_the_embedded_source_makes_all_it_needs_and_leaves_no_process(factory, tmp_path):
    directory = tmp_path / "state" / "issuer"

    async def play():
        source = load_source("embedded", settings_for(directory), SYSTEM_CLOCK)
        snapshot = await source.start()
        assert snapshot.svid.spiffe_id == WEB and list(snapshot.bundles) == ["shop.test"]
        source.watch(lambda snapshot: None, lambda error: None)
        assert len(children(directory)) == 1
        await source.close()
        assert children(directory) == []

    run_on(factory, play())
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_two_sources_share_a_directory_and_each_outlives_the_other(tmp_path):
    directory = tmp_path / "issuer"

    async def play():
        sources = [
            load_source("embedded", settings_for(directory, each), SYSTEM_CLOCK) for each in (WEB, ORDERS)
        ]
        snapshots = await asyncio.gather(*(source.start() for source in sources))
        assert [each.svid.spiffe_id for each in snapshots] == [WEB, ORDERS]
        assert snapshots[0].bundles == snapshots[1].bundles
        await sources[0].close()
        third = parse_spiffe_id("spiffe://shop.test/third")
        await asyncio.to_thread(run, "issuer", "entry", "add", third, "--dir", directory)
        await asyncio.to_thread(
            wait_until, issued_places(directory, third).svid.exists, "the other issues", 5
        )
        await sources[1].close()

    asyncio.run(play())
    assert children(directory) == []


def test_a_child_that_was_killed_is_told_and_replaced(tmp_path):
    directory = tmp_path / "issuer"

    async def play():
        source = load_source("embedded", settings_for(directory), SYSTEM_CLOCK)
        await source.start()
        told: asyncio.Queue[SidecarError] = asyncio.Queue()
        source.watch(lambda snapshot: None, told.put_nowait)
        (pid,) = children(directory)
        os.kill(pid, signal.SIGKILL)
        assert "signal 9" in str(await asyncio.wait_for(told.get(), 5))
        await asyncio.to_thread(wait_until, lambda: children(directory), "there is another", 5)
        await source.close()

    asyncio.run(play())
    assert children(directory) == []


def test_an_authority_of_another_trust_domain_fails_the_start(tmp_path):
    directory = tmp_path / "issuer"
    run("issuer", "init", "--trust-domain", "other.test", "--dir", directory)

    async def play():
        source = load_source("embedded", settings_for(directory), SYSTEM_CLOCK)
        with pytest.raises(ConfigurationError, match="exit code 2"):
            await source.start()
        await source.close()

    asyncio.run(play())


PARENT = """
import asyncio, os, sys
from sidecar.clock import SYSTEM_CLOCK
from sidecar.settings import load_settings
from sidecar.sources import load_source

opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)

async def main():
    source = load_source("embedded", load_settings({key: value for key, value in os.environ.items() if "SIDECAR_" in key}), SYSTEM_CLOCK)
    await source.start()
    source.watch(lambda snapshot: None, lambda error: None)
    await source.reload()
    assert any("svid_key.pem" in path for path in opened)
    print([path for path in opened if "authority" in path], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_the_child_does_not_outlive_a_killed_parent_which_never_opened_the_authority(tmp_path):
    directory = tmp_path / "issuer"
    environment = {
        "SIDECAR_POLICY": "/p",
        "SIDECAR_IDENTITY": "embedded",
        "SIDECAR_SPIFFE_ID": str(WEB),
        "SIDECAR_ISSUER_DIR": str(directory),
    }
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT)],
        env={**surroundings(), **environment},
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        try:
            assert parent.stdout.readline() == "[]\n"
            (child,) = children(directory)
        finally:
            parent.kill()
    wait_until(lambda: not is_running(child), "the child has ended", 5)


def test_the_working_directory_does_not_pass_for_this_package(tmp_path, monkeypatch):
    (tmp_path / "sidecar").mkdir()
    (tmp_path / "sidecar" / "__init__.py").touch()
    (tmp_path / "sidecar" / "__main__.py").write_text("open('taken', 'w').close(); raise SystemExit(1)")
    monkeypatch.chdir(tmp_path)

    async def play():
        source = load_source("embedded", settings_for(tmp_path / "issuer"), SYSTEM_CLOCK)
        await source.start()
        await source.close()

    asyncio.run(play())
    assert not (tmp_path / "taken").exists()
