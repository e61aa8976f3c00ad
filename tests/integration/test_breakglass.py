"""Break-glass in the running program: made, approved, sent, used, ended, revoked, and everything that is refused."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.fakes.program import Program, request
from tests.fakes.service import RecordingService

pytestmark = pytest.mark.integration

DELETE = request("/orders/42", "DELETE")


@pytest.fixture(scope="module")
def keys(tmp_path_factory, domain):
    """oncall and lead, whose keys are in the signers file, and mallory, whose key is not."""
    directory = tmp_path_factory.mktemp("keys")
    tool = Program(directory / "tool", domain.identity("orders"), domain.policy(), "http://127.0.0.1:1")
    for name in ("oncall", "lead", "mallory"):
        done = tool.run_command("break-glass", "keygen", directory / name)
        assert done.returncode == 0, done.stderr
        assert (directory / name).stat().st_mode & 0o777 == 0o600
    signers = directory / "signers"
    signers.write_text((directory / "oncall.pub").read_text() + (directory / "lead.pub").read_text())
    signers.chmod(0o600)
    return directory


@pytest.fixture()
def program(tmp_path, domain, service, keys):
    signers = str(keys / "signers")
    with Program(
        tmp_path / "p",
        domain.identity("orders"),
        domain.policy(),
        service.url,
        SIDECAR_BREAK_GLASS_SIGNERS=signers,
    ) as program:
        yield program


def grant(program: Program, domain, key: Path, *more: str, ttl: str = "60s"):
    words = [
        "break-glass",
        "grant",
        "--to",
        str(domain.id("web")),
        "--allow",
        "DELETE /orders/*",
        "--for",
        ttl,
    ]
    return program.run_command(*words, "--reason", "INC-4711 stuck order", "--key", key, *more)


def made(program: Program, domain, key: Path, place: Path, *more: str, ttl: str = "60s") -> Path:
    done = grant(program, domain, key, "--out", str(place), *more, ttl=ttl)
    assert done.returncode == 0, done.stderr
    return place


def delete(program: Program, domain, name: str = "web"):
    return program.ask(domain.identity(name), DELETE, "DELETE")


def refused(program: Program, place: Path) -> str:
    """What ``send`` says of an order that is refused."""
    done = program.run_command("break-glass", "send", place)
    assert done.returncode == 3, (done.returncode, done.stdout, done.stderr)
    return done.stderr


def test_it_opens_what_it_names_for_whom_it_names(program, domain, keys, tmp_path):
    assert delete(program, domain).reason == "scope"
    assert grant(program, domain, keys / "oncall", "--send").returncode == 0
    assert delete(program, domain).status == 200
    web = domain.identity("web")
    assert program.ask(web, request("/orders/42/items", "DELETE"), "DELETE").reason == "scope"
    assert program.ask(web, request("/orders", "POST", body=b"x"), "POST").reason == "scope"
    assert delete(program, domain, "batch").reason == "scope"
    assert delete(program, domain, "stranger").reason == "unknown-identity"
    listed = json.loads(program.run_command("break-glass", "list", "--json").stdout)
    assert len(listed) == 1


def test_a_use_is_on_disk_before_the_call_goes_on(tmp_path, domain, keys):
    state = tmp_path / "p" / "state" / "audit"
    found = []

    def look(visit):
        visit.read_head()
        found.append(b"".join(path.read_bytes() for path in state.glob("*.jsonl")))
        visit.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    with RecordingService(look) as service:
        with Program(
            tmp_path / "p",
            domain.identity("orders"),
            domain.policy(),
            service.url,
            SIDECAR_BREAK_GLASS_SIGNERS=str(keys / "signers"),
        ) as program:
            assert grant(program, domain, keys / "oncall", "--send").returncode == 0
            answer = delete(program, domain)
            record = program.wait_for_records("call", 1)[0]
    assert answer.status == 200
    lines = [json.loads(line) for line in found[0].splitlines()]
    opened = [line for line in lines if line["event"] == "open"]
    assert [line["id"] for line in opened] == [record["id"]]
    assert opened[0]["outcome"] is None and opened[0]["decision"]["grant"]
    decision = record["decision"]
    assert (decision["effect"], decision["reason"], decision["lifted"]) == ("allow", "grant", ["scope"])
    assert decision["grant"] == opened[0]["decision"]["grant"] and decision["until"]


def test_it_ends_by_itself(program, domain, keys):
    assert grant(program, domain, keys / "oncall", "--send", ttl="2s").returncode == 0
    assert delete(program, domain).status == 200
    time.sleep(2.1)
    assert delete(program, domain).reason == "scope"


def test_a_call_that_is_open_is_cut_within_a_second_of_the_end(tmp_path, domain, keys):
    def slow(visit):
        visit.read_head()
        visit.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nx")
        visit.read_some()

    with RecordingService(slow) as service:
        with Program(
            tmp_path / "p",
            domain.identity("orders"),
            domain.policy(),
            service.url,
            SIDECAR_BREAK_GLASS_SIGNERS=str(keys / "signers"),
        ) as program:
            assert grant(program, domain, keys / "oncall", "--send", ttl="3s").returncode == 0
            ends = time.monotonic() + 3
            with program.link(domain.identity("web")) as link:
                link.send(DELETE)
                link.read_to_end()
                assert time.monotonic() < ends + 1.2
            record = program.wait_for_records("call", 1)[0]
    assert record["outcome"]["cut"] and record["decision"]["grant"]


def test_a_revocation_holds_on_the_next_call_and_for_ever(program, domain, keys, tmp_path):
    place = made(program, domain, keys / "oncall", tmp_path / "g.bg")
    assert program.run_command("break-glass", "send", place).returncode == 0
    assert delete(program, domain).status == 200
    grant_id = json.loads(program.run_command("break-glass", "list", "--json").stdout)[0]["grant"]
    done = program.run_command("break-glass", "revoke", grant_id, "--key", keys / "lead")
    assert done.returncode == 0, done.stderr
    assert delete(program, domain).reason == "scope"
    refused(program, place)
    assert delete(program, domain).reason == "scope"
    assert program.stop() == 0
    program.start()
    assert delete(program, domain).reason == "scope"
    refused(program, place)


def test_a_replay_changes_nothing(program, domain, keys, tmp_path):
    place = made(program, domain, keys / "oncall", tmp_path / "g.bg", ttl="3s")
    ends = time.monotonic() + 3.1
    for _ in range(3):
        assert program.run_command("break-glass", "send", place).returncode == 0
    assert len(json.loads(program.run_command("break-glass", "list", "--json").stdout)) == 1
    time.sleep(max(0.0, ends - time.monotonic()))
    assert delete(program, domain).reason == "scope"
    program.run_command("break-glass", "send", place)
    assert delete(program, domain).reason == "scope"


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_it_survives_a_restart(program, domain, keys, how):
    assert grant(program, domain, keys / "oncall", "--send").returncode == 0
    if how == "stop":
        assert program.stop() == 0
    else:
        program.signal(signal.SIGKILL)
        program.wait()
    program.start()
    assert delete(program, domain).status == 200


def test_a_forged_one_is_refused(program, domain, keys, tmp_path):
    assert "signer" in refused(program, made(program, domain, keys / "mallory", tmp_path / "m.bg"))
    good = made(program, domain, keys / "oncall", tmp_path / "g.bg").read_bytes()
    place = tmp_path / "changed.bg"
    for index in range(0, len(good), max(1, len(good) // 25)):
        place.write_bytes(good[:index] + bytes([good[index] ^ 1]) + good[index + 1 :])
        refused(program, place)
    for data in (b"", b"\x00", good[:-1], good + b"\x00", b"x" * 20_000, b"x" * 100_000):
        place.write_bytes(data)
        assert program.run_command("break-glass", "send", place).returncode in (2, 3)
    assert delete(program, domain).reason == "scope"
    assert program.metric("sidecar_grant_events_total", result="refused") >= 20


def test_a_stretched_one_is_refused(program, domain, keys, tmp_path):
    done = grant(program, domain, keys / "oncall", "--out", str(tmp_path / "long.bg"), ttl="3h")
    if done.returncode == 0:
        refused(program, tmp_path / "long.bg")
    else:
        assert done.returncode in (2, 3)
    assert grant(program, domain, keys / "oncall", "--out", str(tmp_path / "x.bg"), ttl="5h").returncode != 0


def test_an_expired_one_is_refused(program, domain, keys, tmp_path):
    place = made(program, domain, keys / "oncall", tmp_path / "g.bg", ttl="1s")
    time.sleep(1.1)
    assert "end" in refused(program, place) or "expired" in refused(program, place)


def test_one_for_another_sidecar_is_refused(program, domain, keys, tmp_path):
    place = made(program, domain, keys / "oncall", tmp_path / "g.bg", "--audience", str(domain.id("billing")))
    assert "audience" in refused(program, place) or "sidecar" in refused(program, place)


def test_uses_are_counted_exactly(program, domain, keys):
    assert grant(program, domain, keys / "oncall", "--send", "--max-uses", "2").returncode == 0
    assert [delete(program, domain).status for _ in range(4)] == [200, 200, 403, 403]


def test_without_signers_every_grant_is_refused(tmp_path, domain, service, keys):
    with Program(tmp_path / "p", domain.identity("orders"), domain.policy(), service.url) as program:
        place = made(program, domain, keys / "oncall", tmp_path / "g.bg")
        refused(program, place)
        assert delete(program, domain).reason == "scope"


def test_two_people_where_two_are_asked_for(tmp_path, domain, service, keys):
    settings = {
        "SIDECAR_BREAK_GLASS_SIGNERS": str(keys / "signers"),
        "SIDECAR_BREAK_GLASS_APPROVALS": "2",
    }
    with Program(
        tmp_path / "p", domain.identity("orders"), domain.policy(), service.url, **settings
    ) as program:
        place = made(program, domain, keys / "oncall", tmp_path / "g.bg")
        refused(program, place)
        own = program.run_command("break-glass", "approve", place, "--key", keys / "oncall")
        assert own.returncode != 0, "BG-3: the requester approves"
        refused(program, place)
        approved = program.run_command("break-glass", "approve", place, "--key", keys / "lead")
        assert approved.returncode == 0, approved.stderr
        assert program.run_command("break-glass", "send", place).returncode == 0
        assert delete(program, domain).status == 200


def test_what_it_never_lifts(tmp_path, domain, service, keys):
    policy = domain.policy(extra={"web": "rate: 2/h", "batch": "expires: 2020-01-01"})
    settings = {"SIDECAR_BREAK_GLASS_SIGNERS": str(keys / "signers")}
    with Program(tmp_path / "p", domain.identity("orders"), policy, service.url, **settings) as program:
        assert grant(program, domain, keys / "oncall", "--send").returncode == 0
        web = domain.identity("web")
        bad = request("/orders/..%2f42", "DELETE")
        assert program.ask(web, bad, "DELETE").status == 400
        assert [delete(program, domain).status for _ in range(3)] == [200, 200, 429]
        assert delete(program, domain, "batch").reason == "identity-expired"


def test_everything_leaves_a_record_and_a_metric(program, domain, keys):
    assert grant(program, domain, keys / "oncall", "--send", ttl="2s").returncode == 0
    assert delete(program, domain).status == 200
    assert program.metric("sidecar_grants_active") == 1
    time.sleep(2.2)
    events = program.wait_for_records("grant", 1)
    assert {"submit", "begin", "use", "end"} <= {line["what"] for line in events}
    assert [line["what"] for line in events if not line.get("grant")] == ["begin"]
    program.wait_until(lambda: program.metric("sidecar_grants_active") == 0, "the grant has ended")
    assert "INC-4711" in json.dumps(program.records("grant"))
    assert program.run_command("audit", "verify", program.state / "audit").returncode == 0


@pytest.mark.parametrize("how", ["removed", "emptied"])
def test_rel_23_an_older_journal_without_the_log_that_would_tell_opens_nothing(program, domain, keys, how):
    assert grant(program, domain, keys / "oncall", "--send").returncode == 0
    assert delete(program, domain).status == 200
    grant_id = json.loads(program.run_command("break-glass", "list", "--json").stdout)[0]["grant"]
    assert program.stop() == 0
    before = (program.state / "grants.journal").read_bytes()
    program.start()
    assert program.run_command("break-glass", "revoke", grant_id, "--key", keys / "lead").returncode == 0
    assert program.stop() == 0
    (program.state / "grants.journal").write_bytes(before)
    if how == "removed":
        shutil.rmtree(program.state / "audit")
    else:
        for path in (program.state / "audit").glob("*.jsonl"):
            path.write_bytes(b"")
    program.start()
    assert delete(program, domain).reason == "scope"
    assert program.records("start")[0]["after"] == "lost"
    assert "void" in [line["what"] for line in program.records("grant")]
