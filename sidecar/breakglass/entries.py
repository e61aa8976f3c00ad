"""What the journal of grants holds: one msgpack array per entry, and the values they stand for. Pure.

``[kind, wall, seen, ...]``: when it happened by the wall clock, and the highest wall time known then, both in
milliseconds since 1970. Orders are kept as the bytes that were sent, so that their signatures can be judged
again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Final

from sidecar.breakglass.packing import pack, unpack
from sidecar.errors import OrderRefused, StateError


@dataclass(frozen=True, slots=True)
class GrantAccepted:
    """A grant counts from here on. ``order`` is its file, whole."""

    wall_s: float
    seen_s: float
    order: bytes


@dataclass(frozen=True, slots=True)
class Used:
    """One call has gone on under a grant."""

    wall_s: float
    seen_s: float
    grant_id: str
    call_id: str


@dataclass(frozen=True, slots=True)
class UsedBefore:
    """The sum of uses whose own entries a rewrite left out."""

    wall_s: float
    seen_s: float
    grant_id: str
    count: int
    first_s: float
    last_s: float


@dataclass(frozen=True, slots=True)
class Ended:
    """A grant has ended by one of the clocks, and stays so whatever they say later."""

    wall_s: float
    seen_s: float
    grant_id: str


@dataclass(frozen=True, slots=True)
class Revoked:
    """A revocation, as it was sent."""

    wall_s: float
    seen_s: float
    order: bytes


@dataclass(frozen=True, slots=True)
class Reviewed:
    """A review, as it was sent."""

    wall_s: float
    seen_s: float
    order: bytes


@dataclass(frozen=True, slots=True)
class Voided:
    """Every grant before this entry is void, and so is one that was signed before ``wall_s``."""

    wall_s: float
    seen_s: float
    why: str


@dataclass(frozen=True, slots=True)
class TimeSeen:
    """Nothing happened, but time went by."""

    wall_s: float
    seen_s: float


Entry = GrantAccepted | Used | UsedBefore | Ended | Revoked | Reviewed | Voided | TimeSeen

_KINDS: Final[dict[str, tuple[type[Entry], tuple[type, ...]]]] = {
    "grant": (GrantAccepted, (bytes,)),
    "use": (Used, (str, str)),
    "uses": (UsedBefore, (str, int, float, float)),
    "end": (Ended, (str,)),
    "revocation": (Revoked, (bytes,)),
    "review": (Reviewed, (bytes,)),
    "void": (Voided, (str,)),
    "time": (TimeSeen, ()),
}
_NAMES: Final = {made: name for name, (made, _) in _KINDS.items()}


def encode_entry(entry: Entry) -> bytes:
    """The bytes of ``entry``."""
    name = _NAMES[type(entry)]
    values = [getattr(entry, field.name) for field in fields(entry)]
    # Times go as whole milliseconds: the encoding has no floats.
    wire = [
        round(value * 1000) if kind is float else value
        for value, kind in zip(values, _shape(name), strict=True)
    ]
    return pack([name, *wire])


def decode_entry(data: bytes) -> Entry:
    """The entry in ``data``. Raises :class:`StateError` for one of an unknown kind or another shape."""
    try:
        parts = unpack(data)
    except OrderRefused as exc:
        raise StateError(f"an entry of the journal of grants cannot be read: {exc}") from exc
    if type(parts) is not list or not parts or type(parts[0]) is not str or parts[0] not in _KINDS:
        raise StateError("an entry of the journal of grants is of no known kind; a later version wrote it")
    name, values = parts[0], parts[1:]
    shape = _shape(name)
    if [type(value) for value in values] != [int if kind is float else kind for kind in shape]:
        raise StateError(f"an entry {name!r} of the journal of grants has another shape")
    made: Callable[..., Entry] = _KINDS[name][0]
    return made(
        *(value / 1000 if kind is float else value for value, kind in zip(values, shape, strict=True))
    )


def _shape(name: str) -> tuple[type, ...]:
    return (float, float, *_KINDS[name][1])
