"""The server's TLS context: one immutable one per snapshot."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from OpenSSL import SSL

from sidecar.clock import Clock
from sidecar.errors import ConfigurationError, IdentityError
from sidecar.identity.svid import Snapshot, Svid
from sidecar.tls.judgement import MAX_CHAIN_CERTIFICATES, Judgement, build_judge
from sidecar.tls.refusal import ALPN

HTTP_1_1: Final = b"http/1.1"

# INVARIANT: each of these adds 22 bytes to a record's payload; sidecar.tls.records counts on it.
CIPHER_SUITES: Final = b"TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256"


@dataclass(frozen=True, slots=True)
class ServerContext:
    """What new handshakes are made with: own chain and key, and a judge that knows the snapshot's bundles.

    ``own_not_after_s`` is the own leaf's end, Unix seconds.
    """

    generation: int
    own_not_after_s: float
    _context: SSL.Context = field(repr=False)

    def begin(self, judgement: Judgement) -> SSL.Connection:
        """A connection over memory BIOs that waits for a ClientHello and leaves its verdict in ``judgement``."""
        connection = SSL.Connection(self._context, None)
        connection.set_app_data(judgement)
        connection.set_accept_state()
        return connection


def build_server_context(snapshot: Snapshot, clock: Clock) -> ServerContext:
    """A context that proves peers against ``snapshot``'s bundles, at ``clock``'s time. About 0.3 ms.

    Raises :class:`ConfigurationError` if the own SVID does not fit together, or OpenSSL is set up by a file.
    """
    check_environment(os.environ)
    try:
        context = _strict_context()
        _load_svid(context, snapshot.svid)
    except (SSL.Error, TypeError, ValueError) as exc:
        raise ConfigurationError(f"the own SVID cannot be used for TLS: {explain(exc)}") from exc
    # No authority is ever loaded: OpenSSL proves possession of the key, the judge everything else.
    context.set_verify(
        SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, build_judge(snapshot.bundles, clock)
    )
    context.set_verify_depth(MAX_CHAIN_CERTIFICATES - 1)
    context.set_alpn_select_callback(_choose_protocol)
    return ServerContext(snapshot.generation, snapshot.svid.not_after.timestamp(), context)


def check_environment(environ: Mapping[str, str]) -> None:
    """Raises :class:`ConfigurationError` if a file of the environment's choosing may weaken TLS behind our back."""
    path = environ.get("OPENSSL_CONF", "")
    if path not in ("", os.devnull):
        raise ConfigurationError(
            f"OPENSSL_CONF is {path!r}: an OpenSSL configuration can weaken TLS; unset the variable"
        )


def explain(error: Exception) -> str:
    """OpenSSL's reasons in one line; the exception's own text or name if there are none."""
    queue = error.args[0] if error.args else None
    if isinstance(error, SSL.Error) and isinstance(queue, list):
        return "; ".join(str(entry[-1]) for entry in queue) or type(error).__name__
    return str(error) or type(error).__name__


def _strict_context() -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    context.set_tls13_ciphersuites(CIPHER_SUITES)
    # Both are needed to turn resumption off, which would skip the judge. OpenSSL still sends tickets, as it
    # has no switch for that which pyOpenSSL knows (openssl/openssl#8077): they name sessions that nobody
    # keeps, and end after a second.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.set_timeout(1)  # 0 would mean the default
    # 27 KiB less for each connection that is idle.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    return context


def _load_svid(context: SSL.Context, svid: Svid) -> None:
    leaf, *rest = svid.chain
    context.use_certificate(leaf)
    for each in rest:
        context.add_extra_chain_cert(each)
    context.use_privatekey(svid.private_key)  # type: ignore[arg-type]


def _choose_protocol(connection: SSL.Connection, offered: list[bytes]) -> bytes:
    """HTTP/1.1. What raises here becomes the alert no_application_protocol, and then the handshake's own error.

    Not called for a peer that offers nothing; it gets HTTP/1.1 too.
    """
    if HTTP_1_1 in offered:
        return HTTP_1_1
    raise IdentityError(ALPN, f"the peer offers {offered[:8]!r} and only http/1.1 is served")
