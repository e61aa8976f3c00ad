"""The policy file in the running program: default deny, all mistakes at once, a bad file replaces nothing."""

from __future__ import annotations

import json
import signal

import pytest

from tests.fakes.program import Program, request

pytestmark = pytest.mark.integration

TEN_MISTAKES = """\
version: 2
ownrs: {}
owners:
  team: {contact: ""}
scopes:
  empty: []
  wild:
    - {methods: ["*"], paths: ["/x"]}
  bad:
    - {methods: [get], paths: ["orders", "/a*"]}
identities:
  - id: spiffe://demo.test/web
    owner: nobody
    kind: robot
    scopes: [missing]
    rate: fast
  - id: not-an-id
    owner: team
    kind: agent
    scopes: [wild]
"""


@pytest.fixture()
def program(tmp_path, domain, service):
    with Program(tmp_path, domain.identity("orders"), domain.policy(), service.url) as program:
        yield program


def test_what_no_line_permits_is_refused_with_its_reason_and_a_record(program, domain, service):
    web = domain.identity("web")
    seen = len(service.received)
    for data, method in ((request("/orders/42", "DELETE"), "DELETE"), (request("/admin"), "GET")):
        answer = program.ask(web, data, method)
        assert (answer.status, answer.reason) == (403, "scope")
        problem = json.loads(answer.body)
        assert problem["type"] == "urn:sidecar:problem:scope" and problem["status"] == 403
        assert problem["request_id"] == answer.headers["x-request-id"] == program.records("call")[-1]["id"]
        assert problem["title"] and problem["detail"] and problem["reason"] == "scope"
    assert len(service.received) == seen


def test_s09_a_workload_that_is_not_registered_is_refused(program, domain):
    answer = program.ask(domain.identity("stranger"), request())
    assert (answer.status, answer.reason) == (403, "unknown-identity")
    assert program.records("call")[-1]["decision"]["effect"] == "deny"


def test_a_refusal_is_on_disk_before_its_answer_is_out(program, domain):
    web = domain.identity("web")
    with program.link(web) as link:
        for count in range(1, 6):
            assert link.ask(request("/admin")).status == 403
            assert len(program.records("call")) >= count


def test_ten_mistakes_ten_messages_and_the_old_policy_stays(program, domain):
    web = domain.identity("web")
    program.policy.write_text(TEN_MISTAKES)
    checked = program.run_command("policy", "check", program.policy)
    assert checked.returncode == 2
    problems = checked.stderr.strip().splitlines()
    assert len(problems) >= 10, checked.stderr
    assert all(f"{program.policy}:" in line for line in problems)
    reload = program.run_command("reload")
    assert reload.returncode == 2
    assert len(reload.stderr.strip().splitlines()) >= 10
    assert program.ask(web, request()).status == 200
    program.signal(signal.SIGHUP)
    assert program.ask(web, request()).status == 200
    program.wait_until(
        lambda: program.metric("sidecar_policy_reloads_total", result="failed") == 2, "it is counted"
    )
    assert [line["result"] for line in program.records("policy")][-2:] == ["failed", "failed"]


def test_a_good_file_takes_effect_on_the_next_call_of_an_open_connection(program, domain):
    with program.link(domain.identity("web")) as link:
        assert link.ask(request("/orders/42", "DELETE")).status == 403
        before = program.records("call")[-1]["decision"]["policy"]
        program.policy.write_text(domain.policy(everything=("web",)))
        assert program.run_command("reload").returncode == 0
        assert link.ask(request("/orders/42", "DELETE")).status == 200
        program.policy.write_text(domain.policy())
        program.signal(signal.SIGHUP)
        program.wait_until(lambda: len(program.records("policy")) >= 2, "the policy is read")
        assert link.ask(request("/orders/42", "DELETE")).status == 403
    assert program.records("call")[-1]["decision"]["policy"] == before


def test_it_does_not_start_with_a_bad_policy(tmp_path, domain, service):
    program = Program(tmp_path, domain.identity("orders"), TEN_MISTAKES, service.url)
    program.start(wait=False)
    assert program.wait() == 2
    assert program.log_text().count("policy.yaml:") >= 10


def test_explain_says_what_the_program_does(program, domain):
    for method, path, status in (
        ("GET", "/orders/42", 0),
        ("DELETE", "/orders/42", 3),
        ("GET", "/orders/../x", 3),
    ):
        done = program.run_command(
            "explain", "--as", str(domain.id("web")), "--policy", program.policy, method, path
        )
        assert done.returncode == status, done.stdout + done.stderr
        data = request(path, method)
        assert (program.ask(domain.identity("web"), data, method).status == 200) == (status == 0)


def test_a_rate_that_is_used_up_is_429_with_a_time_to_come_back(tmp_path, domain, service):
    policy = domain.policy(extra={"web": "rate: 3/m"})
    with Program(tmp_path / "p", domain.identity("orders"), policy, service.url) as program:
        with program.link(domain.identity("web")) as link:
            answers = [link.ask(request()) for _ in range(5)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[3].reason == "rate" and 1 <= int(answers[3].headers["retry-after"]) <= 60


def test_a_purpose_that_is_not_declared_is_refused(tmp_path, domain, service):
    policy = domain.policy(extra={"web": "purposes: [checkout]"})
    with Program(tmp_path / "p", domain.identity("orders"), policy, service.url) as program:
        with program.link(domain.identity("web")) as link:
            assert link.ask(request()).reason == "purpose"
            assert link.ask(request("/orders/42", "GET", "Call-Purpose: other")).reason == "purpose"
            assert link.ask(request("/orders/42", "GET", "Call-Purpose: checkout")).status == 200
        record = program.wait_for_records("call", 3)[2]
    assert record["intent"]["purpose"] == "checkout"


def test_an_identity_that_has_ended_and_an_agent_without_a_task(tmp_path, domain, service):
    policy = domain.policy(extra={"web": "expires: 2020-01-01"}, agents=("agent",))
    with Program(tmp_path / "p", domain.identity("orders"), policy, service.url) as program:
        assert program.ask(domain.identity("web"), request()).reason == "identity-expired"
        assert program.ask(domain.identity("agent"), request()).reason == "task-required"
