"""An entry: one workload that the issuer keeps supplied with an SVID. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec

from sidecar.errors import ConfigurationError, IdentityError, StateError
from sidecar.identity.spiffe_id import SpiffeId, parse_workload_id
from sidecar.sources.places import entry_name

VERSION: Final = 1
MAX_ENTRY_BYTES: Final = 8192


@dataclass(frozen=True, slots=True)
class Entry:
    """Whom to issue to, and since when."""

    spiffe_id: SpiffeId
    added_at: datetime

    @property
    def name(self) -> str:
        """The file name that stands for it; see :func:`~sidecar.sources.places.entry_name`."""
        return entry_name(self.spiffe_id)


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    spiffe_id: str
    added_at: datetime


def parse_entry_id(text: str, trust_domain: str) -> SpiffeId:
    """The id that ``text`` spells, if the authority of ``trust_domain`` may issue to it.

    Raises :class:`ConfigurationError`: it is no workload's id, it is another trust domain's, or its path is
    too long.
    """
    try:
        spiffe_id = parse_workload_id(text)
    except IdentityError as exc:
        raise ConfigurationError(str(exc)) from exc
    if spiffe_id.trust_domain != trust_domain:
        raise ConfigurationError(
            f"{text!r} is in another trust domain; this authority issues for {trust_domain!r} only"
        )
    entry_name(spiffe_id)
    return spiffe_id


def dump_entry(entry: Entry) -> bytes:
    """The entry's file: one line of JSON."""
    stored = _Stored(VERSION, str(entry.spiffe_id), entry.added_at.astimezone(UTC))
    return msgspec.json.encode(stored) + b"\n"


def parse_entry(data: bytes, name: str, trust_domain: str) -> Entry:
    """The entry that :func:`dump_entry` wrote into the file ``name``. :class:`StateError` if it is damaged."""
    try:
        stored = msgspec.json.decode(data, type=_Stored)
        if stored.version != VERSION:
            raise StateError(f"the entry {name!r} has version {stored.version}, expected {VERSION}")
        if stored.added_at.tzinfo is None:
            raise StateError(f"the entry {name!r} is damaged: its time has no zone")
        entry = Entry(parse_entry_id(stored.spiffe_id, trust_domain), stored.added_at)
    except (msgspec.MsgspecError, UnicodeDecodeError, ConfigurationError) as exc:
        raise StateError(f"the entry {name!r} is damaged: {exc}") from exc
    if entry.name != name:
        raise StateError(f"the entry {name!r} is damaged: it holds the id {stored.spiffe_id!r}")
    return entry
