"""SVIDs of the product's own authority before ordinary TLS clients, which read the real clock and check host names."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime

import pytest

from sidecar.ca.authority import make_authority
from sidecar.ca.leaf import issue_svid
from sidecar.identity.spiffe_id import parse_workload_id
from tests.fakes.certificates import HOUR, key_pem, pem

pytestmark = pytest.mark.integration

WEB = parse_workload_id("spiffe://demo.test/web")


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> ssl.SSLObject:
    """Both sides in memory, over the standard library: what curl and other clients do."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    caller = client.wrap_bio(to_client, to_server, server_hostname=host)
    service = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [caller, service]
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
        if not waiting:
            return caller
    raise AssertionError("the handshake does not end")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_ordinary_clients_check_it_by_name_or_address(tmp_path, host):
    now = datetime.now(UTC)
    authority = make_authority("demo.test", now, HOUR)
    svid = issue_svid(authority, WEB, now)
    bundle, chain, key = tmp_path / "bundle.pem", tmp_path / "svid.pem", tmp_path / "svid_key.pem"
    bundle.write_bytes(pem(authority.certificate))
    chain.write_bytes(pem(*svid.chain))
    key.write_bytes(key_pem(svid.private_key))
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.load_cert_chain(chain, key)
    client.load_cert_chain(chain, key)
    for context in (server, client):
        context.load_verify_locations(bundle)
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    assert handshake(server, client, host).version() == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, client, "other.test")
