"""A trust domain with real times, minted for a test run, and the policies that its tests share."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from sidecar.identity.spiffe_id import SpiffeId, parse_spiffe_id
from tests.fakes.certificates import DemoAuthority, Issued, key_usage
from tests.fakes.program import Identity
from tests.fakes.service import RecordingService

TRUST_DOMAIN = "demo.test"


class Domain:
    """``demo.test``, and a foreign domain that would like to be it. Identities are minted once and kept as files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made: dict[object, Identity] = {}
        now = datetime.now(UTC)
        self.now = now
        self.authority = DemoAuthority(TRUST_DOMAIN, now=now)
        self.foreign = DemoAuthority("other.test", now=now)
        self._bundle = directory / "bundle.pem"
        self._bundle.write_bytes(self.authority.bundle_pem)

    def id(self, name: str) -> SpiffeId:
        return parse_spiffe_id(f"spiffe://{TRUST_DOMAIN}/{name}")

    def identity(
        self,
        name: str,
        *,
        uris: Sequence[str] | None = None,
        not_before: timedelta | None = None,
        not_after: timedelta | None = None,
        ca: bool = False,
        client_auth: bool = True,
        fresh: int = 0,
    ) -> Identity:
        """Files of a workload's identity; ``fresh`` numbers make new ones of the same name."""
        known = (name, fresh)
        if known not in self._made:
            shape: dict[str, object] = {}
            if not_before is not None:
                shape["not_before"] = self.now + not_before
            if not_after is not None:
                shape["not_after"] = self.now + not_after
            if ca:
                shape["basic_constraints"] = (x509.BasicConstraints(ca=True, path_length=None), True)
                shape["key_usage"] = (key_usage("digital_signature", "key_cert_sign"), True)
            if not client_auth:
                shape["extended_key_usage"] = (
                    x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
                    False,
                )
            names = [str(self.id(name))] if uris is None else list(uris)
            self._made[known] = self._write(f"{name}-{fresh}", self.authority.issue(names, **shape))  # type: ignore[arg-type]
        return self._made[known]

    def foreign_identity(self, name: str) -> Identity:
        """A good identity of another trust domain."""
        return self._keep("foreign", self.foreign.issue(f"spiffe://other.test/{name}"))

    def forged_identity(self, name: str) -> Identity:
        """Our name, signed by another domain's authority."""
        return self._keep("forged", self.foreign.issue(str(self.id(name))))

    def self_signed(self, name: str) -> Identity:
        return self._keep("self-signed", self.authority.self_sign(str(self.id(name))))

    def leaf_sha256(self, name: str) -> str:
        """SHA-256 of the leaf's DER form, hex."""
        leaf = x509.load_pem_x509_certificate(self.identity(name).svid.read_bytes())
        return leaf.fingerprint(hashes.SHA256()).hex()

    def json_bundle(self) -> str:
        """The bundle in SPIFFE's JSON form."""
        certificate = self.authority.certificate
        point = certificate.public_key().public_numbers()  # type: ignore[union-attr]
        x, y = (_base64url(number.to_bytes(32, "big")) for number in (point.x, point.y))  # type: ignore[union-attr]
        der = base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()
        return json.dumps(
            {"keys": [{"use": "x509-svid", "kty": "EC", "crv": "P-256", "x": x, "y": y, "x5c": [der]}]}
        )

    def policy(
        self,
        *,
        everything: Sequence[str] = (),
        extra: Mapping[str, str] | None = None,
        agents: Sequence[str] = (),
    ) -> str:
        """web and batch may read orders; ``everything`` may do all; ``extra`` adds lines to an identity."""
        extra = extra or {}
        identities = []
        for name in dict.fromkeys(["web", "batch", *everything]):
            scopes = "[everything]" if name in everything else "[orders:read]"
            identities.append(self._entry(name, "service", scopes, extra.get(name)))
        for name in agents:
            identities.append(self._entry(name, "agent", "[orders:read]", "expires: 2099-01-01"))
        return (
            "version: 1\n"
            "owners:\n"
            '  team-shop: {contact: "#shop-oncall"}\n'
            "scopes:\n"
            "  orders:read:\n"
            '    - {methods: [GET, HEAD], paths: ["/orders", "/orders/**"]}\n'
            "  everything:\n"
            '    - {methods: [GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS], paths: ["/**"]}\n'
            "identities:\n" + "".join(identities)
        )

    def _entry(self, name: str, kind: str, scopes: str, line: str | None) -> str:
        more = f"    {line}\n" if line else ""
        return (
            f"  - id: {self.id(name)}\n    owner: team-shop\n    kind: {kind}\n    scopes: {scopes}\n{more}"
        )

    def _keep(self, name: str, issued: Issued) -> Identity:
        if name not in self._made:
            self._made[name] = self._write(name, issued)
        return self._made[name]

    def _write(self, name: str, issued: Issued) -> Identity:
        directory = self._directory / name
        directory.mkdir(parents=True)
        identity = Identity(directory / "svid.pem", directory / "svid_key.pem", self._bundle)
        identity.svid.write_bytes(issued.chain_pem)
        identity.key.touch(mode=0o600)
        identity.key.write_bytes(issued.key_pem)
        return identity


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture(scope="session")
def domain(tmp_path_factory: pytest.TempPathFactory) -> Domain:
    return Domain(tmp_path_factory.mktemp("domain"))


@pytest.fixture(scope="module")
def service() -> Iterator[RecordingService]:
    """A service that answers everything with 200, one for each file of tests; a file may have another in its place."""
    with RecordingService() as service:
        yield service
