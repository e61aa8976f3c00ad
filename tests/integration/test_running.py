"""Starting, asking, draining and ending the real program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.program import Program, request, surroundings
from tests.fakes.service import RecordingService

pytestmark = pytest.mark.integration


@pytest.fixture()
def program(tmp_path, domain, service):
    with Program(tmp_path / "p", domain.identity("orders"), domain.policy(), service.url) as program:
        yield program


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *words],
        env={**surroundings(), **variables},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_every_mistake_of_the_environment_is_told_at_once(tmp_path):
    done = run(
        "run",
        SIDECAR_LISTEN="nowhere",
        SIDECAR_UPSTREM="http://127.0.0.1:1",
        SIDECAR_IDENTITY="files",
        SIDECAR_DRAIN_DELAY="5",
        SIDECAR_STATE_DIR=str(tmp_path),
    )
    assert done.returncode == 2
    for part in ("SIDECAR_LISTEN", "did you mean SIDECAR_UPSTREAM", "SIDECAR_SVID_FILE", "SIDECAR_POLICY"):
        assert part in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) >= 6


def test_config_check_and_show(program):
    assert program.run_command("config", "check").returncode == 0
    shown = json.loads(program.run_command("config", "show", "--json").stdout)
    values = {each["name"]: each for each in shown}
    assert values["SIDECAR_UPSTREAM"]["origin"] == "environment"
    assert values["SIDECAR_HEAD_TIMEOUT"] == {
        "name": "SIDECAR_HEAD_TIMEOUT",
        "value": "10s",
        "origin": "default",
    }


def test_missing_and_broken_files_are_told_and_it_does_not_start(tmp_path, domain, service):
    own = domain.identity("orders")
    key = tmp_path / "other.pem"
    key.write_bytes(domain.identity("web").key.read_bytes())
    key.chmod(0o600)
    for name, value, word in (
        ("SIDECAR_SVID_FILE", str(tmp_path / "gone.pem"), "gone.pem"),
        ("SIDECAR_SVID_KEY_FILE", str(key), "key"),
        ("SIDECAR_SPIFFE_ID", "spiffe://demo.test/other", "spiffe://demo.test/other"),
        ("SIDECAR_BUNDLE_FILE", str(key), "other.pem"),
    ):
        program = Program(tmp_path / name, own, domain.policy(), service.url, **{name: value})
        program.start(wait=False)
        assert program.wait() != 0, name
        assert word in program.log_text(), (name, program.log_text())


def test_status_probe_and_pages(program, domain):
    program.ask(domain.identity("web"), request())
    status = json.loads(program.run_command("status", "--json").stdout)
    assert status["spiffe_id"] == str(domain.id("orders")) and status["ready"] is True
    assert status["policy"]["sha256"].startswith("sha256:")
    assert "spiffe://demo.test/orders" in program.run_command("status").stdout
    assert program.run_command("probe", "livez").returncode == 0
    assert program.run_command("probe", "readyz").returncode == 0
    assert program.get_status_page("/livez") == (200, "ok\n")
    code, text = program.get_status_page("/readyz?verbose")
    assert code == 200 and "[+]identity ok" in text
    families = {
        family.name for family in text_string_to_metric_families(program.get_status_page("/metrics")[1])
    }
    assert {"sidecar_requests", "sidecar_request_duration_seconds", "sidecar_policy_info"} <= families
    assert program.metric("sidecar_requests_total", code="200", effect="allow", reason="policy") == 1


def test_the_admin_socket_is_closed_to_others(program):
    assert (program.state / "admin.sock").stat().st_mode & 0o777 == 0o600
    assert program.state.stat().st_mode & 0o777 == 0o700


def test_a_state_directory_that_others_may_write_to_is_refused(tmp_path, domain, service):
    state = tmp_path / "open"
    state.mkdir()
    state.chmod(0o777)
    program = Program(
        tmp_path / "p", domain.identity("orders"), domain.policy(), service.url, SIDECAR_STATE_DIR=str(state)
    )
    program.start(wait=False)
    assert program.wait() in (1, 2)
    assert "may be written by others" in program.log_text()


def test_rel_1_calls_in_flight_at_sigterm_all_end_well(tmp_path, domain):
    begun, go = threading.Semaphore(0), threading.Event()

    def slow(visit):
        while visit.read_head():
            begun.release()
            go.wait(10)
            visit.send(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n")

    with RecordingService(slow) as service:
        program = Program(
            tmp_path / "p",
            domain.identity("orders"),
            domain.policy(),
            service.url,
            SIDECAR_DRAIN_DELAY="500ms",
            SIDECAR_DRAIN_DEADLINE="10s",
        )
        program.start()
        web = domain.identity("web")
        links = [program.link(web) for _ in range(40)]
        for link in links:
            link.send(request())
        for _ in links:
            begun.acquire(timeout=10)
        program.signal(signal.SIGTERM)
        program.wait_until(lambda: program.get_status_page("/readyz")[0] == 503, "it is not ready any more")
        assert program.get_status_page("/livez")[0] == 200
        go.set()
        late = program.link(web)
        assert late.ask(request()).status == 200, "during the delay it goes on accepting"
        for link in links:
            answer = link.read_answer()
            assert answer.status == 200
            link.close()
        late.close()
        assert program.wait() == 0
    assert len(program.records("call")) == 41


def test_rel_2_a_call_that_never_ends_is_cut_at_the_deadline(tmp_path, domain):
    def never(visit):
        visit.read_head()
        visit.send(b"HTTP/1.1 200 OK\r\n\r\n")
        visit.read_some()

    with RecordingService(never) as service:
        program = Program(
            tmp_path / "p",
            domain.identity("orders"),
            domain.policy(),
            service.url,
            SIDECAR_DRAIN_DEADLINE="500ms",
        )
        program.start()
        with program.link(domain.identity("web")) as link:
            link.send(request())
            link.read_some()
            began = time.monotonic()
            program.signal(signal.SIGTERM)
            assert program.wait() == 1
            assert time.monotonic() - began < 4
    record = program.records("call")[0]
    assert record["outcome"]["cut"] == "draining"
    assert program.run_command("audit", "verify", program.state / "audit").returncode == 0


def test_a_second_sigterm_does_not_wait(tmp_path, domain, service):
    program = Program(
        tmp_path / "p", domain.identity("orders"), domain.policy(), service.url, SIDECAR_DRAIN_DELAY="60s"
    )
    program.start()
    program.signal(signal.SIGTERM)
    program.wait_until(lambda: program.get_status_page("/readyz")[0] == 503, "it drains")
    program.signal(signal.SIGTERM)
    assert program.wait(5) == 0


def test_drain_by_command(program):
    assert program.run_command("drain").returncode == 0
    assert program.wait() == 0


def test_rel_4_a_reload_during_drain_changes_nothing(tmp_path, domain, service):
    program = Program(
        tmp_path / "p", domain.identity("orders"), domain.policy(), service.url, SIDECAR_DRAIN_DELAY="1s"
    )
    program.start()
    program.signal(signal.SIGTERM)
    program.signal(signal.SIGHUP)
    assert program.wait() == 0


def test_rel_5_a_rotation_under_load_fails_no_call(program, domain):
    from tests.fakes.program import Identity

    own = domain.identity("orders")
    stop = threading.Event()
    statuses: list[int] = []

    def load():
        while not stop.is_set():
            with program.link(domain.identity("web")) as link:
                for _ in range(20):
                    statuses.append(link.ask(request()).status)

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(3):
            fresh: Identity = domain.identity("orders", fresh=number + 1)
            own.svid.with_suffix(".new").write_bytes(fresh.svid.read_bytes())
            new_key = own.key.with_suffix(".new")
            new_key.write_bytes(fresh.key.read_bytes())
            new_key.chmod(0o600)
            os.replace(own.svid.with_suffix(".new"), own.svid)
            time.sleep(0.05)  # between the two the pair does not match: the old one has to stay
            os.replace(new_key, own.key)
            program.wait_until(
                lambda number=number: (
                    program.metric("sidecar_svid_rotations_total", result="ok") >= number + 1
                ),
                "the new SVID is in force",
            )
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert len(statuses) > 100 and set(statuses) == {200}


def test_rel_8_a_bundle_that_becomes_empty_ends_what_rests_on_it(tmp_path, domain, service):
    bundle = tmp_path / "bundle.json"
    bundle.write_text(domain.json_bundle())
    with Program(
        tmp_path / "p",
        domain.identity("orders"),
        domain.policy(),
        service.url,
        SIDECAR_BUNDLE_FILE=str(bundle),
    ) as program:
        web = domain.identity("web")
        with program.link(web) as link:
            assert link.ask(request()).status == 200
            bundle.write_text('{"keys": []}')
            program.wait_until(lambda: len(program.records("svid")) >= 1, "the bundle is taken over")
            assert link.is_closed_by_peer(3)
        with pytest.raises((OSError, AssertionError)):
            program.ask(web, request())


def test_a_port_that_is_taken_is_told(tmp_path, domain, service, program):
    second = Program(
        tmp_path / "second",
        domain.identity("orders"),
        domain.policy(),
        service.url,
        SIDECAR_LISTEN=f"127.0.0.1:{program.port}",
    )
    second.start(wait=False)
    assert second.wait() in (1, 2)
    assert str(program.port) in second.log_text()


def test_a_service_that_others_can_reach_is_warned_of(tmp_path, domain):
    import socket

    from sidecar.app.bypass import local_addresses

    if not local_addresses():
        pytest.skip("this machine has no address but loopback")
    with socket.create_server(("0.0.0.0", 0)) as open_to_all:
        port = open_to_all.getsockname()[1]
        with Program(
            tmp_path / "p", domain.identity("orders"), domain.policy(), f"http://127.0.0.1:{port}"
        ) as program:
            program.wait_until(lambda: "around the sidecar" in program.log_text(), "the warning is logged")


def test_nothing_secret_is_in_any_output(program, domain):
    program.ask(
        domain.identity("web"), request("/orders/42?token=canary-7f3a", "GET", "Authorization: canary-7f3a")
    )
    program.wait_for_records("call", 1)
    texts = [program.log_text(), program.get_status_page("/metrics")[1], json.dumps(program.records())]
    texts += [
        program.run_command(*words).stdout for words in (("status",), ("config", "show"), ("audit", "tail"))
    ]
    key = domain.identity("orders").key.read_text().splitlines()[1]
    assert all("canary-7f3a" not in text and key not in text for text in texts)


def test_a_service_log_that_nobody_reads_holds_up_no_call(tmp_path, domain, service):
    program = Program(tmp_path / "p", domain.identity("orders"), domain.policy(), service.url)
    reader, writer = os.pipe()
    with open(reader), open(writer, "wb") as pipe:
        program.start(output=pipe)
        for _ in range(150):  # each tells of a broken policy; far more than the pipe holds
            program.policy.write_text("version: 1\n" + "x: " + "y" * 2000 + "\n")
            program.signal(signal.SIGHUP)
            assert program.get_status_page("/livez")[0] == 200
        assert program.ask(domain.identity("web"), request()).status == 200
        began = time.monotonic()
        assert program.stop() == 0
        assert time.monotonic() - began < 8
