from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.breakglass.entries import (
    Ended,
    GrantAccepted,
    Reviewed,
    Revoked,
    TimeSeen,
    Used,
    UsedBefore,
    Voided,
    decode_entry,
    encode_entry,
)
from sidecar.breakglass.packing import pack
from sidecar.errors import StateError

ENTRIES = [
    GrantAccepted(1000.5, 1000.75, b"order"),
    Used(1.0, 2.0, "id", "call"),
    UsedBefore(1.0, 2.0, "id", 7, 0.5, 1.5),
    Ended(1.0, 2.0, "id"),
    Revoked(1.0, 2.0, b"order"),
    Reviewed(1.0, 2.0, b"order"),
    Voided(1795521600.123, 1795521600.123, "why"),
    TimeSeen(1795521600.0, 1795521600.0),
]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: type(entry).__name__)
def test_what_is_written_comes_back(entry):
    assert decode_entry(encode_entry(entry)) == entry


def test_whole_seconds_given_as_int_are_seconds_too():
    assert decode_entry(encode_entry(TimeSeen(7, 8))) == TimeSeen(7.0, 8.0)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        ["later", 1, 1],
        [1, 1, 1],
        ["time"],
        ["time", 1],
        ["time", 1, 1, 1],
        ["time", 1.0, 1],
        ["time", True, 1],
        ["use", 1, 1, "id"],
        ["use", 1, 1, "id", b"call"],
        ["grant", 1, 1, "order"],
        ["uses", 1, 1, "id", True, 1, 1],
    ],
    ids=repr,
)
def test_anything_else_is_damage(value):
    with pytest.raises(StateError):
        decode_entry(pack(value))


@given(st.binary(max_size=60))
def test_any_bytes_give_an_entry_or_damage(data):
    try:
        decode_entry(data)
    except StateError:
        pass
