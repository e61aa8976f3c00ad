"""The issuer's work: each entry has a certificate that is good for a while yet, and nobody else has one.

One :meth:`Issuer.tick` brings the files into the state that the entries ask for, and is called about twice a
second. What is due is decided by the certificate's own dates and the wall clock, so a restart, a suspended
machine or a stepped clock changes nothing: a certificate of another authority, one that has ended, one from
the future, a file that is gone or was changed are all simply due.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from sidecar.ca.authority import Authority
from sidecar.ca.leaf import issue_svid
from sidecar.clock import Clock, rfc3339
from sidecar.errors import SidecarError, StateError
from sidecar.identity.bundle import Bundle
from sidecar.identity.svid import Svid
from sidecar.issuer.authority_files import dump_certificate, dump_key
from sidecar.issuer.durable import Content, sync_directory, write_directory, write_files
from sidecar.issuer.entry import Entry
from sidecar.issuer.store import Store
from sidecar.sources.places import BUNDLE_FILE, KEY_FILE, SVID_FILE
from sidecar.sources.reading import Mark, mark_of, read_file, read_svid, verify_own

log = logging.getLogger(__name__)

RETRY_S: Final = 5.0
WARN_EVERY: Final = timedelta(days=1)
WARN_FRACTION: Final = 0.2

Fraction = Callable[[], float]
"""At which part of a lifetime to renew: about a half, and not the same for all."""


@dataclass(frozen=True, slots=True)
class Held:
    """What one entry's files hold, as long as their ``marks`` stand: a certificate with these dates."""

    marks: tuple[Mark, ...]
    not_before: datetime
    renew_at: datetime


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why one entry's certificate could not be made, and when to try again (``Clock.monotonic_s``)."""

    message: str
    retry_at_s: float


class Issuer:
    """Issues certificates of ``lifetime`` into ``store``. Whoever makes one holds the run lock."""

    def __init__(
        self, store: Store, authority: Authority, clock: Clock, lifetime: timedelta, fraction: Fraction
    ) -> None:
        self._store = store
        self._authority = authority
        self._clock = clock
        self._lifetime = lifetime
        self._fraction = fraction
        self._bundle = Bundle(store.trust_domain, (authority.certificate,))
        self._bundle_pem = dump_certificate(authority.certificate)
        self._held: dict[str, Held] = {}
        self._troubles: dict[str, Trouble] = {}
        self._left: set[str] = set()
        self._warned_at: datetime | None = None

    def tick(self) -> bool:
        """Issues what is due and removes what has no entry; whether all of it succeeded.

        The trouble of one entry is logged once and tried again after 5 s; it stops no other entry. Raises
        OSError only if the entries cannot be listed: then nothing is removed either.
        """
        entries = self._store.entries()
        self._warn_of_end()
        for name, entry in entries.items():
            trouble = self._troubles.get(name)
            if trouble is None or self._clock.monotonic_s() >= trouble.retry_at_s:
                self._keep(name, entry)
        self._remove_all_but(entries.keys())
        return not self._troubles

    def _keep(self, name: str, entry: Entry | StateError) -> None:
        try:
            if isinstance(entry, StateError):
                raise entry
            if self._is_due(name, entry):
                self._issue(name, entry)
        except (SidecarError, OSError) as exc:
            self._note(name, str(exc))
        except Exception as exc:  # noqa: BLE001 - boundary: one entry must not end the supply of all others
            self._note(name, f"{type(exc).__name__}: {exc}")
        else:
            if self._troubles.pop(name, None) is not None:
                log.info("the entry is in order again", extra={"entry": name})

    def _is_due(self, name: str, entry: Entry) -> bool:
        now = self._clock.now()
        held = self._held.pop(name, None)
        if held is None or held.marks != self._marks(entry):
            # Somebody is at files that were in order, and may be removing all of it: look once more before
            # mending.
            was_in_order = held is not None
            held = self._look(entry, now)
            if held is None:
                return not was_in_order
        self._held[name] = held
        return now >= held.renew_at or now < held.not_before

    def _look(self, entry: Entry, now: datetime) -> Held | None:
        """What the files hold, if a reader could use it: a restart must not issue everything anew."""
        places = self._store.places(entry.spiffe_id)
        marks = self._marks(entry)
        try:
            svid = read_svid(places, entry.spiffe_id)
            verify_own(svid, {self._store.trust_domain: self._bundle}, now)
            bundle = read_file(places.bundle, len(self._bundle_pem))
        except SidecarError:
            return None
        if bundle != self._bundle_pem or svid.not_after - now > self._lifetime:
            return None
        return Held(marks, svid.not_before, svid.not_after - self._lifetime * (1 - self._fraction()))

    def _issue(self, name: str, entry: Entry) -> None:
        now = self._clock.now()
        svid = issue_svid(self._authority, entry.spiffe_id, now, self._lifetime)
        self._write(entry, svid)
        renew_at = now + (svid.not_after - now) * self._fraction()
        self._held[name] = Held(self._marks(entry), svid.not_before, renew_at)
        log.info(
            "SVID issued",
            extra={
                "spiffe_id": str(entry.spiffe_id),
                "serial": svid.serial,
                "not_after": rfc3339(svid.not_after),
            },
        )

    def _write(self, entry: Entry, svid: Svid) -> None:
        """The first time all three appear in one step; later each does, the key and the chain last."""
        directory = self._store.places(entry.spiffe_id).svid.parent
        contents = [
            Content(BUNDLE_FILE, self._bundle_pem, 0o644),
            Content(KEY_FILE, dump_key(svid.private_key)),
            Content(SVID_FILE, b"".join(map(dump_certificate, svid.chain)), 0o644),
        ]
        if directory.is_dir():
            # The directory stays: a container may have mounted it.
            write_files(directory, contents)
        else:
            write_directory(directory, contents)

    def _marks(self, entry: Entry) -> tuple[Mark, ...]:
        places = self._store.places(entry.spiffe_id)
        return mark_of(places.svid), mark_of(places.key), mark_of(places.bundle)

    def _remove_all_but(self, names: Collection[str]) -> None:
        for known in [*self._held, *self._troubles]:
            if known not in names:
                self._held.pop(known, None)
                self._troubles.pop(known, None)
        for directory in self._store.svids.iterdir():
            if directory.name in names or directory.is_symlink() or not directory.is_dir():
                continue
            try:
                _remove_svid(directory)
            except OSError as exc:
                self._note_left(directory.name, exc)

    def _note(self, name: str, message: str) -> None:
        before = self._troubles.get(name)
        self._troubles[name] = Trouble(message, self._clock.monotonic_s() + RETRY_S)
        if before is None or before.message != message:
            log.error("no SVID for an entry; trying again", extra={"entry": name, "error": message})

    def _note_left(self, name: str, error: OSError) -> None:
        if name not in self._left:
            self._left.add(name)
            log.error(
                "the SVID of a removed entry is still there", extra={"entry": name, "error": str(error)}
            )

    def _warn_of_end(self) -> None:
        certificate, now = self._authority.certificate, self._clock.now()
        whole = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        left = certificate.not_valid_after_utc - now
        recently = self._warned_at is not None and timedelta(0) <= now - self._warned_at < WARN_EVERY
        if left < whole * WARN_FRACTION and not recently:
            self._warned_at = now
            log.warning(
                "the authority ends soon, and every certificate with it; make another one in time",
                extra={"not_after": rfc3339(certificate.not_valid_after_utc)},
            )


def _remove_svid(directory: Path) -> None:
    """Removes the three files that the issuer wrote, the key first, and the directory. Raises OSError."""
    for name in (KEY_FILE, SVID_FILE, BUNDLE_FILE):
        with contextlib.suppress(FileNotFoundError):
            (directory / name).unlink()
    os.rmdir(directory)  # refused where somebody put more into it, which is not ours to remove
    sync_directory(directory.parent)
    log.info("SVID removed", extra={"entry": directory.name})
