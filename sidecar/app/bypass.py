"""Whether the service can be reached around the sidecar: tries its port on this machine's other addresses."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Iterable
from pathlib import Path

from sidecar.settings import Upstream

TRY_TIMEOUT_S = 0.5
MAX_ADDRESSES = 64

_LOCAL_IPV4 = re.compile(r"\|-- ([0-9.]+)\n\s+/32 host LOCAL")


def local_addresses(proc: Path = Path("/proc/net")) -> list[str]:
    """This network namespace's own addresses as Linux lists them, without loopback and link-local ones."""
    found: dict[str, None] = {}
    for text in [*_read_ipv4(proc / "fib_trie"), *_read_ipv6(proc / "if_inet6")]:
        address = ipaddress.ip_address(text)
        if not (address.is_loopback or address.is_link_local or address.is_unspecified):
            found[str(address)] = None
    return list(found)[:MAX_ADDRESSES]


async def find_bypass(upstream: Upstream, addresses: Iterable[str]) -> list[str]:
    """Those of ``addresses`` that accept a connection to the upstream's port; nothing is sent to them."""
    if upstream.kind == "unix" or not upstream.is_local:
        return []
    tried = list(addresses)
    answers = await asyncio.gather(*(_answers(address, upstream.port) for address in tried))
    return [address for address, answer in zip(tried, answers, strict=True) if answer]


async def _answers(address: str, port: int) -> bool:
    try:
        async with asyncio.timeout(TRY_TIMEOUT_S):
            _, writer = await asyncio.open_connection(address, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _read_ipv4(path: Path) -> list[str]:
    try:
        return _LOCAL_IPV4.findall(path.read_text())
    except OSError:
        return []


def _read_ipv6(path: Path) -> list[str]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return []
    packed = (bytes.fromhex(line.split()[0]) for line in lines if line)
    return [str(ipaddress.IPv6Address(each)) for each in packed]
