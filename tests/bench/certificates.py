"""The benchmark's trust domain, minted anew for each run: what Envoy and the sidecar are both given."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.bench.peers import ORDERS, TRUST_DOMAIN, WEB, Files
from tests.fakes.certificates import DemoAuthority


def write_certificates(directory: Path) -> tuple[Files, Files]:
    """Files of the caller and of the proxies' own identity, good for a day."""
    now = datetime.now(UTC)
    authority = DemoAuthority(TRUST_DOMAIN, now=now)
    bundle = directory / "bundle.pem"
    bundle.write_bytes(authority.bundle_pem)
    made = []
    for name, spiffe_id in (("web", WEB), ("orders", ORDERS)):
        issued = authority.issue(spiffe_id, not_after=now + timedelta(days=1))
        files = Files(directory / f"{name}.pem", directory / f"{name}-key.pem", bundle)
        files.svid.write_bytes(issued.chain_pem)
        files.key.touch(mode=0o600)
        files.key.write_bytes(issued.key_pem)
        made.append(files)
    return made[0], made[1]
