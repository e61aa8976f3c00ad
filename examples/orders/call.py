"""Make one call as a workload: its SVID as client certificate, the other side proved by SPIFFE ID.

Standard library only, so that it shows all that a caller needs. A SPIFFE certificate names a workload, not a
host: instead of a host name this checks the one URI in it. It prints the status, the refusal's reason if
there is one, and the body.

::

    python examples/orders/call.py --svid DIR --expect spiffe://demo.test/orders \\
        GET https://127.0.0.1:8443/orders/42

DIR holds ``svid.pem``, ``svid_key.pem`` and ``bundle.pem``, as the issuer writes them. Exit codes: 0 there
was an answer, whatever its status; 3 there was none, or from somebody else.
"""

from __future__ import annotations

import argparse
import http.client
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

TIMEOUT_S = 15.0


class WrongPeerError(Exception):
    """The certificate verifies, but for another workload."""


def build_context(svid: Path, *, with_certificate: bool = True) -> ssl.SSLContext:
    """TLS 1.3, trusting the bundle in ``svid`` and nothing else, with the SVID there as own certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # call() compares the SPIFFE ID instead
    context.load_verify_locations(cafile=svid / "bundle.pem")
    if with_certificate:
        context.load_cert_chain(svid / "svid.pem", svid / "svid_key.pem")
    return context


def uri_names(tls: ssl.SSLSocket) -> list[str]:
    """The URIs in the other side's certificate, which the handshake has verified against the bundle."""
    certificate = tls.getpeercert() or {}
    pairs = cast("tuple[tuple[str, str], ...]", certificate.get("subjectAltName", ()))
    return [value for kind, value in pairs if kind == "URI"]


def call(
    method: str, url: str, context: ssl.SSLContext, expect: str, body: bytes | None = None
) -> tuple[int, str, str]:
    """Status, ``sidecar-reason`` (empty if there is none) and body. Raises OSError and WrongPeerError."""
    parts = urlsplit(url)
    connection = http.client.HTTPSConnection(
        parts.hostname or "", parts.port, context=context, timeout=TIMEOUT_S
    )
    try:
        connection.connect()
        tls = connection.sock
        if not isinstance(tls, ssl.SSLSocket):
            raise WrongPeerError("the connection is not TLS")
        names = uri_names(tls)
        if names != [expect]:
            raise WrongPeerError(f"expected {expect}, the certificate names {names}")
        headers = {"content-type": "application/json"} if body is not None else {}
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers.get("sidecar-reason", ""), answer.read().decode(errors="replace")
    finally:
        connection.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Make the call that the arguments name; gives the exit code."""
    parser = argparse.ArgumentParser(prog="call", description="Make one call as a workload.")
    parser.add_argument(
        "--svid", required=True, type=Path, metavar="DIR", help="svid.pem, svid_key.pem, bundle.pem"
    )
    parser.add_argument("--expect", required=True, metavar="SPIFFE_ID", help="who has to answer")
    parser.add_argument("--no-certificate", action="store_true", help="show no client certificate")
    parser.add_argument("--data", metavar="JSON", help="request body")
    parser.add_argument("method")
    parser.add_argument("url")
    arguments = parser.parse_args(argv)
    context = build_context(arguments.svid, with_certificate=not arguments.no_certificate)
    body = None if arguments.data is None else arguments.data.encode()
    try:
        status, reason, text = call(arguments.method, arguments.url, context, arguments.expect, body)
    except (OSError, http.client.HTTPException, WrongPeerError) as exc:
        print(f"no answer: {exc}")
        return 3
    print(f"{status} {reason}".rstrip())
    print(text.rstrip("\n"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
