"""The log of the running program: whole, proven, and a condition for every call."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time

import pytest

from tests.fakes.program import Program, request

pytestmark = pytest.mark.integration


@pytest.fixture()
def program(tmp_path, domain, service):
    with Program(tmp_path / "p", domain.identity("orders"), domain.policy(), service.url) as program:
        yield program


def test_s37_a_record_has_all_groups(program, domain):
    answer = program.ask(domain.identity("web"), request("/orders/42?secret=canary-7f3a"))
    record = program.wait_for_records("call", 1)[0]
    assert list(record) == [
        "v", "seq", "event", "ts", "id", "caller", "intent", "decision", "outcome", "trace", "prev",
    ]  # fmt: skip
    assert record["v"] == 1 and record["id"] == answer.headers["x-request-id"]
    caller = record["caller"]
    assert (
        caller["id"] == str(domain.id("web")) and caller["via"] == "mtls" and caller["source"] == "127.0.0.1"
    )
    assert caller["owner"] == "team-shop" and caller["kind"] == "service" and caller["serial"]
    assert record["intent"] | {"purpose": None, "task": None} == {
        "method": "GET", "path": "/orders/42", "route": "/orders/**", "scope": "orders:read", "purpose": None,
        "task": None,
    }  # fmt: skip
    decision = record["decision"]
    assert (decision["effect"], decision["reason"], decision["grant"]) == ("allow", "policy", None)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", decision["policy"])
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", decision["until"])
    outcome = record["outcome"]
    assert (outcome["status"], outcome["sent"], outcome["upstream"]) == (200, 3, "ok")
    assert 0 < outcome["duration_us"] < 5_000_000
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", record["trace"])
    assert "canary-7f3a" not in json.dumps(program.records())


def test_the_log_of_a_clean_run_verifies_with_its_key(program, domain):
    with program.link(domain.identity("web")) as link:
        for _ in range(300):
            assert link.ask(request()).status == 200
    assert program.stop() == 0
    done = program.run_command(
        "audit", "verify", program.state / "audit", "--key", program.state / "audit.pub"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    calls = program.records("call")
    assert len(calls) == 300 and len({call["id"] for call in calls}) == 300
    lines = program.records()
    assert [line["seq"] for line in lines] == list(range(lines[0]["seq"], lines[0]["seq"] + len(lines)))
    assert lines[0]["prev"] is None and lines[0]["event"] == "start"
    assert sum(line["event"] == "checkpoint" for line in lines) >= 2


@pytest.mark.parametrize("how", ["change", "remove", "swap"])
def test_a_log_that_was_changed_does_not_verify(program, domain, how):
    for _ in range(5):
        program.ask(domain.identity("web"), request())
    assert program.stop() == 0
    path = program.state / "audit" / "00000001.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    index = next(index for index, line in enumerate(lines) if b'"event":"call"' in line)
    if how == "change":
        lines[index] = lines[index].replace(b'"status":200', b'"status":201')
    elif how == "remove":
        del lines[index]
    else:
        lines[index], lines[index + 1] = lines[index + 1], lines[index]
    path.write_bytes(b"".join(lines))
    done = program.run_command(
        "audit", "verify", program.state / "audit", "--key", program.state / "audit.pub"
    )
    assert done.returncode == 3
    assert re.search(rf"\b{index + 1}\b|\b{index + 2}\b", done.stdout + done.stderr), (
        done.stdout + done.stderr
    )


def test_rel_22_killed_in_the_middle_it_goes_on_and_says_so(program, domain):
    for _ in range(3):
        with program.link(domain.identity("web")) as link:
            for _ in range(20):
                assert link.ask(request()).status == 200
            assert link.ask(request("/admin")).status == 403
        program.signal(signal.SIGKILL)
        program.wait()
        program.start()
    assert program.stop() == 0
    done = program.run_command(
        "audit", "verify", program.state / "audit", "--key", program.state / "audit.pub"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    refusals = [line for line in program.records("call") if line["decision"]["effect"] == "deny"]
    assert len(refusals) == 3, "a refusal is on disk before its answer"
    assert len(program.records("start")) == 4


def test_rel_24_a_torn_last_line_is_cut_back_and_recorded(program, domain):
    program.ask(domain.identity("web"), request())
    program.signal(signal.SIGKILL)
    program.wait()
    path = sorted((program.state / "audit").glob("*.jsonl"))[-1]
    with path.open("ab") as log:
        log.write(b'{"v":1,"seq":99,"event":"ca')
    program.start()
    recovered = program.records("recovered")
    assert len(recovered) == 1 and 27 in recovered[0].values()
    assert program.stop() == 0
    assert program.run_command("audit", "verify", program.state / "audit").returncode == 0


def test_an_audit_directory_that_cannot_be_written_lets_nothing_through_at_start(tmp_path, domain, service):
    blocked = tmp_path / "file"
    blocked.write_text("")
    program = Program(
        tmp_path / "p",
        domain.identity("orders"),
        domain.policy(),
        service.url,
        SIDECAR_AUDIT=f"file:{blocked}/audit",
    )
    program.start(wait=False)
    assert program.wait() in (1, 2)
    assert str(blocked) in program.log_text()


def full_disk(directory) -> bool:
    """Whether a file system of 20 MB could be mounted there, to be filled."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    directory.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=20m,mode=0700", "tmpfs", str(directory)]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def test_rel_18_a_full_disk_refuses_calls_and_room_brings_them_back(tmp_path, domain, service):
    disk = tmp_path / "disk"
    if not full_disk(disk):
        pytest.skip("needs root and the right to mount a file system")
    try:
        with Program(
            tmp_path / "p",
            domain.identity("orders"),
            domain.policy(),
            service.url,
            SIDECAR_AUDIT=f"file:{disk}/audit",
        ) as program:
            web = domain.identity("web")
            assert program.ask(web, request()).status == 200
            filler = disk / "filler"
            with filler.open("wb", buffering=0) as file:
                try:
                    while file.write(b"x" * 65536):
                        pass
                except OSError:
                    pass
            seen = []

            def refuses() -> bool:
                before = len(service.received)
                answer = program.ask(web, request())
                seen.append(answer.status)
                if answer.status == 503:
                    assert answer.reason == "audit-unavailable"
                    assert len(service.received) == before
                # the reserve is given back to the disk at the first failure; what it frees is filled as well
                with filler.open("ab", buffering=0) as more:
                    try:
                        while more.write(b"x" * 4096):
                            pass
                    except OSError:
                        pass
                return answer.status == 503

            program.wait_until(refuses, "calls are refused")
            assert program.get_status_page("/readyz")[0] == 503
            assert program.get_status_page("/livez")[0] == 200
            filler.unlink()
            program.wait_until(lambda: program.ask(web, request()).status == 200, "it serves again")
            assert program.stop() == 0
            lines = [
                json.loads(line) for path in sorted((disk / "audit").glob("*.jsonl")) for line in path.open()
            ]
            assert any(line["event"] == "gap" for line in lines)
            served = [
                line["id"] for line in lines if line["event"] == "call" and line["outcome"]["status"] == 200
            ]
            assert len(served) == seen.count(200) + 2 or len(served) >= seen.count(200) + 2
            assert program.run_command("audit", "verify", disk / "audit").returncode == 0
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def test_two_sidecars_do_not_write_one_log(program, domain, service, tmp_path):
    second = Program(
        tmp_path / "second",
        domain.identity("orders"),
        domain.policy(),
        service.url,
        SIDECAR_STATE_DIR=str(program.state),
    )
    second.start(wait=False)
    assert second.wait() in (1, 2)
    assert program.ask(domain.identity("web"), request()).status == 200


def test_d31_refusals_are_summed_and_allows_never(program, domain):
    web = domain.identity("web")
    with program.link(web) as link:
        link.send(request("/admin") * 1500)
        for _ in range(1500):
            assert link.read_answer().status == 403
    assert program.stop() == 0
    refusals = [line for line in program.records("call") if line["decision"]["effect"] == "deny"]
    summed = program.records("denials")
    assert len(refusals) < 1500
    assert len(refusals) + sum(line["count"] for line in summed) == 1500


def test_a_copy_goes_to_stdout(tmp_path, domain, service):
    with Program(
        tmp_path / "p", domain.identity("orders"), domain.policy(), service.url, SIDECAR_AUDIT="file,stdout"
    ) as program:
        assert program.ask(domain.identity("web"), request()).status == 200
        program.wait_for_records("call", 1)
        time.sleep(0.3)
        assert program.stop() == 0
        lines = [line for line in program.log.read_bytes().splitlines() if b'"event":"call"' in line]
        stored = (program.state / "audit" / "00000001.jsonl").read_bytes().splitlines()
    assert len(lines) == 1 and lines[0] in stored


def test_tail_shows_the_last_records(program, domain):
    program.ask(domain.identity("web"), request("/admin"))
    done = program.run_command("audit", "tail", "-n", "3")
    assert done.returncode == 0 and "scope" in done.stdout and str(domain.id("web")) in done.stdout
