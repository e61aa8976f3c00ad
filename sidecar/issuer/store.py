"""The issuer's directory: the authority, whom it issues to, and what it issued.

::

    format                version of this layout
    trust-domain          name of the trust domain; written last, so that without it there is no authority
    authority.pem         the authority's certificate
    authority_key.pem     its key, 0600; opened by `issuer run` and by nothing else
    entries/NAME.json     one file per workload
    svids/NAME/           svid.pem, svid_key.pem (0600), bundle.pem
    change.lock, run.lock held while somebody changes it, and by the one process that issues

NAME is the path of the SPIFFE ID with its segments joined by ``+``. All of it is 0700, one user's, and files
change in one step. The authority lives a year and is never renewed in place, because everybody who trusts it
would have to learn of the new one first: make another directory in time, and hand out its bundle. The issuer
warns when a fifth is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509

from sidecar.ca.authority import Authority, make_authority
from sidecar.clock import Clock
from sidecar.errors import ConfigurationError, IdentityError, StateError
from sidecar.identity.spiffe_id import SpiffeId, parse_trust_domain
from sidecar.issuer.authority_files import dump_certificate, dump_key, parse_authority, parse_certificate
from sidecar.issuer.durable import TEMPORARY, Content, remove_temporaries, write_files
from sidecar.issuer.entry import MAX_ENTRY_BYTES, Entry, dump_entry, parse_entry
from sidecar.issuer.private import (
    FileLock,
    check_private_directory,
    locked,
    make_private_directory,
    read_private_file,
)
from sidecar.sources.places import Places, entry_name, issued_places

ENDING: Final = ".json"
FORMAT: Final = b"sidecar issuer 1\n"
MAX_FILE_BYTES: Final = 65536


@dataclass(frozen=True, slots=True)
class Store:
    """An issuer's directory that is in order; made by :func:`open_store` and :func:`init_store` only."""

    directory: Path
    trust_domain: str

    @property
    def svids(self) -> Path:
        """Where the issued files are."""
        return self.directory / "svids"

    def places(self, spiffe_id: SpiffeId) -> Places:
        """The files of one id."""
        return issued_places(self.directory, spiffe_id)

    def add(self, spiffe_id: SpiffeId, clock: Clock) -> bool:
        """Adds an entry, on disk when this returns; False if there was one. :class:`StateError`, OSError."""
        path = self._entry_path(entry_name(spiffe_id))
        with self._changing():
            if path.exists():
                return False
            content = Content(path.name, dump_entry(Entry(spiffe_id, clock.now())))
            write_files(path.parent, [content])
        return True

    def remove(self, spiffe_id: SpiffeId) -> bool:
        """Takes an entry out; False if there was none. Its files are removed by the process that issues."""
        path = self._entry_path(entry_name(spiffe_id))
        with self._changing():
            try:
                path.unlink()
            except FileNotFoundError:
                return False
        return True

    def entries(self) -> Mapping[str, Entry | StateError]:
        """Every entry by name, in order; a damaged one is its error. OSError when they cannot be listed."""
        found: dict[str, Entry | StateError] = {}
        for path in sorted((self.directory / "entries").iterdir()):
            if not path.name.endswith(ENDING) or path.name.startswith(TEMPORARY):
                continue
            name = path.name.removesuffix(ENDING)
            try:
                found[name] = parse_entry(read_private_file(path, MAX_ENTRY_BYTES), name, self.trust_domain)
            except StateError as exc:
                if path.exists():  # else it was removed a moment ago
                    found[name] = exc
        return found

    def load_certificate(self) -> x509.Certificate:
        """The authority's certificate. Raises :class:`StateError`."""
        return parse_certificate(self._read("authority.pem"))

    def issued_certificate(self, spiffe_id: SpiffeId) -> x509.Certificate | None:
        """The leaf that an entry has now; None while there is none that can be read."""
        try:
            data = read_private_file(self.places(spiffe_id).svid, MAX_FILE_BYTES)
            return x509.load_pem_x509_certificates(data)[0]
        except (StateError, ValueError):
            return None

    def load_authority(self) -> Authority:
        """The authority with its key: for the process that issues. Raises :class:`StateError`."""
        key = read_private_file(self.directory / "authority_key.pem", MAX_FILE_BYTES, is_secret=True)
        return parse_authority(self.trust_domain, self._read("authority.pem"), key)

    def run_lock(self) -> FileLock:
        """The lock of the one process that issues."""
        return FileLock(self.directory / "run.lock")

    def is_issuing(self) -> bool:
        """Whether a process issues here now. Raises :class:`StateError`."""
        lock = self.run_lock()
        try:
            return not lock.acquire(wait=False)
        finally:
            lock.release()

    def remove_temporaries(self) -> None:
        """Removes what a process killed while writing has left. For the holder of the run lock; OSError."""
        with self._changing():
            for directory in (self.directory, self.directory / "entries", self.svids):
                remove_temporaries(directory)
            for directory in self.svids.iterdir():
                if directory.is_dir() and not directory.is_symlink():
                    remove_temporaries(directory)

    def _read(self, name: str) -> bytes:
        return read_private_file(self.directory / name, MAX_FILE_BYTES)

    def _entry_path(self, name: str) -> Path:
        return self.directory / "entries" / f"{name}{ENDING}"

    def _changing(self) -> AbstractContextManager[None]:
        return locked(self.directory / "change.lock")


def open_store(directory: Path) -> Store:
    """The store in ``directory``.

    Raises :class:`ConfigurationError` if there is none yet, and :class:`StateError` if it is damaged, foreign, open to
    others, or of another format.
    """
    if not is_initialised(directory):
        raise ConfigurationError(
            f"there is no authority in {str(directory)!r}; sidecar issuer init --trust-domain NAME makes one"
        )
    check_private_directory(directory)
    for name in ("entries", "svids"):
        check_private_directory(directory / name)
    found = read_private_file(directory / "format", MAX_FILE_BYTES)
    if found != FORMAT:
        raise StateError(f"{str(directory)!r} is not of a format that this version reads: {found[:40]!r}")
    text = read_private_file(directory / "trust-domain", MAX_FILE_BYTES).decode("ascii", "replace")
    try:
        return Store(directory, parse_trust_domain(text.removesuffix("\n")))
    except IdentityError as exc:
        raise StateError(f"{str(directory / 'trust-domain')!r} is damaged: {exc}") from exc


def is_initialised(directory: Path) -> bool:
    """Whether ``directory`` has an authority."""
    return (directory / "trust-domain").exists()


def init_store(directory: Path, trust_domain: str, clock: Clock) -> Store:
    """Makes an authority for ``trust_domain`` in ``directory``, which is made too if it is missing.

    Raises :class:`ConfigurationError` if there is one already, whatever its trust domain, and
    :class:`StateError` or OSError if the directory cannot be used. An attempt that was interrupted is
    finished.
    """
    make_private_directory(directory)
    with locked(directory / "change.lock"):
        if is_initialised(directory):
            held = open_store(directory).trust_domain
            raise ConfigurationError(
                f"{str(directory)!r} already holds the authority of {held!r}; it is never overwritten. "
                "Name another directory, or remove this one and with it all that rests on it"
            )
        _write_store(directory, trust_domain, clock)
    return open_store(directory)


def ensure_store(directory: Path, trust_domain: str, clock: Clock) -> Store:
    """The store in ``directory``, made if missing. :class:`ConfigurationError` for another trust domain."""
    if not is_initialised(directory):
        make_private_directory(directory)
        with locked(directory / "change.lock"):
            # Two sidecars that start at once: the second finds what the first has made.
            if not is_initialised(directory):
                _write_store(directory, trust_domain, clock)
    store = open_store(directory)
    if store.trust_domain != trust_domain:
        raise ConfigurationError(
            f"{str(directory)!r} holds the authority of {store.trust_domain!r}, not of {trust_domain!r}"
        )
    return store


def _write_store(directory: Path, trust_domain: str, clock: Clock) -> None:
    for name in ("entries", "svids"):
        make_private_directory(directory / name)
    contents = [Content("format", FORMAT)]
    if (directory / "authority.pem").exists():
        # Interrupted before the name was written: this authority has issued nothing yet, and it may be the
        # right one.
        key = read_private_file(directory / "authority_key.pem", MAX_FILE_BYTES, is_secret=True)
        parse_authority(trust_domain, read_private_file(directory / "authority.pem", MAX_FILE_BYTES), key)
    else:
        authority = make_authority(trust_domain, clock.now())
        contents += [
            Content("authority_key.pem", dump_key(authority.private_key)),
            Content("authority.pem", dump_certificate(authority.certificate), 0o644),
        ]
    write_files(directory, contents)
    write_files(directory, [Content("trust-domain", f"{trust_domain}\n".encode(), 0o644)])
