"""Every slicing of an upstream's bytes gives the same answer, or the same refusal."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.proxy.answer_reader import MAX_INTERIM, AnswerReader
from sidecar.proxy.errors import UpstreamError

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
HINT = b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"


def make_reader(method: str = "GET") -> AnswerReader:
    reader = AnswerReader(65536)
    reader.begin(method)
    return reader


def read(data: bytes, cuts: list[int], method: str = "GET") -> tuple[AnswerReader, bytes]:
    reader = make_reader(method)
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    body = b""
    for start, end in pairwise(places):
        if start != end:
            body += reader.feed(data[start:end])
    return reader, body


@given(
    st.sampled_from([OK, HINT + OK, CHUNKED, HINT * 3 + CHUNKED]), st.lists(st.integers(0, 1000), max_size=6)
)
def test_the_answer_is_the_same_however_it_comes(data: bytes, cuts: list[int]):
    reader, body = read(data, cuts)
    assert (body, reader.is_done, reader.has_excess, reader.may_be_reused) == (b"hello", True, False, True)
    assert [answer.status for answer in reader.interim] == [103] * data.count(b" 103 ")


@given(
    st.sampled_from([OK, CHUNKED]),
    st.lists(st.integers(0, 1000), max_size=4),
    st.binary(min_size=1, max_size=9),
)
def test_a_byte_too_many_is_seen_however_it_comes(data: bytes, cuts: list[int], excess: bytes):
    reader, body = read(data + excess, cuts)
    assert (body, reader.is_done, reader.has_excess, reader.may_be_reused) == (b"hello", True, True, False)


@given(st.binary(max_size=200), st.lists(st.integers(0, 300), max_size=4))
def test_anything_is_an_answer_or_a_502(data: bytes, cuts: list[int]):
    try:
        read(data, cuts)
    except UpstreamError as error:
        assert error.status == 502


@pytest.mark.parametrize(
    ("method", "data"),
    [("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"), ("GET", b"HTTP/1.1 204 No Content\r\n\r\n")],
)
def test_an_answer_without_body_is_done_with_its_head(method: str, data: bytes):
    reader, body = read(data, [], method)
    assert (body, reader.is_done, reader.may_be_reused) == (b"", True, True)
    reader, _ = read(data + b"hello", [], method)
    assert reader.has_excess


def test_an_answer_may_end_with_its_connection_only_if_its_head_says_so():
    reader, body = read(b"HTTP/1.1 200 OK\r\n\r\nhello", [])
    assert (body, reader.is_done) == (b"hello", False)
    assert reader.end()
    assert not reader.may_be_reused
    for data in (b"", OK[:10], OK[:-1], CHUNKED[:-1]):
        assert not read(data, [])[0].end()


@pytest.mark.parametrize(("count", "good"), [(MAX_INTERIM, True), (MAX_INTERIM + 1, False)])
def test_interim_answers_are_bounded_over_all_pieces(count: int, good: bool):
    reader = make_reader()
    try:
        for _ in range(count):
            reader.feed(HINT)
            reader.interim = ()
    except UpstreamError as error:
        assert (good, error.limit) == (False, "interim_answers")
    else:
        assert good


def test_continue_is_dropped_and_counted():
    reader = make_reader()
    reader.feed(b"HTTP/1.1 100 Continue\r\n\r\n" * MAX_INTERIM)
    assert reader.interim == ()
    with pytest.raises(UpstreamError):
        reader.feed(b"HTTP/1.1 100 Continue\r\n\r\n")


def test_nothing_of_one_answer_is_left_for_the_next():
    reader, _ = read(HINT + CHUNKED + b"x", [])
    reader.begin("GET")
    assert (reader.answer, reader.interim, reader.is_done, reader.has_excess) == (None, (), False, False)
    assert not reader.has_read
    assert reader.feed(OK) == b"hello"
    assert reader.may_be_reused


def test_the_same_head_after_another_method_is_another_answer():
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"
    reader = make_reader("GET")
    assert reader.feed(head + b"hello") == b"hello"
    reader.begin("HEAD")
    assert reader.feed(head) == b""
    assert reader.is_done
    reader.begin("GET")
    assert reader.feed(head) == b""
    assert not reader.is_done
