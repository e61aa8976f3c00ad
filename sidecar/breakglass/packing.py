"""msgpack with the alternatives taken out, and maps read member by member with exact types. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgpack

from sidecar.errors import OrderRefused

MAX_TEXT_CHARS: Final = 1000
LATEST_S: Final = 253_402_300_799  # the last second that RFC 3339 can write


def pack(value: object) -> bytes:
    """``value`` in msgpack, each part in its shortest form."""
    return bytes(msgpack.packb(value, use_bin_type=True))


def unpack(data: bytes) -> object:
    """The one msgpack value that ``data`` is. Raises OrderRefused (``malformed``).

    No map has a member twice, no key is other than text or bytes, and there is no extension type. Timestamps
    and floats come through: whoever reads a member asks for its exact type.
    """
    try:
        return msgpack.unpackb(
            data, raw=False, strict_map_key=True, object_pairs_hook=_unique, ext_hook=_no_extension
        )
    except (ValueError, RecursionError) as exc:
        raise malformed("the bytes are no single msgpack value of the kinds that orders are made of") from exc


def malformed(message: str) -> OrderRefused:
    """The refusal of what cannot be read."""
    return OrderRefused("malformed", message)


class Fields:
    """A decoded map, member by member. Every type is exact: ``True`` is an ``int`` to isinstance.

    What is missing is refused as text, number or list that it is not.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, object]) -> None:
        self._fields = fields

    def has(self, name: str) -> bool:
        return name in self._fields

    def text(self, name: str) -> str:
        value = self._fields.get(name)
        if type(value) is not str:
            raise malformed(f"{name} has to be text, got {_kind(value)}")
        return value

    def sentence(self, name: str) -> str:
        """Something for people: not empty, one line, nothing that would move a cursor."""
        value = self.text(name)
        if not 0 < len(value) <= MAX_TEXT_CHARS or not value.isprintable() or value != value.strip():
            raise malformed(f"{name} has to be one line of 1 to {MAX_TEXT_CHARS} printable characters")
        return value

    def integer(self, name: str, least: int, most: int) -> int:
        value = self._fields.get(name)
        if type(value) is not int:
            raise malformed(f"{name} has to be a whole number, got {_kind(value)}")
        if not least <= value <= most:
            raise malformed(f"{name} has to be from {least} to {most}, got {value}")
        return value

    def seconds(self, name: str) -> int:
        """A moment after 1970 and before the year 10000."""
        return self.integer(name, 1, LATEST_S)

    def array(self, name: str, most: int) -> list[object]:
        value = self._fields.get(name)
        if type(value) is not list:
            raise malformed(f"{name} has to be a list, got {_kind(value)}")
        if not 0 < len(value) <= most:
            raise malformed(f"{name} has to have 1 to {most} members, got {len(value)}")
        return value


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__


def _unique(pairs: list[tuple[object, object]]) -> dict[object, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice")
    return members


def _no_extension(code: int, data: bytes) -> object:
    raise ValueError(f"extension type {code}")
