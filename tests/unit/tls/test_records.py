"""The record layer, over OpenSSL's functions and over pyOpenSSL's methods: the same tests for both."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from sidecar.errors import UnavailableError
from sidecar.tls import records as module
from sidecar.tls.judgement import Judgement
from sidecar.tls.records import (
    BUFFER_BYTES,
    PIECE_BYTES,
    PLAINTEXT_BYTES,
    RECORD_OVERHEAD_BYTES,
    DirectRecords,
    PublicRecords,
    Records,
    Scratch,
    build_records,
    drain,
)
from tests.fakes.secure import World

WORLD = World()
CONTEXT = WORLD.context()()
SCRATCH = Scratch()

both_kinds = pytest.mark.parametrize("kind", ["direct", "public"])
SIZES = [1, 400, 16383, 16384, 16385, 32768, 100_000, 1_000_001]


def handshaken(suite: bytes | None = None) -> tuple[SSL.Connection, SSL.Connection]:
    """A caller and a server that have finished their handshake; nothing lies between them."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.use_certificate(WORLD.web.leaf)
    context.use_privatekey(WORLD.web.private_key)
    if suite is not None:
        context.set_tls13_ciphersuites(suite)
    caller, server = SSL.Connection(context, None), CONTEXT.begin(Judgement())
    caller.set_connect_state()
    for _ in range(3):
        for one, other in ((caller, server), (server, caller)):
            try:
                one.do_handshake()
            except SSL.WantReadError:
                pass
            if data := drain(one):
                other.bio_write(data)
    return caller, server


def pair(kind: str, suite: bytes | None = None) -> tuple[SSL.Connection, Records]:
    caller, server = handshaken(suite)
    return caller, DirectRecords(server, SCRATCH) if kind == "direct" else PublicRecords(server)


def sent(caller: SSL.Connection, data: bytes) -> bytes:
    caller.sendall(data)
    return drain(caller)


def received(caller: SSL.Connection, ciphertext: bytes) -> bytes:
    caller.bio_write(ciphertext)
    parts = []
    try:
        while True:
            parts.append(caller.recv(65536))
    except SSL.WantReadError:
        return b"".join(parts)


def pattern(size: int) -> bytes:
    return bytes(range(256)) * (size // 256) + bytes(range(size % 256))


def test_the_fast_kind_is_the_one_in_use_here():
    assert isinstance(build_records(handshaken()[1], SCRATCH), DirectRecords)


def test_without_the_binding_the_public_kind_does_it(monkeypatch):
    monkeypatch.setattr(module, "IS_DIRECT", False)
    assert isinstance(build_records(handshaken()[1], SCRATCH), PublicRecords)


@both_kinds
@pytest.mark.parametrize("size", SIZES)
def test_what_is_encrypted_is_what_the_peer_reads(kind, size):
    caller, records = pair(kind)
    for _ in range(2):
        assert received(caller, records.encrypt(pattern(size))) == pattern(size)


@both_kinds
@pytest.mark.parametrize("size", SIZES)
def test_what_the_peer_sends_is_decrypted(kind, size):
    caller, records = pair(kind)
    for _ in range(2):
        assert records.decrypt(sent(caller, pattern(size))) == pattern(size)


@pytest.mark.parametrize(
    "suite", [b"TLS_AES_256_GCM_SHA384", b"TLS_AES_128_GCM_SHA256", b"TLS_CHACHA20_POLY1305_SHA256"]
)
def test_every_suite_adds_as_many_bytes_as_are_counted_on(suite):
    caller, records = pair("direct", suite)
    assert len(sent(caller, b"x" * 100)) == 100 + RECORD_OVERHEAD_BYTES
    ciphertext = records.encrypt(b"y")
    assert len(records.encrypt(b"y" * 100)) == 100 + RECORD_OVERHEAD_BYTES
    assert received(caller, ciphertext) == b"y"


@pytest.mark.parametrize("suite", [b"TLS_AES_128_CCM_8_SHA256", b"TLS_AES_128_CCM_SHA256"])
def test_a_suite_that_is_not_counted_on_is_not_negotiated(suite):
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
    context.set_tls13_ciphersuites(suite)
    caller, server = SSL.Connection(context, None), CONTEXT.begin(Judgement())
    caller.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        caller.do_handshake()
    server.bio_write(drain(caller))
    with pytest.raises(SSL.Error, match="no shared cipher"):
        server.do_handshake()


@both_kinds
@given(
    messages=st.lists(st.binary(min_size=1, max_size=600), min_size=1, max_size=8),
    cuts=st.lists(st.integers(min_value=1, max_value=700), max_size=30),
)
@settings(max_examples=60, deadline=None)
def test_however_the_stream_is_cut_all_of_it_arrives_at_once(kind, messages, cuts):
    caller, records = pair(kind)
    ends, stream = [0], b""
    for message in messages:
        stream += sent(caller, message)
        ends.append(len(stream))
    fed = 0
    got = b""
    for size in [*cuts, len(stream)]:
        if chunk := stream[fed : fed + size]:
            fed += len(chunk)
            got += records.decrypt(chunk)
            complete = sum(1 for end in ends[1:] if end <= fed)
            assert got == b"".join(messages[:complete]), "what is complete is delivered, and nothing else"


@both_kinds
def test_a_chunk_as_long_as_the_record_that_it_ends_may_hold_a_second_one(kind):
    caller, records = pair(kind)
    first, second = sent(caller, b"m" * 100), sent(caller, b"s")
    part = len(second)
    assert records.decrypt(first[:part]) == b""
    rest = first[part:] + second
    assert len(rest) == len(first)
    assert records.decrypt(rest) == b"m" * 100 + b"s"


@both_kinds
@pytest.mark.parametrize("size", range(1, 60))
def test_a_part_of_a_record_gives_nothing_of_what_the_buffer_held_before(kind, size):
    other_caller, other = pair(kind)
    assert other.decrypt(sent(other_caller, b"secret of another connection" * 40))
    caller, records = pair(kind)
    ciphertext = sent(caller, b"m" * 100)
    assert records.decrypt(ciphertext[:size]) == b""
    assert records.decrypt(ciphertext[size:]) == b"m" * 100


@both_kinds
def test_connections_do_not_mix_though_they_share_a_buffer(kind):
    ends = [pair(kind) for _ in range(3)]
    for turn in range(5):
        for number, (caller, records) in enumerate(ends):
            text = b"%d from %d" % (turn, number)
            assert records.decrypt(sent(caller, text)) == text
            assert received(caller, records.encrypt(text)) == text


@both_kinds
def test_close_notify_ends_the_peers_side_only(kind):
    caller, records = pair(kind)
    last = sent(caller, b"last words")
    caller.shutdown()
    assert records.decrypt(last + drain(caller)) == b"last words"
    assert records.has_news and records.is_ended
    assert records.take_reply() == b"" and records.has_news
    ciphertext = records.encrypt(b"an answer")
    assert len(ciphertext) > 9


@both_kinds
def test_our_close_notify_is_read_as_one(kind):
    caller, records = pair(kind)
    notice = records.encrypt(b"x") + records.close()
    caller.bio_write(notice)
    assert caller.recv(10) == b"x"
    with pytest.raises(SSL.ZeroReturnError):
        caller.recv(10)
    assert records.close() == b""


def broken(ciphertext: bytes) -> bytes:
    return ciphertext[:-1] + bytes([ciphertext[-1] ^ 1])


@both_kinds
@pytest.mark.parametrize("size", [10, 16384, 100_000])
def test_a_broken_record_raises_and_leaves_an_alert(kind, size):
    caller, records = pair(kind)
    with pytest.raises(UnavailableError, match="bad record mac"):
        records.decrypt(broken(sent(caller, pattern(size))))
    alert = records.close()
    with pytest.raises(SSL.Error) as raised:
        received(caller, alert)
    assert "bad record mac" in str(raised.value)


@both_kinds
def test_one_connections_failure_is_not_anothers(kind):
    (bad_caller, bad), (caller, records) = pair(kind), pair(kind)
    with pytest.raises(UnavailableError):
        bad.decrypt(broken(sent(bad_caller, b"x")))
    ciphertext = sent(caller, b"whole")
    assert records.decrypt(ciphertext[:7]) == b""  # OpenSSL is asked for its errors here
    assert records.decrypt(ciphertext[7:]) == b"whole"
    with pytest.raises(UnavailableError):
        bad.encrypt(b"more")
    assert received(caller, records.encrypt(b"fine")) == b"fine"


@both_kinds
@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"\x17\x03\x03\x00\x05hello", b"\x16\x03\x01\xff\xff"]
)
def test_what_is_no_record_raises(kind, data):
    _, records = pair(kind)
    with pytest.raises(UnavailableError, match="TLS failed"):
        records.decrypt(data)


@both_kinds
def test_a_peers_fatal_alert_raises(kind):
    caller, records = pair(kind)
    with pytest.raises(SSL.Error):
        received(caller, broken(records.encrypt(b"x")))
    with pytest.raises(UnavailableError, match="alert bad record mac"):
        records.decrypt(drain(caller))


@both_kinds
def test_what_openssl_had_left_to_say_goes_out_before_the_first_answer(kind):
    caller, server = handshaken()
    server.send(b"left over, ")
    records = DirectRecords(server, SCRATCH) if kind == "direct" else PublicRecords(server)
    assert received(caller, records.encrypt(b"answer")) == b"left over, answer"


@both_kinds
def test_a_reply_that_is_fetched_late_is_not_sent_late(kind):
    caller, server = handshaken()
    server.send(b"left over, ")
    records = DirectRecords(server, SCRATCH) if kind == "direct" else PublicRecords(server)
    assert records.decrypt(sent(caller, b"one, ") + sent(caller, b"two")) == b"one, two"
    ciphertext = records.encrypt(b"answer") + records.take_reply() + records.encrypt(b"!")
    assert received(caller, ciphertext) == b"left over, answer!"


@both_kinds
def test_more_than_a_buffer_left_over_goes_out_whole(kind):
    caller, server = handshaken()
    for _ in range(5):
        server.send(b"z" * PLAINTEXT_BYTES)
    records = DirectRecords(server, SCRATCH) if kind == "direct" else PublicRecords(server)
    assert received(caller, records.encrypt(b"answer")) == b"z" * 5 * PLAINTEXT_BYTES + b"answer"


def test_a_buffer_holds_a_full_record_and_what_goes_before_it():
    assert BUFFER_BYTES > PIECE_BYTES > PLAINTEXT_BYTES
