from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import struct

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sidecar.errors import UnavailableError
from sidecar.tls import acceptor as module
from sidecar.tls import context as context_module
from sidecar.tls.acceptor import HANDSHAKE_BYTES, Handshake, source_of
from sidecar.tls.judgement import Judgement
from sidecar.tls.linger import LINGER_BYTES
from tests.fakes.certificates import DAY, SECOND, START, DemoAuthority
from tests.fakes.loops import both_loops, run_on
from tests.fakes.secure import (
    BioCaller,
    RawTransport,
    Recorder,
    Served,
    World,
    caller_context,
    connect,
    echo,
    in_thread,
    read_exactly,
    serve,
)

WORLD = World()
AUTHORITY = WORLD.authority


def ask(port: int, context: ssl.SSLContext, data: bytes = b"hello") -> bytes:
    """What an echoing server gives back."""
    with connect(port, context) as link:
        link.sendall(data)
        return read_exactly(link, len(data))


def refused(port: int, context: ssl.SSLContext) -> str:
    """The error that a refused caller sees; in TLS 1.3 only when it reads."""
    with pytest.raises((OSError, AssertionError)) as raised:
        ask(port, context)
    return str(raised.value)


@both_loops
def test_a_proved_peer_is_handed_over_with_what_proved_it(factory):
    async def story():
        async with serve(WORLD.context(generation=5), lambda: Recorder(echo)) as served:
            assert await in_thread(ask, served.port, caller_context(WORLD.web)) == b"hello"
            await served.protocol.until_event("lost")
            recorder = served.protocol
            assert recorder.events == ["secured", "data", "eof", "lost"]
            assert (recorder.peer.id_text, recorder.peer.source) == ("spiffe://demo.test/web", "127.0.0.1")
            assert recorder.peer.generation == 5
            assert x509.load_der_x509_certificate(recorder.transport.peer_chain[0]) == WORLD.web.leaf
            assert recorder.transport.own_not_after_s == WORLD.own.svid.not_after.timestamp()
            assert served.handshakes("ok") == served.counts.settled == 1
            assert served.refusals == []
        assert served.counts.closed == 1

    run_on(factory, story())


@both_loops
def test_e1_without_a_certificate_the_caller_gets_the_alert(factory):
    async def story():
        async with serve(WORLD.context()) as served:
            error = await in_thread(refused, served.port, caller_context(None))
            assert "CERTIFICATE_REQUIRED" in error.upper()
            [refusal] = served.refusals
            assert (refusal.rule, refusal.claimed, refusal.source) == ("no-certificate", None, "127.0.0.1")
            assert served.handshakes("refused", "no-certificate") == 1
            assert served.protocols == []

    run_on(factory, story())


CA_SHAPE = {"basic_constraints": (x509.BasicConstraints(ca=True, path_length=None), True)}
INTERMEDIATE = DemoAuthority(parent=AUTHORITY)
BAD = [
    ("e6-unknown-authority", DemoAuthority().issue("spiffe://demo.test/web"), None),
    ("e6-self-signed", AUTHORITY.self_sign("spiffe://demo.test/web"), None),
    ("e7-forged", DemoAuthority("other.test").issue("spiffe://demo.test/web"), None),
    ("another-domain", DemoAuthority("other.test").issue("spiffe://other.test/web"), "X5-17"),
    ("e4-expired", AUTHORITY.issue("spiffe://demo.test/web", not_after=START - SECOND), None),
    (
        "early",
        AUTHORITY.issue("spiffe://demo.test/web", not_before=START + SECOND, not_after=START + DAY),
        None,
    ),
    ("e9-no-uri", AUTHORITY.issue([]), "X5-01"),
    ("e10-two-uris", AUTHORITY.issue(["spiffe://demo.test/a", "spiffe://demo.test/b"]), "X5-01"),
    ("e11-upper-case", AUTHORITY.issue("spiffe://DEMO.test/web"), None),
    ("e12-no-path", AUTHORITY.issue("spiffe://demo.test"), "X5-03"),
    ("e13-authority-as-leaf", AUTHORITY.issue("spiffe://demo.test/web", **CA_SHAPE), None),
    ("e16-nul", AUTHORITY.issue(b"spiffe://demo.test/web\x00.evil"), None),
]


@pytest.mark.parametrize(("issued", "rule"), [bad[1:] for bad in BAD], ids=[bad[0] for bad in BAD])
@both_loops
def test_a_bad_certificate_is_refused_inside_the_handshake(factory, issued, rule):
    async def story():
        async with serve(WORLD.context(), lambda: Recorder(echo)) as served:
            error = await in_thread(refused, served.port, caller_context(issued))
            assert "alert" in error.lower()
            [refusal] = served.refusals
            assert rule is None or refusal.rule == rule
            assert served.handshakes("refused", refusal.rule) == 1
            assert served.protocols == []
            assert await in_thread(ask, served.port, caller_context(WORLD.web)) == b"hello"

    run_on(factory, story())


def test_what_a_refused_peer_claimed_is_noted():
    async def story():
        async with serve(WORLD.context()) as served:
            issued = DemoAuthority("other.test").issue("spiffe://other.test/web")
            await in_thread(refused, served.port, caller_context(issued))
            assert served.refusals[0].claimed == "spiffe://other.test/web"
            assert "other.test" in served.refusals[0].detail

    run_on(asyncio.new_event_loop, story())


@both_loops
def test_a_callers_chain_may_have_intermediates(factory):
    async def story():
        async with serve(WORLD.context(), lambda: Recorder(echo)) as served:
            issued = INTERMEDIATE.issue("spiffe://demo.test/deep")
            assert await in_thread(ask, served.port, caller_context(issued)) == b"hello"
            assert len(served.protocol.transport.peer_chain) == 2

    run_on(factory, story())


@pytest.mark.parametrize(("beside", "is_served"), [(4, True), (5, False)])
def test_a_chain_has_five_certificates_at_most_even_beside_the_path(beside, is_served):
    async def story():
        async with serve(WORLD.context(), lambda: Recorder(echo)) as served:
            issued = AUTHORITY.issue("spiffe://demo.test/web")
            others = [DemoAuthority(f"d{number}.test").certificate for number in range(beside)]
            padded = type(issued)((*issued.chain, *others), issued.private_key)
            if is_served:
                assert await in_thread(ask, served.port, caller_context(padded)) == b"hello"
            else:
                await in_thread(refused, served.port, caller_context(padded))
                assert served.refusals[0].rule == "chain" and served.limit("peer_chain") == 1
                assert served.protocols == []

    run_on(asyncio.new_event_loop, story())


def test_a_path_of_six_is_refused():
    async def story():
        async with serve(WORLD.context(), lambda: Recorder(echo)) as served:
            authority = AUTHORITY
            for _ in range(5):
                authority = DemoAuthority(parent=authority)
            issued = authority.issue("spiffe://demo.test/web")
            assert len(issued.chain) == 6
            error = await in_thread(refused, served.port, caller_context(issued))
            assert "alert" in error.lower() and served.refusals[0].rule == "chain"

    run_on(asyncio.new_event_loop, story())


@both_loops
def test_a_handshake_has_a_size(factory):
    async def story():
        async with serve(WORLD.context()) as served:
            ballast = x509.UnrecognizedExtension(
                x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"x" * HANDSHAKE_BYTES
            )
            issued = AUTHORITY.issue("spiffe://demo.test/web", extra=[(ballast, False)])
            await in_thread(refused, served.port, caller_context(issued))
            assert served.refusals[0].rule == "too-large" and served.limit("handshake_bytes") == 1

    run_on(factory, story())


def test_e22_older_versions_are_refused():
    async def story():
        async with serve(WORLD.context()) as served:
            context = caller_context(WORLD.web)
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
            error = await in_thread(refused, served.port, context)
            assert "PROTOCOL_VERSION" in error.upper()
            assert served.refusals[0].rule == "version"

    run_on(asyncio.new_event_loop, story())


@pytest.mark.parametrize(
    ("offer", "chosen"),
    [(None, None), (["http/1.1"], "http/1.1"), (["h2", "http/1.1"], "http/1.1"), (["h2"], ssl.SSLError)],
)
@both_loops
def test_only_http_1_1_is_negotiated(factory, offer, chosen):
    async def story():
        async with serve(WORLD.context(), lambda: Recorder(echo)) as served:

            def call():
                with connect(served.port, caller_context(WORLD.web, offer)) as link:
                    link.sendall(b"x")
                    return link.selected_alpn_protocol(), link.recv(1)

            if chosen is ssl.SSLError:
                with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
                    await in_thread(call)
                assert served.refusals[0].rule == "alpn" and "b'h2'" in served.refusals[0].detail
                assert served.protocols == []
            else:
                assert await in_thread(call) == (chosen, b"x")

    run_on(factory, story())


@both_loops
def test_a_caller_that_refuses_us_is_told_apart(factory):
    async def story():
        async with serve(WORLD.context()) as served:
            context = caller_context(WORLD.web)
            context.verify_mode = ssl.CERT_REQUIRED  # and it trusts nobody
            with pytest.raises(ssl.SSLCertVerificationError):
                await in_thread(connect, served.port, context)
            await served.counts.until_all_closed()
            assert served.refusals[0].rule == "peer-alert" and "alert" in served.refusals[0].detail

    run_on(factory, story())


def judge_that_never_judges(bundles, clock):
    return lambda connection, certificate, error, depth, is_ok: True


def judge_of_somebody_else(bundles, clock):
    """Records a good verdict, but not about what is presented."""

    def judge(connection, certificate, error, depth, is_ok):
        judgement = connection.get_app_data()
        judgement.spiffe_id, judgement.leaf = WORLD.own.svid.spiffe_id, WORLD.own.leaf
        judgement.chain = (WORLD.own.leaf.public_bytes(Encoding.DER),)
        return True

    return judge


@pytest.mark.parametrize("judge", [judge_that_never_judges, judge_of_somebody_else])
@both_loops
def test_a_handshake_that_passes_the_judge_by_proves_nothing(factory, judge, monkeypatch):
    monkeypatch.setattr(context_module, "build_judge", judge)

    async def story():
        async with serve(WORLD.context(), lambda: Recorder(echo)) as served:
            await in_thread(refused, served.port, caller_context(WORLD.web))
            assert served.refusals[0].rule == "unproven" and served.protocols == []

    run_on(factory, story())


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x00",
        b"\x80\x2e\x01\x03\x01",
        b"\x16\x02\x00\x00\x05hello",
        b"\x16\x03\x01\xff\xff",
        b"\x17\x03\x03\x00\x05hello",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
    ],
)
@both_loops
def test_e2_what_is_not_tls_is_closed_without_an_answer(factory, data):
    async def story():
        async with serve(WORLD.context()) as served:

            def call():
                with socket.create_connection(("127.0.0.1", served.port), timeout=5) as link:
                    link.sendall(data)
                    return link.recv(1000)

            assert await in_thread(call) == b""
            assert [refusal.rule for refusal in served.refusals] == ["not-tls"]
            assert served.protocols == []

    run_on(factory, story())


@both_loops
def test_e3_plaintext_before_the_handshake_reaches_nobody(factory):
    async def story():
        async with serve(WORLD.context()) as served:

            def call():
                with BioCaller(served.port, caller_context(WORLD.web)) as caller:
                    caller.raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    with pytest.raises((ssl.SSLError, OSError)):
                        caller.shake_hands()
                        caller.read()

            await in_thread(call)
            assert served.protocols == [] and served.handshakes("ok") == 0

    run_on(factory, story())


@both_loops
def test_garbage_inside_the_handshake_gets_an_alert(factory):
    async def story():
        async with serve(WORLD.context()) as served:

            def call():
                with socket.create_connection(("127.0.0.1", served.port), timeout=5) as link:
                    link.sendall(b"\x16\x03\x01\x00\x05hello")
                    return link.recv(1000)

            assert (await in_thread(call))[:1] == b"\x15"
            assert served.refusals[0].rule == "protocol"

    run_on(factory, story())


@both_loops
def test_e28_a_hello_in_single_bytes_and_small_records_is_read(factory):
    async def story():
        async with serve(WORLD.context(), lambda: Recorder(echo)) as served:

            def call():
                with BioCaller(served.port, caller_context(WORLD.web)) as caller:
                    with pytest.raises(ssl.SSLWantReadError):
                        caller.tls.do_handshake()
                    hello = caller.outgoing.read()
                    version, message = hello[1:3], hello[5:]
                    pieces = [message[place : place + 200] for place in range(0, len(message), 200)]
                    for piece in pieces:
                        record = b"\x16" + version + struct.pack(">H", len(piece)) + piece
                        caller.raw.sendall(record[:3])
                        caller.raw.sendall(record[3:])
                    caller.shake_hands()
                    caller.send(b"hello")
                    return caller.read()

            assert await in_thread(call) == b"hello"

    run_on(factory, story())


@both_loops
def test_data_that_comes_with_the_end_of_the_handshake_is_delivered_after_it(factory):
    async def story():
        async with serve(WORLD.context(), lambda: Recorder(echo)) as served:

            def call():
                with BioCaller(served.port, caller_context(WORLD.web)) as caller:
                    caller.shake_hands()
                    caller.send(b"early" * 8000)
                    data = b""
                    while len(data) < 40_000:
                        data += caller.read()
                    return data

            assert await in_thread(call) == b"early" * 8000
            assert served.protocol.events[:2] == ["secured", "data"]

    run_on(factory, story())


@pytest.mark.parametrize("data", [b"", b"\x16\x03\x01\x02\x00"])
@both_loops
def test_d21_a_handshake_that_does_not_end_is_closed(factory, data):
    async def story():
        async with serve(WORLD.context(), timeout_s=0.05) as served:

            def call():
                with socket.create_connection(("127.0.0.1", served.port), timeout=5) as link:
                    link.sendall(data)
                    return link.recv(1000)

            assert await in_thread(call) == b""
            assert [refusal.rule for refusal in served.refusals] == ["timeout"]
            assert served.limit("handshake_timeout") == 1
            await served.counts.until_all_closed()

    run_on(factory, story())


@both_loops
def test_the_deadline_ends_with_the_handshake(factory):
    async def story():
        async with serve(WORLD.context(), lambda: Recorder(echo), timeout_s=0.2) as served:
            link = await in_thread(connect, served.port, caller_context(WORLD.web))
            with link:
                silent = socket.create_connection(("127.0.0.1", served.port), timeout=5)
                with silent:
                    assert await in_thread(silent.recv, 10) == b"", "the deadline has passed"
                await in_thread(link.sendall, b"still here")
                assert await in_thread(read_exactly, link, 10) == b"still here"

    run_on(factory, story())


@pytest.mark.parametrize("is_abrupt", [False, True])
@both_loops
def test_a_caller_that_leaves_is_not_refused(factory, is_abrupt):
    async def story():
        async with serve(WORLD.context()) as served:
            link = socket.create_connection(("127.0.0.1", served.port))
            link.sendall(b"\x16\x03\x01")
            if is_abrupt:
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            link.close()
            while not served.counts.handshakes:
                await in_thread(lambda: None)
            await served.counts.until_all_closed()
            assert served.refusals == [] and served.handshakes("left", "closed") == 1
            assert served.counts.settled == 1

    run_on(factory, story())


def test_a_refused_peer_gets_the_alert_and_a_fin_and_no_reset():
    async def story():
        served = Served(WORLD.context(), Recorder, 10.0)
        handshake, raw = served.acceptor.accept(served.counts), RawTransport()
        handshake.connection_made(raw)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        caller = caller_context(None).wrap_bio(incoming, outgoing)
        for _ in range(3):
            try:
                caller.do_handshake()
            except ssl.SSLWantReadError:
                pass
            handshake.data_received(outgoing.read() or b"\x17")
            incoming.write(b"".join(raw.written))
            raw.written.clear()
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
            caller.read()
        assert raw.has_ended and not raw.is_closed, "the peer's bytes are read until it ends"
        handshake.data_received(b"x" * LINGER_BYTES)
        assert raw.is_aborted, "but not for ever"
        assert served.refusals[0].source == "10.0.4.7"
        handshake.connection_lost(None)
        assert (served.counts.settled, served.counts.closed) == (1, 1)

    run_on(asyncio.new_event_loop, story())


@both_loops
def test_of_a_finished_handshake_nothing_is_kept(factory):
    async def story():
        async with serve(WORLD.context(), lambda: Recorder(echo)) as served:
            link = await in_thread(connect, served.port, caller_context(WORLD.web))
            with link:
                await served.secured()
                served.counts.handshakes.clear()
                gc.collect()
                kept = [each for each in gc.get_objects() if isinstance(each, (Handshake, Judgement))]
                assert kept == []

    run_on(factory, story())


@both_loops
def test_a_new_context_is_for_new_handshakes(factory):
    async def story():
        bundles = {"other.test": DemoAuthority("other.test").bundle()}
        contexts = [WORLD.context(generation=1)(), WORLD.context(generation=2, bundles=bundles)()]
        async with serve(lambda: contexts[0], lambda: Recorder(echo)) as served:
            link = await in_thread(connect, served.port, caller_context(WORLD.web))
            with link:
                await in_thread(link.sendall, b"1")
                assert await in_thread(read_exactly, link, 1) == b"1"
                del contexts[0]
                await in_thread(refused, served.port, caller_context(WORLD.web))
                assert served.refusals[0].rule == "X5-17"
                await in_thread(link.sendall, b"2")
                assert await in_thread(read_exactly, link, 1) == b"2"
            assert served.protocol.peer.generation == 1

    run_on(factory, story())


def failing(error: Exception):
    def fail(*arguments: object):
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "rule"), [(UnavailableError("the own SVID ended"), "unavailable"), (KeyError("x"), "internal")]
)
@both_loops
def test_without_a_context_nobody_gets_in(factory, error, rule, caplog):
    async def story():
        async with serve(failing(error)) as served:

            def call():
                with socket.create_connection(("127.0.0.1", served.port), timeout=5) as link:
                    return link.recv(1000)

            assert await in_thread(call) == b""
            assert [refusal.rule for refusal in served.refusals] == [rule]

    run_on(factory, story())


@both_loops
def test_a_protocol_that_cannot_be_made_is_a_refusal(factory, caplog):
    async def story():
        async with serve(WORLD.context(), failing(ZeroDivisionError())) as served:
            await in_thread(refused, served.port, caller_context(WORLD.web))
            assert [refusal.rule for refusal in served.refusals] == ["internal"]
            assert served.handshakes("ok") == 0
            await served.counts.until_all_closed()

    run_on(factory, story())
    assert "ZeroDivisionError" in caplog.text


@both_loops
def test_a_report_that_fails_does_no_harm(factory, caplog):
    async def story():
        async with serve(WORLD.context(), lambda: Recorder(echo)) as served:
            served.acceptor.on_refused = failing(ZeroDivisionError())
            error = await in_thread(refused, served.port, caller_context(None))
            assert "CERTIFICATE_REQUIRED" in error.upper()
            assert await in_thread(ask, served.port, caller_context(WORLD.web)) == b"hello"

    run_on(factory, story())
    assert "could not be reported" in caplog.text


@both_loops
def test_a_cancelled_handshake_is_closed_and_not_refused(factory):
    async def story():
        async with serve(WORLD.context()) as served:
            link = socket.create_connection(("127.0.0.1", served.port), timeout=5)
            with link:
                while not (served.counts.handshakes and served.counts.handshakes[0].is_started):
                    await in_thread(lambda: None)
                served.counts.handshakes[0].cancel()
                assert await in_thread(link.recv, 10) == b""
                await served.counts.until_all_closed()
            assert served.refusals == [] and served.handshakes("left", "cancelled") == 1
            served.counts.handshakes[0].cancel()
            assert served.counts.settled == 1

    run_on(factory, story())


def test_cancelling_a_secured_connection_changes_nothing():
    async def story():
        async with serve(WORLD.context(), lambda: Recorder(echo)) as served:
            link = await in_thread(connect, served.port, caller_context(WORLD.web))
            with link:
                await in_thread(link.sendall, b"1")
                assert await in_thread(read_exactly, link, 1) == b"1"
                served.counts.handshakes[0].cancel()
                await in_thread(link.sendall, b"2")
                assert await in_thread(read_exactly, link, 1) == b"2"

    run_on(asyncio.new_event_loop, story())


@pytest.mark.parametrize(
    ("peername", "source"),
    [
        (("10.0.4.7", 5000), "10.0.4.7"),
        (("2001:DB8::1", 5000, 0, 0), "2001:db8::1"),
        (("::ffff:10.0.4.7", 5000, 0, 0), "10.0.4.7"),
        (("fe80::1%eth0", 5000, 0, 2), "fe80::1"),
        (("somewhere", 1), "somewhere"),
        ("", ""),
        (None, ""),
        ((), ""),
    ],
)
def test_the_source_is_an_address_only(peername, source):
    assert source_of(peername) == source


def test_every_rule_of_openssl_is_one_of_ours():
    assert set(module._RULES.values()) <= {"no-certificate", "version"}
