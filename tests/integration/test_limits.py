"""Slow, endless and oversized messages: each has a limit, a status, a reason, a metric."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time

import pytest

from tests.fakes.program import Link, Program, request
from tests.fakes.service import RecordingService

pytestmark = pytest.mark.integration

SETTINGS = {
    "SIDECAR_HEAD_TIMEOUT": "700ms",
    "SIDECAR_HANDSHAKE_TIMEOUT": "1s",
    "SIDECAR_IDLE_TIMEOUT": "2s",
    "SIDECAR_STREAM_IDLE_TIMEOUT": "1s",
    "SIDECAR_WRITE_TIMEOUT": "1s",
    "SIDECAR_MAX_BODY_BYTES": "1KiB",
    "SIDECAR_MAX_REQUEST_LINE_BYTES": "1KiB",
    "SIDECAR_MAX_HEADER_BYTES": "4KiB",
    "SIDECAR_MAX_HEADER_FIELDS": "20",
}


@pytest.fixture(scope="module")
def program(tmp_path_factory, domain, service):
    directory = tmp_path_factory.mktemp("limits")
    policy = domain.policy(everything=("web",))
    with Program(directory, domain.identity("orders"), policy, service.url, **SETTINGS) as program:
        yield program


LINE = len("GET /orders/ HTTP/1.1")


@pytest.mark.parametrize(
    ("data", "status", "limit"),
    [
        (request("/orders/" + "a" * (1024 - LINE)), 200, None),
        (request("/orders/" + "a" * (1025 - LINE)), 414, "request_line"),
        (request("/orders/" + "a" * 20_000), 414, "request_line"),
        (request("/orders/1", "GET", *[f"x-{number}: y" for number in range(19)]), 200, None),
        (request("/orders/1", "GET", *[f"x-{number}: y" for number in range(20)]), 431, "header_fields"),
        (request("/orders/1", "GET", "x: " + "y" * 3900), 200, None),
        (request("/orders/1", "GET", "x: " + "y" * 4100), 431, "header_bytes"),
        (request("/orders", "POST", body=b"x" * 1024), 200, None),
        (request("/orders", "POST", body=b"x" * 1025), 413, "body"),
    ],
)
def test_at_the_limit_it_is_served_and_above_it_is_not(program, service, domain, data, status, limit):
    before = program.metric("sidecar_limits_total")
    seen = len(service.received)
    answer = program.ask(domain.identity("web"), data, data.split(b" ", 1)[0].decode())
    assert answer.status == status
    if status == 200:
        assert program.metric("sidecar_limits_total") == before
    else:
        assert answer.reason == "too-large" and len(service.received) == seen
        assert program.metric("sidecar_limits_total") == before + 1


def test_a_chunked_body_is_counted_while_it_streams(program, domain):
    data = request("/orders", "POST", "Transfer-Encoding: chunked") + b"400\r\n" + b"x" * 1024 + b"\r\n"
    with program.link(domain.identity("web")) as link:
        link.send(data)
        link.send(b"1\r\nx\r\n0\r\n\r\n")
        assert link.read_answer().status == 413
        assert link.is_closed_by_peer()


def test_d1_a_head_that_does_not_end_is_408(program, domain):
    with program.link(domain.identity("web")) as link:
        began = time.monotonic()
        link.send(b"GET /orders/42 HTTP/1.1\r\n")
        for _ in range(4):
            time.sleep(0.15)
            link.send(b"X-A: b\r\n")
        answer = link.read_answer()
        assert (answer.status, answer.reason) == (408, "timeout")
        assert time.monotonic() - began < 2
        assert link.is_closed_by_peer()


def test_d2_a_body_that_does_not_come_is_ended(program, domain):
    with program.link(domain.identity("web")) as link:
        began = time.monotonic()
        link.send(request("/orders", "POST", "Content-Length: 100") + b"x")
        data = link.read_to_end()
        assert time.monotonic() - began < 3
    assert data == b"" or b" 408 " in data.split(b"\r\n")[0]


def test_d27_an_idle_connection_is_closed(program, domain):
    with program.link(domain.identity("web")) as link:
        assert link.ask(request()).status == 200
        assert link.is_closed_by_peer(4)


def test_d3_a_caller_that_does_not_read_is_reset(tmp_path, domain):
    def pour(visit):
        visit.read_head()
        visit.send(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(3000):
            visit.send(b"x" * 65536)

    with RecordingService(pour) as service:
        with Program(
            tmp_path, domain.identity("orders"), domain.policy(), service.url, **SETTINGS
        ) as program:
            before = resident_kb(program)
            with program.link(domain.identity("web")) as link:
                link.send(request())
                record = program.wait_for_records("call", 1)[0]
            assert resident_kb(program) - before < 20_000
    assert record["outcome"]["upstream"] == "incomplete" and record["outcome"]["cut"]


def resident_kb(program: Program) -> int:
    assert program.process is not None
    with open(f"/proc/{program.process.pid}/status") as status:
        return int(status.read().partition("VmRSS:")[2].split()[0])


def test_more_connections_than_there_may_be_are_closed_at_once(tmp_path, domain, service):
    with Program(
        tmp_path, domain.identity("orders"), domain.policy(), service.url, SIDECAR_MAX_CONNECTIONS="3"
    ) as program:
        web = domain.identity("web")
        links = [program.link(web) for _ in range(3)]
        try:
            assert [link.ask(request()).status for link in links] == [200] * 3
            with pytest.raises(OSError), Link(program.port, web.client_context(), 5) as more:
                more.ask(request())
            assert program.metric("sidecar_limits_total", limit="connections") >= 1
        finally:
            for link in links:
                link.close()

        def has_room() -> bool:
            try:
                return program.ask(web, request()).status == 200
            except OSError:
                return False

        program.wait_until(has_room, "there is room again")


def test_rel_33_a_caller_that_has_finished_sending_gets_its_answer(program, domain):
    context = domain.identity("web").client_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with socket.create_connection(("127.0.0.1", program.port), timeout=5) as raw:
        tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")

        def flush():
            if data := outgoing.read():
                raw.sendall(data)

        def step(action):
            while True:
                try:
                    return action()
                except ssl.SSLWantReadError:
                    flush()
                    data = raw.recv(65536)
                    incoming.write(data) if data else incoming.write_eof()

        step(tls.do_handshake)
        tls.write(request())
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.unwrap()  # our close_notify; the other side's is still to come
        flush()
        raw.shutdown(socket.SHUT_WR)
        data = b""
        while b"ok\n" not in data:
            more = step(lambda: tls.read(65536))
            assert more, data
            data += more
    assert data.startswith(b"HTTP/1.1 200")
