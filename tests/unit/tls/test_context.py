from __future__ import annotations

import os
from dataclasses import FrozenInstanceError

import pytest
from OpenSSL import SSL

from sidecar.errors import ConfigurationError
from sidecar.identity.svid import Svid
from sidecar.tls.context import CIPHER_SUITES, build_server_context, check_environment, explain
from sidecar.tls.judgement import Judgement
from sidecar.tls.records import drain
from tests.fakes.certificates import DemoAuthority, new_key
from tests.fakes.secure import World

WORLD = World()


def shake_hands(server: SSL.Connection, context: SSL.Context, session: object = None) -> SSL.Connection:
    """A caller that has finished its handshake with ``server``. Raises SSL.Error as the server's side does."""
    caller = SSL.Connection(context, None)
    caller.set_connect_state()
    if session is not None:
        caller.set_session(session)
    for _ in range(3):
        for one, other in ((caller, server), (server, caller)):
            try:
                one.do_handshake()
            except SSL.WantReadError:
                pass
            if data := drain(one):
                other.bio_write(data)
    try:
        caller.recv(1)  # tickets are read here
    except SSL.WantReadError:
        pass
    return caller


def caller_context(issued=WORLD.web) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.use_certificate(issued.leaf)
    for each in issued.chain[1:]:
        context.add_extra_chain_cert(each)
    context.use_privatekey(issued.private_key)
    return context


def test_a_context_proves_a_peer_and_says_what_it_was_made_of():
    context = WORLD.context(generation=9)()
    judgement = Judgement()
    caller = shake_hands(context.begin(judgement), caller_context())
    assert str(judgement.spiffe_id) == "spiffe://demo.test/web"
    assert caller.get_peer_certificate(as_cryptography=True) == WORLD.own.leaf
    assert context.generation == 9
    assert context.own_not_after_s == WORLD.own.svid.not_after.timestamp()


def test_a_context_never_changes():
    context = WORLD.context()()
    with pytest.raises(FrozenInstanceError):
        context.generation = 2  # type: ignore[misc]
    context.begin(Judgement())
    with pytest.raises(ValueError):
        context._context.set_verify(SSL.VERIFY_NONE)


def test_the_whole_own_chain_is_presented():
    issued = DemoAuthority(parent=WORLD.authority).issue("spiffe://demo.test/orders")
    caller = shake_hands(WORLD.context(svid=issued.svid)().begin(Judgement()), caller_context())
    assert caller.get_peer_cert_chain(as_cryptography=True) == list(issued.chain)


def test_the_key_exchange_is_hybrid_and_the_version_1_3():
    caller = shake_hands(WORLD.context()().begin(Judgement()), caller_context())
    assert caller.get_group_name() == "X25519MLKEM768"
    assert caller.get_protocol_version_name() == "TLSv1.3"


def test_what_is_relied_on_is_set_and_not_left_to_defaults():
    context = WORLD.context()()
    assert context._context.get_session_cache_mode() == SSL.SESS_CACHE_OFF
    assert context._context.get_timeout() == 1
    suites = [suite.decode() for suite in CIPHER_SUITES.split(b":")]
    assert context.begin(Judgement()).get_cipher_list()[: len(suites)] == suites


def test_the_verdict_is_about_the_clocks_time():
    world = World()
    context = world.context()()
    world.clock.advance(3600)
    judgement = Judgement()
    shake_hands(context.begin(judgement), caller_context(world.web))
    world.clock.advance(1)
    late = Judgement()
    with pytest.raises(SSL.Error):
        shake_hands(context.begin(late), caller_context(world.web))
    assert judgement.spiffe_id is not None and late.spiffe_id is None and late.refusal is not None


def with_tickets() -> SSL.Context:
    """A server with the same key that does resume."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate(WORLD.own.leaf)
    context.use_privatekey(WORLD.own.private_key)
    context.set_session_id(b"x")
    return context


def resumed(first: SSL.Connection, second: SSL.Connection) -> bool:
    """Whether a caller of the first server resumes its session with the second one."""
    context = caller_context()
    caller = shake_hands(first, context)
    again = shake_hands(second, context, caller.get_session())
    return bool(SSL._lib.SSL_session_reused(again._ssl))


def accepting(context: SSL.Context) -> SSL.Connection:
    connection = SSL.Connection(context, None)
    connection.set_accept_state()
    return connection


def test_e23_no_session_is_resumed_ours_or_anothers():
    lenient = with_tickets()
    assert resumed(accepting(lenient), accepting(lenient)), "the test can tell"
    ours = WORLD.context()()
    for first in (ours.begin(Judgement()), accepting(lenient)):
        judgement = Judgement()
        assert not resumed(first, ours.begin(judgement))
        assert judgement.spiffe_id is not None, "judged again"


def test_e24_early_data_is_off():
    early = with_tickets()
    SSL._lib.SSL_CTX_set_max_early_data(early._context, 16384)
    for connection, most in ((accepting(early), 16384), (WORLD.context()().begin(Judgement()), 0)):
        caller = shake_hands(connection, caller_context())
        session = caller.get_session()
        assert session is not None
        assert SSL._lib.SSL_SESSION_get_max_early_data(session._session) == most


def test_a_key_of_another_leaf_is_an_error():
    svid = Svid(WORLD.own.svid.spiffe_id, WORLD.own.chain, new_key())
    with pytest.raises(ConfigurationError, match="the own SVID cannot be used for TLS: key values mismatch"):
        build_server_context(WORLD.snapshot(svid=svid), WORLD.clock)


def test_an_svid_without_certificates_is_an_error():
    svid = Svid(WORLD.own.svid.spiffe_id, (), WORLD.own.private_key)
    with pytest.raises(ConfigurationError, match="cannot be used for TLS"):
        build_server_context(WORLD.snapshot(svid=svid), WORLD.clock)


def test_no_bundles_trust_nobody():
    judgement = Judgement()
    with pytest.raises(SSL.Error):
        shake_hands(WORLD.context(bundles={})().begin(judgement), caller_context())
    assert judgement.refusal is not None


@pytest.mark.parametrize("environ", [{}, {"OPENSSL_CONF": ""}, {"OPENSSL_CONF": os.devnull}])
def test_an_environment_without_openssls_file_is_fine(environ):
    check_environment(environ)


def test_openssls_file_is_refused(monkeypatch):
    monkeypatch.setenv("OPENSSL_CONF", "/etc/weak.cnf")
    with pytest.raises(ConfigurationError, match=r"OPENSSL_CONF is '/etc/weak.cnf'.*unset the variable"):
        WORLD.context()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SSL.Error([("SSL routines", "", "no shared cipher")]), "no shared cipher"),
        (SSL.Error([("a", "", "one"), ("b", "", "two")]), "one; two"),
        (SSL.Error([]), "Error"),
        (SSL.SysCallError(-1, "Unexpected EOF"), "(-1, 'Unexpected EOF')"),
        (ValueError("bad"), "bad"),
        (ValueError(), "ValueError"),
    ],
)
def test_errors_are_explained_in_one_line(error, text):
    assert explain(error) == text
