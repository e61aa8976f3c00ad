"""Reading the files of an SVID: bounded, never blocking, and the key only if it is private."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from sidecar.errors import ConfigurationError, IdentityError
from sidecar.identity.bundle import Bundles, parse_any_bundle
from sidecar.identity.spiffe_id import SpiffeId
from sidecar.identity.svid import Svid, parse_svid
from sidecar.sources.places import Places
from sidecar.tls.verify import verify_peer

MAX_SVID_BYTES: Final = 1 << 20
MAX_BUNDLE_BYTES: Final = 4 << 20
_CHUNK_BYTES: Final = 1 << 16

Mark = tuple[int, int, int, int, int] | None
"""What changes when a file does, its target when it is a link; None while there is none."""


def mark_of(path: Path) -> Mark:
    """The mark of ``path`` now, through symbolic links, as a ConfigMap's are."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return _mark(status)


def read_svid(places: Places, expected: SpiffeId | None) -> Svid:
    """The SVID in ``places``: chain and key fit each other, and it is ``expected``'s if that is given.

    Raises :class:`ConfigurationError` for a file that cannot be read or whose key is not private, and
    :class:`IdentityError` for what is in them. Neither end nor authority is judged here.
    """
    chain = read_file(places.svid, MAX_SVID_BYTES)
    key = read_file(places.key, MAX_SVID_BYTES, _check_private)
    try:
        svid = parse_svid(chain, key)
    except IdentityError as exc:
        raise IdentityError(
            exc.rule, f"the SVID in {str(places.svid)!r} with the key in {str(places.key)!r}: {exc}"
        ) from exc
    if expected is not None and svid.spiffe_id != expected:
        raise IdentityError(
            "own-id",
            f"the SVID in {str(places.svid)!r} is for {str(svid.spiffe_id)!r}, expected {str(expected)!r}",
        )
    return svid


def read_bundles(path: Path, trust_domain: str) -> Bundles:
    """The bundles in ``path``; one that does not name its trust domain is that of ``trust_domain``.

    Raises as :func:`read_svid` does. A bundle without authorities is one: nobody is trusted.
    """
    data = read_file(path, MAX_BUNDLE_BYTES)
    try:
        return parse_any_bundle(trust_domain, data)
    except IdentityError as exc:
        raise IdentityError(exc.rule, f"the bundle in {str(path)!r}: {exc}") from exc


def verify_own(svid: Svid, bundles: Bundles, now: datetime) -> None:
    """Judges the own SVID as any peer would. :class:`IdentityError` when it would be refused."""
    try:
        verify_peer(svid.chain, bundles, now)
    except IdentityError as exc:
        raise IdentityError(exc.rule, f"the own SVID does not hold before the own bundle: {exc}") from exc


def read_file(
    path: Path, limit_bytes: int, check: Callable[[Path, os.stat_result], None] | None = None
) -> bytes:
    """The bytes of a regular file; ``check`` judges its owner and mode before any is read.

    Raises :class:`ConfigurationError` if it is missing, no regular file, empty, too large, or written to
    meanwhile. A pipe or a device in its place is refused and never waited for.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as exc:
        raise ConfigurationError(f"{str(path)!r} cannot be read: {exc.strerror}") from exc
    try:
        return _read_open_file(descriptor, path, limit_bytes, check)
    except OSError as exc:
        raise ConfigurationError(f"{str(path)!r} cannot be read: {exc.strerror}") from exc
    finally:
        os.close(descriptor)


def _read_open_file(
    descriptor: int, path: Path, limit_bytes: int, check: Callable[[Path, os.stat_result], None] | None
) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(f"{str(path)!r} is not a regular file")
    if check is not None:
        check(path, status)
    data = bytearray()
    while len(data) <= limit_bytes and (chunk := os.read(descriptor, _CHUNK_BYTES)):
        data += chunk
    if len(data) > limit_bytes:
        raise ConfigurationError(f"{str(path)!r} is larger than {limit_bytes} bytes")
    if not data:
        raise ConfigurationError(f"{str(path)!r} is empty")
    if _mark(os.fstat(descriptor)) != _mark(status):
        raise ConfigurationError(f"{str(path)!r} was written to while it was read")
    return bytes(data)


def _check_private(path: Path, status: os.stat_result) -> None:
    """The key is for one reader. A group may read it only where it is not ours and reaches us that way.

    That is how Kubernetes gives a file to a user (``fsGroup``): it belongs to root and to a group of ours.
    """
    is_ours = status.st_uid == os.geteuid()
    forbidden = stat.S_IRWXO | (stat.S_IRWXG if is_ours else stat.S_IWGRP | stat.S_IXGRP)
    if status.st_mode & forbidden:
        raise ConfigurationError(
            f"the key {str(path)!r} is open to others (mode {stat.S_IMODE(status.st_mode):04o}); "
            "chmod it to 0600"
        )


def _mark(status: os.stat_result) -> Mark:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
