from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.breakglass.packing import LATEST_S, MAX_TEXT_CHARS, Fields, pack, unpack
from sidecar.errors import OrderRefused

TEXT = st.text("ab \n\x1bé😀")
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | TEXT | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=20,
)


@given(PLAIN)
def test_what_is_packed_comes_back(value):
    assert unpack(pack(value)) == value


@given(st.binary(max_size=300))
def test_any_bytes_give_a_value_or_a_refusal(data):
    try:
        unpack(data)
    except OrderRefused as exc:
        assert exc.code == "malformed"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xc1", id="never used byte"),
        pytest.param(b"\x01\x01", id="two values"),
        pytest.param(b"\x82\xa1a\x01\xa1a\x02", id="a member twice"),
        pytest.param(b"\x81\x01\x02", id="a number as key"),
        pytest.param(b"\x81\x90\x02", id="a list as key"),
        pytest.param(b"\xd4\x05\x00", id="extension"),
        pytest.param(b"\xa1\xff", id="text that is no UTF-8"),
        pytest.param(b"\xa3\xed\xa0\x80", id="a surrogate"),
        pytest.param(b"\x91" * 5000 + b"\x01", id="nested too deep"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="a list of four thousand millions"),
        pytest.param(b"\xc6\xff\xff\xff\xff", id="bytes that are not there"),
    ],
)
def test_what_is_no_plain_value_is_refused(data):
    with pytest.raises(OrderRefused) as refusal:
        unpack(data)
    assert refusal.value.code == "malformed"


WRONG_TYPES = [None, True, 1.0, float("nan"), "7", b"7", [7], {"a": 7}, msgpack.Timestamp(7)]


@pytest.mark.parametrize("value", WRONG_TYPES, ids=repr)
def test_a_number_is_exactly_an_int(value):
    with pytest.raises(OrderRefused, match="whole number"):
        Fields({"n": value}).integer("n", 0, 10)


@pytest.mark.parametrize("value", [None, 7, b"text", ["text"]], ids=repr)
def test_text_is_exactly_text(value):
    with pytest.raises(OrderRefused, match="has to be text"):
        Fields({"t": value}).text("t")


@pytest.mark.parametrize("value", [None, "ab", (1,), {"a": 1}, b"ab"], ids=repr)
def test_a_list_is_exactly_a_list(value):
    with pytest.raises(OrderRefused, match="has to be a list"):
        Fields({"l": value}).array("l", 3)


@pytest.mark.parametrize(("value", "ok"), [(0, False), (1, True), (5, True), (6, False), (-1, False)])
def test_numbers_stay_in_their_bounds(value, ok):
    fields = Fields({"n": value})
    if ok:
        assert fields.integer("n", 1, 5) == value
    else:
        with pytest.raises(OrderRefused, match="from 1 to 5"):
            fields.integer("n", 1, 5)


@pytest.mark.parametrize(("value", "ok"), [(0, False), (1, True), (LATEST_S, True), (LATEST_S + 1, False)])
def test_seconds_can_be_written_as_a_date(value, ok):
    fields = Fields({"s": value})
    if ok:
        assert fields.seconds("s") == value
    else:
        with pytest.raises(OrderRefused):
            fields.seconds("s")


@pytest.mark.parametrize(("length", "ok"), [(0, False), (1, True), (3, True), (4, False)])
def test_lists_have_a_bound(length, ok):
    fields = Fields({"l": [0] * length})
    if ok:
        assert fields.array("l", 3) == [0] * length
    else:
        with pytest.raises(OrderRefused, match="1 to 3 members"):
            fields.array("l", 3)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " a",
        "a ",
        "a\nb",
        "a\x1b[2J",
        "a\u2028b",
        "a\u202eb",
        "a\x7f",
        "a\u00a0b",
        "x" * (MAX_TEXT_CHARS + 1),
    ],
    ids=repr,
)
def test_a_sentence_is_one_printable_line(text):
    with pytest.raises(OrderRefused, match="one line"):
        Fields({"s": text}).sentence("s")


@pytest.mark.parametrize("text", ["INC-4711 stuck order", "störung – bitte öffnen", "x" * MAX_TEXT_CHARS])
def test_sentences(text):
    assert Fields({"s": text}).sentence("s") == text
