"""Where the files of one SVID are; what the issuer writes and the sources read has one layout. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sidecar.errors import ConfigurationError
from sidecar.identity.spiffe_id import SpiffeId

SVID_FILE: Final = "svid.pem"
KEY_FILE: Final = "svid_key.pem"
BUNDLE_FILE: Final = "bundle.pem"

# A file name has 255 bytes at most; this leaves room for an ending and for the mark of a temporary file.
MAX_NAME_BYTES: Final = 200


@dataclass(frozen=True, slots=True)
class Places:
    """The paths of chain (PEM, leaf first), key (PKCS#8 PEM) and bundle."""

    svid: Path
    key: Path
    bundle: Path


def entry_name(spiffe_id: SpiffeId) -> str:
    """The id's path as a file name: ``/a/b`` gives ``a+b``. :class:`ConfigurationError` if it is too long.

    No two ids of a trust domain share one, because ``+`` cannot stand in a SPIFFE path; and none starts with
    ``+``.
    """
    name = spiffe_id.path[1:].replace("/", "+")
    if len(name) > MAX_NAME_BYTES:
        raise ConfigurationError(
            f"the path of {str(spiffe_id)!r} has more than {MAX_NAME_BYTES} bytes; "
            "the issuer names files after it"
        )
    return name


def issued_places(issuer_dir: Path, spiffe_id: SpiffeId) -> Places:
    """Where the issuer in ``issuer_dir`` keeps this id's files. Raises as :func:`entry_name` does."""
    directory = issuer_dir / "svids" / entry_name(spiffe_id)
    return Places(directory / SVID_FILE, directory / KEY_FILE, directory / BUNDLE_FILE)
