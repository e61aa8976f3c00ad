"""Identity headers that a caller invents never reach the service, however they are spelt."""

from __future__ import annotations

import re

import pytest

from tests.fakes.program import Program, request
from tests.fakes.service import RecordingService

pytestmark = pytest.mark.integration

FORGED = "spiffe://demo.test/forged"
NAMES = [
    "x-forwarded-client-cert", "X-Forwarded-Client-Cert", "X_Forwarded_Client_Cert", "X.Forwarded.Client.Cert",
    "x-forwarded_client.cert", "x-request-id", "X_Request_Id", "sidecar-identity", "Sidecar_Reason", "x-sidecar-caller",
    "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Uri", "X-Forwarded-Prefix", "Forwarded",
    "X-Real-IP", "Client-Cert", "Client-Cert-Chain", "Proxy", "X-Original-URL", "X-Rewrite-URL",
    "X-HTTP-Method-Override", "X-Method-Override", "x-envoy-internal", "x-envoy-original-path", "tracestate",
    "Content_Length", "Transfer.Encoding", "HTTP2-Settings", "Keep-Alive", "TE",
]  # fmt: skip


@pytest.fixture(scope="module")
def program(tmp_path_factory, domain, service):
    with Program(
        tmp_path_factory.mktemp("spoofing"), domain.identity("orders"), domain.policy(), service.url
    ) as program:
        yield program


@pytest.mark.parametrize("name", NAMES)
def test_a_forged_field_is_gone_and_ours_is_the_only_one(program: Program, service, domain, name):
    seen = len(service.received)
    answer = program.ask(domain.identity("web"), request("/orders/42", "GET", f"{name}: {FORGED}"))
    assert answer.status == 200
    head = service.received[seen:]
    assert FORGED.encode() not in head
    fields = re.findall(rb"^x-forwarded-client-cert: (.*)\r$", head, flags=re.MULTILINE | re.IGNORECASE)
    assert len(fields) == 1
    assert fields[0] == (
        f"By={domain.id('orders')};Hash={domain.leaf_sha256('web')};URI={domain.id('web')}".encode()
    )


def test_the_request_id_is_the_records(program: Program, service, domain):
    seen = len(service.received)
    answer = program.ask(domain.identity("web"), request("/orders/42", "GET", "X-Request-Id: forged"))
    record = program.record_of(answer)
    assert f"x-request-id: {record['id']}\r\n".encode() in service.received[seen:]
    assert b"forged" not in service.received[seen:]


@pytest.mark.parametrize(
    "token", ["x-forwarded-client-cert", "X_Forwarded_Client_Cert", "x-request-id", "traceparent"]
)
def test_c6_a_nominated_name_of_ours_is_refused(program: Program, service, domain, token):
    seen = len(service.received)
    answer = program.ask(domain.identity("web"), request("/orders/42", "GET", f"Connection: {token}"))
    assert (answer.status, answer.reason) == (400, "malformed")
    assert service.received[seen:] == b""


def test_one_valid_trace_is_continued_and_two_are_not(program: Program, service, domain):
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    line = f"traceparent: 00-{trace}-00f067aa0ba902b7-01"
    web = domain.identity("web")
    seen = len(service.received)
    assert program.ask(web, request("/orders/42", "GET", line, "tracestate: a=1")).status == 200
    head = service.received[seen:]
    found = re.findall(rb"traceparent: 00-([0-9a-f]{32})-([0-9a-f]{16})-01\r\n", head)
    assert [each[0].decode() for each in found] == [trace] and found[0][1] != b"00f067aa0ba902b7"
    assert b"tracestate: a=1\r\n" in head
    seen = len(service.received)
    assert program.ask(web, request("/orders/42", "GET", line, line)).status == 200
    assert trace.encode() not in service.received[seen:]


def test_c11_a_field_in_the_trailers_is_dropped(program: Program, service, domain):
    seen = len(service.received)
    data = request("/orders/42", "GET", "Transfer-Encoding: chunked")
    data += b"0\r\nX-Forwarded-Client-Cert: " + FORGED.encode() + b"\r\n\r\n"
    assert program.ask(domain.identity("web"), data).status in (200, 400)
    assert FORGED.encode() not in service.received[seen:]


def test_the_services_own_claims_do_not_reach_the_caller(tmp_path, domain):
    def claim(visit):
        while visit.read_head():
            visit.send(
                b"HTTP/1.1 200 OK\r\nsidecar-reason: scope\r\nSidecar_Reason: scope\r\nx-request-id: forged\r\n"
                b"content-length: 0\r\n\r\n"
            )

    with RecordingService(claim) as service:
        with Program(tmp_path, domain.identity("orders"), domain.policy(), service.url) as program:
            answer = program.ask(domain.identity("web"), request())
    assert answer.status == 200 and answer.reason is None
    assert answer.headers["x-request-id"] != "forged"
    assert not any("reason" in name for name in answer.headers)
