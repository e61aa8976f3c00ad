"""Request ids are ULIDs, unique and in order; trace context is continued only if it is valid."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.proxy import request_id
from sidecar.proxy.request_id import RequestIds, encode_base32, parse_traceparent, parse_tracestate

TRACE = b"4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = b"00f067aa0ba902b7"
ULID = re.compile("[0-7][0-9A-HJKMNP-TV-Z]{25}")


def test_an_id_is_a_ulid_of_its_time() -> None:
    text = RequestIds().new(1_469_918_176.385)  # the example of the ULID text
    assert ULID.fullmatch(text) and text.startswith("01ARYZ6S41")


def test_ids_are_unique_and_sort_in_the_order_in_which_they_were_made() -> None:
    ids = RequestIds()
    made = [ids.new(1_700_000_000 + number // 500 / 1000) for number in range(5000)]
    assert len(set(made)) == 5000 and made == sorted(made)


def test_a_clock_that_steps_back_makes_no_id_twice() -> None:
    ids = RequestIds()
    made = [ids.new(1_700_000_000 - number % 3) for number in range(3000)]
    assert len(set(made)) == 3000


def test_ids_stay_unique_and_in_order_when_the_count_runs_out() -> None:
    ids = RequestIds()
    ids._count = (1 << request_id._COUNT_BITS) - 2
    made = [ids.new(1_700_000_000) for _ in range(5)]
    assert len(set(made)) == 5 and made == sorted(made)
    assert all(ULID.fullmatch(each) for each in made)


def test_two_makers_do_not_make_the_same() -> None:
    assert RequestIds().new(1.0) != RequestIds().new(1.0)
    assert RequestIds(b"seed").new(1.0) == RequestIds(b"seed").new(1.0)


@given(st.integers(0, (1 << 48) - 1))
def test_the_time_is_encoded_as_any_number(millisecond: int) -> None:
    assert request_id._encode_time(millisecond) == encode_base32(millisecond, 10)


@pytest.mark.parametrize(
    ("value", "length", "text"), [(0, 2, "00"), (31, 1, "Z"), (32, 2, "10"), (1023, 3, "0ZZ")]
)
def test_base32(value: int, length: int, text: str) -> None:
    assert encode_base32(value, length) == text


def test_new_traces_and_spans() -> None:
    ids = RequestIds()
    trace, span = ids.new_trace()
    assert re.fullmatch("[0-9a-f]{32}", trace) and re.fullmatch("[0-9a-f]{16}", span)
    assert re.fullmatch("[0-9a-f]{16}", ids.new_span())
    assert int(trace, 16) and int(span, 16)
    assert parse_traceparent(f"00-{trace}-{span}-01".encode()) == (trace, "01")
    assert ids.new_trace()[0] != trace and ids.new_span() != span


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        *((b"00-%b-%b-01", "01"), (b"00-%b-%b-00", "00"), (b"00-%b-%b-ff", "01")),
        *((b"00-%b-%b-02", "00"), (b"00-%b-%b-0a", "00"), (b"00-%b-%b-0b", "01")),
        *((b"01-%b-%b-01", "01"), (b"cc-%b-%b-01-what-comes-later", "01"), (b"fe-%b-%b-00-", "00")),
    ],
)
def test_c2_a_valid_traceparent(value: bytes, flags: str) -> None:
    assert parse_traceparent(value % (TRACE, PARENT)) == (TRACE.decode(), flags)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"00",
        b"00-%b-%b" % (TRACE, PARENT),
        b"ff-%b-%b-01" % (TRACE, PARENT),
        b"00-%b-%b-01-x" % (TRACE, PARENT),
        b"00-%b-%b-01-" % (TRACE, PARENT),
        b"00-%b-%b-01 " % (TRACE, PARENT),
        b"00-%b-%b-01\n" % (TRACE, PARENT),
        b"0-%b-%b-01" % (TRACE, PARENT),
        b"00-%b-%b-1" % (TRACE, PARENT),
        b"00-%b-%b-0G" % (TRACE, PARENT),
        b"00-%b-%b-01" % (TRACE.upper(), PARENT),
        b"00-%b-%b-01" % (b"0" * 32, PARENT),
        b"00-%b-%b-01" % (TRACE, b"0" * 16),
        b"00-%b-%b-01" % (TRACE[:-1], PARENT),
        b"00_%b_%b_01" % (TRACE, PARENT),
        b"cc-%b-%b-01x" % (TRACE, PARENT),
        b"cc-%b-%b-01-x y" % (TRACE, PARENT),
        b"00-%b-%b-01,00-%b-%b-01" % (TRACE, PARENT, TRACE, PARENT),
        b"cc-%b-%b-01-x,00-%b-%b-01" % (TRACE, PARENT, TRACE, PARENT),
        b"cc-%b-%b-01,cc-%b-%b-01" % (TRACE, PARENT, TRACE, PARENT),
    ],
)
def test_c2_any_other_traceparent(value: bytes) -> None:
    assert parse_traceparent(value) is None


@given(st.binary(max_size=70))
def test_any_bytes_are_a_traceparent_or_none(value: bytes) -> None:
    assert parse_traceparent(value) is None or len(value) >= 55


@pytest.mark.parametrize("value", [b"a=b", b"a=b,c=d", b"a" * 512, b",".join([b"a=b"] * 32)])
def test_a_tracestate(value: bytes) -> None:
    assert parse_tracestate(value) == value


@pytest.mark.parametrize(
    "value", [b"", b"a" * 513, b",".join([b"a=b"] * 33), b"a=\x00", b"a=\xff", b"a\t", b"a\r\nb"]
)
def test_any_other_tracestate(value: bytes) -> None:
    assert parse_tracestate(value) is None
