"""Bodies: their framing, and decoders that give the same for any slicing."""

from __future__ import annotations

import h11
import httptools
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.authz.reasons import Reason
from sidecar.proxy import body
from sidecar.proxy.body import (
    CHUNKED,
    LAST_CHUNK,
    NO_BODY,
    UNTIL_CLOSE,
    ChunkedDecoder,
    CloseDecoder,
    Decoder,
    Framing,
    LengthDecoder,
    build_decoder,
    encode_chunk,
    parse_content_length,
)
from sidecar.proxy.errors import MessageError


def decode(decoder: Decoder, *pieces: bytes) -> tuple[bytes, bytes]:
    """(body, what followed it) of all pieces together."""
    out, after = b"", b""
    for piece in pieces:
        if decoder.done:
            after += piece
        else:
            more, rest = decoder.feed(piece)
            out += more
            after += rest
    return out, after


def refuse(stream: bytes) -> MessageError:
    """The refusal of a chunked body, which must be the same in one piece and byte by byte."""
    with pytest.raises(MessageError) as whole:
        decode(ChunkedDecoder(), stream)
    with pytest.raises(MessageError) as bytewise:
        decode(ChunkedDecoder(), *[stream[place : place + 1] for place in range(len(stream))])
    assert whole.value.status == bytewise.value.status == 400
    assert whole.value.limit == bytewise.value.limit
    return whole.value


def slices(stream: bytes, data: st.DataObject) -> list[bytes]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    return [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


# Lengths


def test_framings() -> None:
    assert NO_BODY.is_empty and not CHUNKED.is_empty and not UNTIL_CLOSE.is_empty
    assert isinstance(build_decoder(CHUNKED), ChunkedDecoder)
    assert isinstance(build_decoder(Framing(length=3)), LengthDecoder)
    assert isinstance(build_decoder(UNTIL_CLOSE), CloseDecoder)
    assert build_decoder(NO_BODY).done and not build_decoder(UNTIL_CLOSE).done


@pytest.mark.parametrize(("value", "length"), [(b"0", 0), (b"7", 7), (b"9223372036854775807", (1 << 63) - 1)])
def test_a_plain_content_length(value: bytes, length: int) -> None:
    assert parse_content_length(value) == Framing(length=length)


@pytest.mark.parametrize(
    "value", [b"", b"+1", b"-1", b"00", b"01", b" 1", b"1 ", b"1,1", b"0x1", b"1\n", b"9223372036854775808"]
)
def test_a4_any_other_content_length(value: bytes) -> None:
    for _ in range(2):
        with pytest.raises(MessageError) as caught:
            parse_content_length(value)
        assert caught.value.status == 400


@given(st.binary(max_size=40), st.binary(max_size=20), st.data())
def test_a_body_of_known_length_in_any_slicing(content: bytes, after: bytes, data: st.DataObject) -> None:
    decoder = LengthDecoder(len(content))
    assert decode(decoder, *slices(content + after, data)) == (content, after)
    assert decoder.done


def test_a32_a_body_cut_short_is_never_done() -> None:
    decoder = LengthDecoder(5)
    assert decode(decoder, b"ab", b"cd") == (b"abcd", b"") and not decoder.done
    chunked = ChunkedDecoder()
    assert decode(chunked, b"5\r\nabcde\r\n") == (b"abcde", b"") and not chunked.done
    assert decode(chunked, b"0\r\n") == (b"", b"") and not chunked.done
    assert decode(chunked, b"\r") == (b"", b"") and not chunked.done
    assert decode(chunked, b"\n") == (b"", b"") and chunked.done


def test_a_body_until_the_end_of_the_connection() -> None:
    decoder = CloseDecoder()
    assert decode(decoder, b"a", b"b\r\n\r\n") == (b"ab\r\n\r\n", b"") and not decoder.done


def test_large_pieces_are_not_copied() -> None:
    piece = b"x" * 65_536
    assert LengthDecoder(1 << 30).feed(piece)[0] is piece
    decoder = ChunkedDecoder()
    decoder.feed(b"100000\r\n")
    assert decoder.feed(piece)[0] is piece


# Chunks


@st.composite
def chunked_streams(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """(a good chunked stream, what it carries)."""
    pieces = draw(st.lists(st.binary(min_size=1, max_size=30), max_size=5))
    extensions = st.sampled_from([b"", b"", b";a", b";a=b", b';a="b;\\" c"', b";a;b=c"])
    sizes = st.sampled_from([b"%x", b"%X", b"0%x", b"000000%x"])
    stream = b"".join(
        draw(sizes) % len(piece) + draw(extensions) + b"\r\n" + piece + b"\r\n" for piece in pieces
    )
    trailers = draw(st.sampled_from([b"", b"X-Sum: 1\r\n", b"A:\r\nAuthorization: b\xff\r\n"]))
    return stream + draw(st.sampled_from([b"0", b"00", b"0;a=b"])) + b"\r\n" + trailers + b"\r\n", b"".join(
        pieces
    )


@given(chunked_streams(), st.binary(max_size=20), st.data())
@settings(max_examples=500, deadline=None)
def test_chunks_in_any_slicing(stream: tuple[bytes, bytes], after: bytes, data: st.DataObject) -> None:
    decoder = ChunkedDecoder()
    assert decode(decoder, *slices(stream[0] + after, data)) == (stream[1], after)
    assert decoder.done


@given(st.lists(st.binary(min_size=1, max_size=100), max_size=5))
def test_what_is_encoded_is_decoded(pieces: list[bytes]) -> None:
    stream = b"".join(map(encode_chunk, pieces)) + LAST_CHUNK
    decoder = ChunkedDecoder()
    assert decode(decoder, stream) == (b"".join(pieces), b"") and decoder.done


@pytest.mark.parametrize(
    "size",
    [
        *(b"0x5", b"+5", b"-0", b"-5", b"5_0", b" 5", b"5 ", b"\t5", b"5\t", b"1zzz", b"", b"g"),
        *(b"5\x00", b"\xb2", b"5,", b"5.0", b"0" * 16 + b"5", b"8" + b"0" * 15, b"f" * 16, b"f" * 17),
        *(b"5 ;a", b"5; a", b"5;", b"5;=", b"5;a=", b"5;a =b", b"5;a,b", b'5;a="b', b'5;a="\x01"'),
        *(b"5;a\x00", b"5;\x80", b"5;a=\xff", b"5;;a", b"\r5", b"5\r"),
    ],
)
def test_a25_chunk_sizes(size: bytes) -> None:
    assert refuse(size + b"\r\nabcde\r\n0\r\n\r\n").reason is Reason.MALFORMED


def test_the_largest_chunk_size() -> None:
    decoder = ChunkedDecoder()
    assert decode(decoder, b"7" + b"f" * 15 + b"\r\n", b"abc") == (b"abc", b"")


@pytest.mark.parametrize(
    "stream",
    [
        *(b"5;\nabcde\r\n0\r\n\r\n", b"5;a\nabcde\r\n0\r\n\r\n", b"5\nabcde\r\n0\r\n\r\n"),
        *(b"5\r\nabcde\n0\r\n\r\n", b"5\r\nabcde\r\n0\n\r\n", b"5\r\nabcde\r\n0\r\n\n"),
        *(b"5\r\nabcde\r\n0\r\nA: b\n\r\n", b"5;a\r;b\r\nabcde\r\n0\r\n\r\n"),
        *(b"5\r\nabcde\r\n0\r\n\r\r", b"\n"),
    ],
)
def test_a28_bare_line_ends(stream: bytes) -> None:
    refuse(stream + b"\n" * stream.endswith(b"\r"))


def test_a30_long_extensions() -> None:
    limit = body.MAX_CHUNK_EXTENSION_BYTES
    good = b"5;" + b"a" * (limit - 1) + b"\r\nabcde\r\n0\r\n\r\n"
    assert decode(ChunkedDecoder(), good) == (b"abcde", b"")
    error = refuse(b"5;" + b"a" * limit + b"\r\nabcde\r\n0\r\n\r\n")
    assert (error.reason, error.limit) == (Reason.TOO_LARGE, "chunk_extension_bytes")
    assert refuse(b"5;" + b"a" * 65_536 + b"\r\n").limit == "chunk_extension_bytes"
    assert refuse(b"5;" + b"a" * 65_536).limit == "chunk_extension_bytes"  # and no end of line ever comes


def test_a30_an_extension_on_every_chunk() -> None:
    many, one = body.MAX_BODY_EXTENSION_BYTES // 2, b"1;a\r\nx\r\n"
    decoder = ChunkedDecoder()
    assert decode(decoder, one * many) == (b"x" * many, b"")
    with pytest.raises(MessageError) as caught:
        decoder.feed(one)
    assert caught.value.limit == "chunk_extension_bytes"


@pytest.mark.parametrize(
    "end",
    [b"XX", b"\n\r", b"\r\r", b"\n\n", b"a\r\n", b"\nX", b"X\r\n", b"  ", b"0\r\n", b"\r\n\r\n", b" \r\n"],
)
def test_a31_data_longer_than_its_size(end: bytes) -> None:
    refuse(b"5\r\nabcde" + end + b"0\r\n\r\n")
    refuse(b"3\r\nabc\r\n5\r\nabcde" + end + b"0\r\n\r\n")


@pytest.mark.parametrize(
    "name", [b"Content-Length", b"transfer-encoding", b"HOST", b"Content_Length", b"Transfer.Encoding"]
)
def test_a33_framing_in_trailers(name: bytes) -> None:
    refuse(b"0\r\n" + name + b": 5\r\n\r\n")


@pytest.mark.parametrize(
    "name", [b"Authorization", b"x-forwarded-client-cert", b"Sidecar-Reason", b"Cookie", b"Call-Purpose"]
)
def test_a33_c11_other_trailers_are_dropped(name: bytes) -> None:
    stream = b"3\r\nabc\r\n0\r\n" + name + b": spoofed\r\n\r\nrest"
    assert decode(ChunkedDecoder(), stream) == (b"abc", b"rest")


@pytest.mark.parametrize(
    "line", [b"no colon", b": x", b" folded", b"A : b", b"A\x00: b", b"A: \x00", b"A: b\x7f", b"A\xff: b"]
)
def test_a33_what_is_no_trailer(line: bytes) -> None:
    refuse(b"0\r\n" + line + b"\r\n\r\n")
    refuse(b"0\r\nX: y\r\n" + line + b"\r\n\r\n")


def test_the_limits_of_trailers() -> None:
    fields = b"a: b\r\n" * body.MAX_TRAILER_FIELDS
    assert decode(ChunkedDecoder(), b"0\r\n" + fields + b"\r\n") == (b"", b"")
    assert refuse(b"0\r\n" + fields + b"a: b\r\n\r\n").limit == "trailer_fields"
    room = body.MAX_TRAILER_BYTES - len(b"a:\r\n")
    assert decode(ChunkedDecoder(), b"0\r\na:" + b"x" * room + b"\r\n\r\n") == (b"", b"")
    assert refuse(b"0\r\na:" + b"x" * (room + 1) + b"\r\n\r\n").limit == "trailer_bytes"
    assert refuse(b"0\r\na:" + b"x" * 20_000).limit == "trailer_bytes"


# Second opinions

BROKEN = st.lists(
    st.sampled_from(
        [
            *(b"5\r\n", b"abcde", b"\r\n", b"0\r\n", b"0\r\n\r\n", b"\n", b"\r", b"A: b\r\n", b";a", b";"),
            *(b" ", b"1", b"x", b"a\r\n"),
        ]
    ),
    max_size=8,
).map(b"".join)
POST = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


class Recorder:
    def __init__(self) -> None:
        self.body = b""
        self.is_complete = False

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.is_complete = True


def ours(stream: bytes) -> tuple[bytes, bool] | None:
    """(body so far, whether it is complete); None if the stream is refused, or would be at the end of its line."""
    decoder = ChunkedDecoder()
    try:
        content, is_complete = decode(decoder, stream)[0], decoder.done
        return None if decoder._line else (content, is_complete)
    except MessageError:
        return None


@given(st.one_of(BROKEN, st.binary(max_size=40)))
@example(b"5 \r\nabcde\r\n0\r\n\r\n")
@settings(max_examples=800, deadline=None)
def test_llhttp_takes_what_is_taken_here(stream: bytes) -> None:
    result = ours(stream)
    recorder = Recorder()
    parser = httptools.HttpRequestParser(recorder)
    parser.feed_data(POST)
    try:
        parser.feed_data(stream)
    except httptools.HttpParserError:
        # What follows a complete message is another message to llhttp; that one may be bad.
        assert result is None or (result[1] and recorder.is_complete)
    if result is not None:
        assert recorder.body == result[0] and recorder.is_complete == result[1]


@given(BROKEN)
@settings(max_examples=400, deadline=None)
def test_h11_takes_what_is_taken_here(stream: bytes) -> None:
    result = ours(stream)
    if result is None:
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(POST + stream)
    content, is_complete = b"", False
    while not is_complete:
        event = connection.next_event()
        if event in (h11.NEED_DATA, h11.PAUSED):
            break
        content += bytes(event.data) if isinstance(event, h11.Data) else b""
        is_complete = isinstance(event, h11.EndOfMessage)
    assert (content, is_complete) == result


@given(st.lists(st.binary(max_size=300), max_size=6))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_a_body_or_a_refusal(pieces: list[bytes]) -> None:
    try:
        content, after = decode(ChunkedDecoder(), *pieces)
    except MessageError as error:
        assert error.status == 400
    else:
        assert len(content) + len(after) <= sum(map(len, pieces))
