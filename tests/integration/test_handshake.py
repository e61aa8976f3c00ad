"""Who does not prove one workload of this trust domain gets no further than the TLS handshake."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from datetime import timedelta

import pytest

from tests.fakes.program import Identity, Link, Program, request
from tests.fakes.service import RecordingService

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def program(tmp_path_factory, domain, service):
    directory = tmp_path_factory.mktemp("handshake")
    with Program(directory, domain.identity("orders"), domain.policy(), service.url) as program:
        yield program


def refused(program: Program, service: RecordingService, context: ssl.SSLContext) -> str:
    """Asks with this context; the error that the caller sees. AssertionError if it is answered."""
    before = len(service.received)
    with pytest.raises((OSError, AssertionError)) as raised:
        with Link(program.port, context) as link:
            link.tls.sendall(request())
            data = link.tls.recv(1000)
            assert not data.startswith(b"HTTP"), data
            raise AssertionError("closed without an alert")
    assert len(service.received) == before
    return str(raised.value)


def bad_identities(domain):
    """(name, identity files, the rule that the record names)"""
    day = timedelta(days=1)
    return [
        ("another-domain", domain.foreign_identity("web"), "X5-17"),
        ("e7-own-name-by-another-domains-authority", domain.forged_identity("web"), None),
        ("e6-self-signed", domain.self_signed("web"), None),
        ("e4-expired", domain.identity("late", not_before=-2 * day, not_after=-day), None),
        ("not-yet-valid", domain.identity("early", not_before=day, not_after=2 * day), None),
        ("e10-two-uri-sans", domain.identity("two", uris=[str(domain.id("web")), str(domain.id("batch"))]), "X5-01"),
        ("e9-no-uri-san", domain.identity("none", uris=[]), None),
        ("e13-ca-as-leaf", domain.identity("ca", ca=True), None),
        ("e12-trust-domain-as-leaf", domain.identity("td", uris=["spiffe://demo.test"]), None),
        ("e15-server-only", domain.identity("server", client_auth=False), None),
        ("e11-upper-case", domain.identity("upper", uris=["spiffe://DEMO.test/web"]), None),
        ("e11-encoded", domain.identity("encoded", uris=["spiffe://demo.test/%77eb"]), None),
        ("e11-http", domain.identity("http", uris=["https://demo.test/web"]), None),
    ]  # fmt: skip


def test_a_proven_workload_gets_in(program, domain):
    assert program.ask(domain.identity("web"), request()).status == 200


def test_e1_without_a_certificate_there_is_an_alert_and_no_http(program, service, domain):
    error = refused(program, service, domain.identity("web").client_context(with_certificate=False))
    assert "CERTIFICATE_REQUIRED" in error.upper()


@pytest.mark.parametrize("index", range(13))
def test_a_bad_certificate_is_refused_in_the_handshake_and_recorded(program, service, domain, index):
    name, identity, rule = bad_identities(domain)[index]
    lines = len(program.records("handshake"))
    error = refused(program, service, identity.client_context())
    assert "alert" in error.lower(), (name, error)
    record = program.wait_for_records("handshake", lines + 1)[lines]
    assert "caller" not in record, "an unproven identity stands in no caller"
    if rule is not None:
        assert rule in str(record), record
    assert program.ask(domain.identity("web"), request()).status == 200


def test_refusals_are_counted_by_rule(program, service, domain):
    before = program.metric("sidecar_tls_handshakes_total", result="refused")
    refused(program, service, domain.foreign_identity("web").client_context())
    program.wait_until(
        lambda: program.metric("sidecar_tls_handshakes_total", result="refused") == before + 1,
        "it is counted",
    )


def test_e2_plain_http_is_closed_without_an_answer_in_http(program, service):
    before = len(service.received)
    with socket.create_connection(("127.0.0.1", program.port), timeout=5) as link:
        link.sendall(request())
        data = b""
        try:
            while more := link.recv(1000):
                data += more
        except ConnectionError:
            pass
    assert b"HTTP" not in data and len(service.received) == before


def test_e22_tls_1_2_is_refused(program, service, domain):
    context = domain.identity("web").client_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    refused(program, service, context)


def test_e23_a_session_is_never_resumed(program, domain):
    context = domain.identity("web").client_context()
    with Link(program.port, context) as link:
        assert link.ask(request()).status == 200
        session = link.tls.session
    raw = socket.create_connection(("127.0.0.1", program.port), timeout=5)
    try:
        with context.wrap_socket(raw, server_hostname="localhost", session=session) as again:
            again.sendall(request())
            assert again.recv(100).startswith(b"HTTP/1.1 200")
            assert not again.session_reused
    except ssl.SSLError:
        pass  # refusing such a client altogether is as good


@pytest.mark.peer("openssl")
def test_e24_openssl_sees_neither_ticket_nor_early_data(program, domain):
    identity: Identity = domain.identity("web")
    argv = [
        "openssl",
        "s_client",
        "-connect",
        f"127.0.0.1:{program.port}",
        "-tls1_3",
        "-CAfile",
        identity.bundle,
    ]
    argv += ["-cert", identity.svid, "-key", identity.key, "-servername", "localhost", "-ign_eof"]
    done = subprocess.run(
        argv, input=b"GET /orders/42 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", capture_output=True, timeout=20
    )  # fmt: skip
    assert b"HTTP/1.1 200" in done.stdout, done.stderr
    assert b"New, TLSv1.3" in done.stdout
    assert b"Verify return code: 0" in done.stdout
    assert b"Early data was not sent" in done.stdout or b"Max Early Data: 0" in done.stdout


@pytest.mark.peer("curl")
def test_curl_checks_the_server_by_name_and_is_served(program, domain):
    identity: Identity = domain.identity("web")
    argv = ["curl", "-sS", "--cert", identity.svid, "--key", identity.key, "--cacert", identity.bundle]
    done = subprocess.run(
        [*argv, f"https://localhost:{program.port}/orders/42"], capture_output=True, text=True, timeout=20
    )
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


def test_d21_silent_sockets_do_not_keep_others_out(program, domain):
    """More of them than there may be handshakes at once."""
    silent = [socket.create_connection(("127.0.0.1", program.port)) for _ in range(300)]
    try:
        began = time.monotonic()
        assert program.ask(domain.identity("web"), request()).status == 200
        assert time.monotonic() - began < 4
    finally:
        for each in silent:
            each.close()
