"""A service that is down, slow, or talks nonsense: 503, 504, 502, each in the record, and nobody is left hanging."""

from __future__ import annotations

import socket
import struct
import time

import pytest

from tests.fakes.program import Program, free_ports, request
from tests.fakes.service import OK, RecordingService

pytestmark = pytest.mark.integration

QUICK = {
    "SIDECAR_UPSTREAM_CONNECT_TIMEOUT": "500ms",
    "SIDECAR_UPSTREAM_RESPONSE_TIMEOUT": "700ms",
    "SIDECAR_STREAM_IDLE_TIMEOUT": "1s",
}


class Scripted:
    """A service whose script is set by each test."""

    def __init__(self):
        self.script = lambda visit: None

    def __call__(self, visit):
        self.script(visit)


@pytest.fixture(scope="module")
def scripted():
    return Scripted()


@pytest.fixture(scope="module")
def service(scripted):
    with RecordingService(scripted) as service:
        yield service


@pytest.fixture(autouse=True)
def _no_script_of_before(service):
    """A connection that the sidecar has pooled goes on with the script that it began with."""
    service.disconnect()


@pytest.fixture(scope="module")
def program(tmp_path_factory, domain, service):
    directory = tmp_path_factory.mktemp("upstream")
    policy = domain.policy(everything=("web",))
    with Program(directory, domain.identity("orders"), policy, service.url, **QUICK) as program:
        yield program


def ask(program: Program, domain, data: bytes = b"", method: str = "GET"):
    """The answer, and the one record of the call."""
    answer = program.ask(domain.identity("web"), data or request(), method)
    return answer, program.record_of(answer)


def check_failed(answer, record, status: int, reason: str, upstream: str) -> None:
    assert (answer.status, answer.reason) == (status, reason), answer
    assert answer.headers["content-type"] == "application/problem+json"
    assert record["id"] == answer.headers["x-request-id"]
    assert record["decision"]["effect"] == "allow"
    assert (record["outcome"]["status"], record["outcome"]["upstream"]) == (status, upstream)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_rel_29_a_service_that_is_down_is_503(tmp_path, domain, kind):
    upstream = f"http://127.0.0.1:{free_ports(1)[0]}" if kind == "tcp" else f"unix:{tmp_path}/gone.sock"
    with Program(tmp_path / "p", domain.identity("orders"), domain.policy(), upstream) as program:
        answer, record = ask(program, domain)
        check_failed(answer, record, 503, "upstream-unreachable", "unreachable")
        with RecordingService(path=f"{tmp_path}/gone.sock") if kind == "unix" else socket.socket():
            if kind == "unix":
                assert ask(program, domain)[0].status == 200


def test_rel_29_a_silent_service_is_504(program, domain, scripted):
    def silent(visit):
        visit.read_head()
        visit.read_some()

    scripted.script = silent
    began = time.monotonic()
    answer, record = ask(program, domain)
    assert time.monotonic() - began < 4
    check_failed(answer, record, 504, "upstream-timeout", "timeout")


HEAD = b"HTTP/1.1 200 OK\r\n"
NONSENSE = {
    "no-http": b"hello\r\n\r\n",
    "binary": bytes(range(256)) + b"\r\n\r\n",
    "closes-at-once": b"",
    "half-a-head": HEAD + b"content-le",
    "a50-length-and-chunked": HEAD + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "a50-two-lengths": HEAD + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
    "a50-bad-length": HEAD + b"content-length: +3\r\n\r\nabc",
    "unknown-coding": HEAD + b"transfer-encoding: gzip\r\n\r\nabc",
    "bare-lf": b"HTTP/1.1 200 OK\ncontent-length: 0\n\n",
    "bad-status": b"HTTP/1.1 abc OK\r\ncontent-length: 0\r\n\r\n",
    "http-2": b"HTTP/2 200\r\ncontent-length: 0\r\n\r\n",
    "folded": HEAD + b"x-a: b\r\n c\r\ncontent-length: 0\r\n\r\n",
    "nul-in-a-value": HEAD + b"x-a: b\x00c\r\ncontent-length: 0\r\n\r\n",
    "unasked-101": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "d30-endless-head": HEAD + b"x-a: " + b"b" * 200_000,
    "many-fields": HEAD + b"".join(b"x-%d: y\r\n" % number for number in range(500)) + b"content-length: 0\r\n\r\n",
    "f16-storm-of-1xx": b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 100,
}  # fmt: skip


@pytest.mark.parametrize("name", NONSENSE)
def test_rel_29_nonsense_is_502(program, domain, scripted, name):
    def talk(visit):
        visit.read_head()
        visit.send(NONSENSE[name])
        visit.close()

    scripted.script = talk
    answer, record = ask(program, domain)
    went_away = name in ("closes-at-once", "half-a-head")
    check_failed(answer, record, 502, "upstream-invalid", "incomplete" if went_away else "invalid")


def test_rel_30_an_answer_cut_short_does_not_look_complete(program, domain, scripted):
    for head in (b"content-length: 100\r\n\r\nabc", b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"):

        def cut(visit, head=head):
            visit.read_head()
            visit.send(HEAD + head)
            visit.close()

        scripted.script = cut
        lines = len(program.records("call"))
        with program.link(domain.identity("web")) as link:
            link.send(request())
            data = link.read_to_end()
        assert data.startswith(HEAD) and not data.endswith(b"0\r\n\r\n")
        record = program.wait_for_records("call", lines + 1)[lines]
        assert record["outcome"]["upstream"] == "incomplete"


def test_rel_30_the_caller_goes_away_and_the_service_hears_of_it(program, domain, scripted):
    begun, heard = [], []

    def wait(visit):
        begun.append(visit.read_head())
        heard.append(visit.read_some())

    scripted.script = wait
    lines = len(program.records("call"))
    with program.link(domain.identity("web")) as link:
        link.send(request())
        deadline = time.monotonic() + 5
        while not begun and time.monotonic() < deadline:
            time.sleep(0.01)
        # A reset: an end in order would only say that the caller sends no more, and it would wait for its answer.
        link.tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    record = program.wait_for_records("call", lines + 1)[lines]
    assert record["outcome"]["upstream"] == "incomplete" and record["outcome"]["status"] is None
    program.wait_until(lambda: heard == [b""], "the service's connection has ended")


def test_rel_31_a_pooled_connection_that_was_closed_costs_no_error(program, domain, scripted):
    def once(visit):
        visit.read_head()
        visit.send(OK)
        visit.close()

    scripted.script = once
    with program.link(domain.identity("web")) as link:
        assert [link.ask(request()).status for _ in range(10)] == [200] * 10


def test_rel_32_a_post_is_never_sent_twice(program, domain, scripted, service):
    def dies(visit):
        visit.read_head()
        visit.read_exactly(3)
        visit.close()

    scripted.script = dies
    seen = service.received.count(b"POST /orders ")
    answer, _ = ask(program, domain, request("/orders", "POST", body=b"abc"), "POST")
    assert answer.status == 502
    assert service.received.count(b"POST /orders ") == seen + 1


def test_a50_bytes_after_an_answer_are_not_the_next_one(program, domain, scripted):
    def twice(visit):
        visit.read_head()
        visit.send(OK + b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison")
        visit.read_some()

    scripted.script = twice
    with program.link(domain.identity("web")) as link:
        answers = []
        for _ in range(3):
            try:
                answers.append(link.ask(request()))
            except AssertionError:
                break
    assert answers and all(answer.body != b"poison" for answer in answers)
    assert all(answer.status in (200, 502) for answer in answers)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("status", [204, 304])
def test_f15_there_is_no_body_where_there_may_be_none(program, domain, scripted, method, status):
    def answer(visit):
        while visit.read_head():
            visit.send(b"HTTP/1.1 %d X\r\netag: x\r\n\r\n" % status)

    scripted.script = answer
    with program.link(domain.identity("web")) as link:
        for _ in range(2):
            answer_ = link.ask(request(method=method), method)
            assert (answer_.status, answer_.body) == (status, b"")
            assert "transfer-encoding" not in answer_.headers


def test_head_keeps_the_length_and_sends_no_body(program, domain, scripted):
    def answer(visit):
        while visit.read_head():
            visit.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")

    scripted.script = answer
    with program.link(domain.identity("web")) as link:
        for _ in range(2):
            answer_ = link.ask(request(method="HEAD"), "HEAD")
            assert (answer_.status, answer_.headers["content-length"]) == (200, "1000")


def test_an_answer_that_ends_with_its_connection_arrives_whole(program, domain, scripted):
    def answer(visit):
        visit.read_head()
        visit.send(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000)
        visit.close()

    scripted.script = answer
    answer_, record = ask(program, domain)
    assert (answer_.status, len(answer_.body)) == (200, 100_000)
    assert record["outcome"]["sent"] == 100_000


def test_f16_early_hints_reach_the_caller(program, domain, scripted):
    def answer(visit):
        visit.read_head()
        visit.send(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + OK)
        visit.read_some()

    scripted.script = answer
    with program.link(domain.identity("web")) as link:
        link.send(request())
        data = b""
        while b"ok\n" not in data:
            data += link.read_some()
    assert data.startswith(b"HTTP/1.1 103") and b"link: </a>\r\n" in data


def test_a_35_the_service_is_asked_after_continue(program, domain, scripted):
    got = []

    def answer(visit):
        head = visit.read_head()
        got.append(head)
        got.append(visit.read_exactly(3))
        visit.send(OK)

    scripted.script = answer
    with program.link(domain.identity("web")) as link:
        link.send(request("/orders", "POST", "Expect: 100-continue", "Content-Length: 3"))
        first = link.read_some()
        assert first.startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        link.send(b"abc")
        assert link.read_answer().status == 200
    assert got[1] == b"abc" and b"expect" not in got[0].lower()


def test_an_unknown_expectation_is_417(program, domain, scripted):
    answer, record = ask(program, domain, request("/orders/42", "GET", "Expect: miracles"))
    assert (answer.status, answer.reason) == (417, "expectation")
    assert record["outcome"]["upstream"] == "none"


def test_an_early_final_answer_is_relayed_while_the_body_still_comes(program, domain, scripted):
    def early(visit):
        visit.read_head()
        visit.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        visit.read_some()

    scripted.script = early
    with program.link(domain.identity("web")) as link:
        link.send(request("/orders", "POST", "Content-Length: 50000000"))
        link.send(b"x" * 1000)
        assert link.read_answer().status == 413


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_megabytes_go_through_both_ways_whole_and_in_order(program, domain, scripted, framing):
    body = bytes(range(256)) * 80_000  # 20 MB
    got = []

    def take_and_give(visit):
        head = visit.read_head().lower()
        got.append(read_chunks(visit) if b"chunked" in head else visit.read_exactly(len(body)))
        visit.send(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
        visit.close()

    scripted.script = take_and_give
    with program.link(domain.identity("web"), timeout_s=30) as link:
        if framing == "length":
            link.send(request("/orders", "POST", f"Content-Length: {len(body)}"))
            link.send(body)
        else:
            link.send(request("/orders", "POST", "Transfer-Encoding: chunked"))
            for place in range(0, len(body), 100_000):
                part = body[place : place + 100_000]
                link.send(b"%x\r\n" % len(part) + part + b"\r\n")
            link.send(b"0\r\n\r\n")
        answer = link.read_answer()
    assert answer.status == 200
    assert got == [body] and answer.body == body


def read_chunks(visit) -> bytes:
    """A chunked body, decoded."""
    parts = []
    while True:
        line = b""
        while not line.endswith(b"\r\n"):
            line += visit.read_exactly(1)
        size = int(line, 16)
        part = visit.read_exactly(size + 2)
        if size == 0:
            return b"".join(parts)
        parts.append(part[:-2])
