"""The canonical target: one form for each path, and a refusal where a path has two readings (group B)."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.authz.reasons import Reason
from sidecar.identity.route import parse_pattern
from sidecar.proxy.errors import MessageError
from sidecar.proxy.target import Target, parse_target


def refuse_400(raw: bytes) -> str:
    """What the caller is told."""
    for _ in range(2):  # a refusal is not remembered as something else
        with pytest.raises(MessageError) as caught:
            parse_target(raw)
        assert (caught.value.status, caught.value.reason) == (400, Reason.MALFORMED)
    return caught.value.detail


def test_a_refusal_says_which_character_it_is_about() -> None:
    assert "parameters (;)" in refuse_400(b"/a;b")
    assert "backslash" in refuse_400(b"/a\\b")
    assert "fragment" in refuse_400(b"/a#b") and "fragment" in refuse_400(b"/a?b#c")
    assert "encoded slash" in refuse_400(b"/a%2fb")
    assert "empty segment" in refuse_400(b"/a//b")
    assert "above its root" in refuse_400(b"/..")


@pytest.mark.parametrize(
    ("raw", "path", "segments"),
    [
        (b"/", "/", ("",)),
        (b"/orders", "/orders", ("orders",)),
        (b"/orders/42", "/orders/42", ("orders", "42")),
        (b"/a.b/c-d_e~f", "/a.b/c-d_e~f", ("a.b", "c-d_e~f")),
        (b"/a:b@c,d=e&f!g$h'i(j)k*l+m", "/a:b@c,d=e&f!g$h'i(j)k*l+m", ("a:b@c,d=e&f!g$h'i(j)k*l+m",)),
        (b"/caf%c3%a9", "/caf%C3%A9", ("caf%C3%A9",)),
        (b"/a%20b", "/a%20b", ("a%20b",)),
        (b"/.well-known/x", "/.well-known/x", (".well-known", "x")),
        (b"/...", "/...", ("...",)),
        (b"/..a/b..", "/..a/b..", ("..a", "b..")),
    ],
)
def test_a_path(raw: bytes, path: str, segments: tuple[str, ...]) -> None:
    assert parse_target(raw) == Target(path, segments)
    assert parse_target(raw).wire == path.encode()


@pytest.mark.parametrize(
    ("raw", "query"),
    [
        (b"/a?", b""),
        (b"/a?b=c&d", b"b=c&d"),
        (b"/a?b=%0d%0a", b"b=%0d%0a"),
        (b"/a?x=../y;z", b"x=../y;z"),
        (b"/a??", b"?"),
    ],
)
def test_a_query_stays_as_it_is(raw: bytes, query: bytes) -> None:
    target = parse_target(raw)
    assert (target.path, target.query, target.wire) == ("/a", query, raw)


@pytest.mark.parametrize(
    "raw", [b"//admin", b"/a//b", b"//", b"/a//", b"/a/..//b", b"/.//a", b"/%2e//a", b"//a/.."]
)
def test_b1_empty_segments(raw: bytes) -> None:
    refuse_400(raw)


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        *((b"/info/../private", "/private"), (b"/a/b/../../c", "/c"), (b"/a/./b", "/a/b")),
        *((b"/./a", "/a"), (b"/a/.", "/a/"), (b"/a/./", "/a/"), (b"/a/..", "/"), (b"/a/../", "/")),
        *((b"/a/b/..", "/a/"), (b"/a/b/../", "/a/"), (b"/.", "/"), (b"/./", "/")),
    ],
)
def test_b3_dot_segments_are_removed(raw: bytes, path: str) -> None:
    assert parse_target(raw).path == path


@pytest.mark.parametrize(
    "raw", [b"/..", b"/../a", b"/a/../../b", b"/./../a", b"/%2e%2e/a", b"/a/%2E%2e/.%2e"]
)
def test_b3_above_the_root(raw: bytes) -> None:
    refuse_400(raw)


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/a/%2e%2e/x", "/x"),
        (b"/a/.%2E/x", "/x"),
        (b"/a/%2E./x", "/x"),
        (b"/%2e/x", "/x"),
        (b"/%61dmin", "/admin"),
        (b"/%7Euser/%2D%5f", "/~user/-_"),
    ],
)
def test_b4_unreserved_characters_are_decoded_first(raw: bytes, path: str) -> None:
    assert parse_target(raw).path == path


@pytest.mark.parametrize("raw", [b"/a%2fb", b"/a%2Fb", b"/%2f", b"/..%2f..%2fadmin", b"/a%2f..%2fb"])
def test_b5_encoded_slashes(raw: bytes) -> None:
    refuse_400(raw)


@pytest.mark.parametrize("raw", [b"/a\\b", b"/a%5cb", b"/a%5Cb", b"\\a", b"/..\\..\\admin"])
def test_b6_backslashes(raw: bytes) -> None:
    refuse_400(raw)


@pytest.mark.parametrize(
    ("raw", "path"),
    [(b"/a%252fb", "/a%252fb"), (b"/%252e%252e/x", "/%252e%252e/x"), (b"/%25%32%66", "/%252f")],
)
def test_b7_escapes_are_decoded_once(raw: bytes, path: str) -> None:
    assert parse_target(raw).path == path
    assert parse_target(path.encode()).path == path


@pytest.mark.parametrize("raw", [b"/public/..;/admin", b"/admin;x=1", b"/;", b"/a/;/b", b"/..;/", b"/a;"])
def test_b8_path_parameters(raw: bytes) -> None:
    refuse_400(raw)


@pytest.mark.parametrize("raw", [b"/%0d%0aX:y", b"/a%00", b"/a%0A", b"/%7f", b"/a%1Fb", b"/a%09b"])
def test_b10_encoded_controls_in_a_path(raw: bytes) -> None:
    refuse_400(raw)


@pytest.mark.parametrize("raw", [b"/a#b", b"/a?b#c", b"#", b"/#", b"http://a/b#c", b"/a%23b#"])
def test_b12_fragments(raw: bytes) -> None:
    refuse_400(raw)


def test_b16_a_trailing_slash_is_another_path() -> None:
    assert parse_target(b"/admin/") == Target("/admin/", ("admin", ""))
    assert parse_target(b"/admin/") != parse_target(b"/admin")
    assert not parse_pattern("/admin").matches(parse_target(b"/admin/").segments)


@pytest.mark.parametrize(
    "raw", [b"", b"a", b"Service/Method", b"*", b"?a", b"http:/a", b"ftp://a/b", b"http//a", b"://a"]
)
def test_b17_neither_path_nor_url(raw: bytes) -> None:
    refuse_400(raw)


@pytest.mark.parametrize(
    "raw",
    [
        *(b"/a b", b"/a\tb", b"/a\x00", b"/a\r\nb", b"/\xc3\xa9", b"/a%", b"/a%2", b"/a%zz", b'/a"b'),
        *(b"/a<b", b"/a>b", b"/a|b", b"/a^b", b"/a`b", b"/a{b}", b"/a[b]", b"/a\x7f", b"/a\n"),
        *(b"/a?b c", b"/a?b\\c", b"/a?<", b"/a?\x00", b"/a?\xff", b"/a?b\n", b"http://a/b c"),
        *(b"http://a/\n",),
    ],
)
def test_bytes_that_no_url_holds(raw: bytes) -> None:
    refuse_400(raw)


@pytest.mark.parametrize(
    ("raw", "target"),
    [
        (b"http://shop.test/a/../b", Target("/b", ("b",), None, b"shop.test")),
        (b"https://shop.test:443/a?b", Target("/a", ("a",), b"b", b"shop.test:443")),
        (b"HTTP://shop.test", Target("/", ("",), None, b"shop.test")),
        (b"http://shop.test?b", Target("/", ("",), b"b", b"shop.test")),
        (b"http://u@shop.test/", Target("/", ("",), None, b"u@shop.test")),
    ],
)
def test_the_absolute_form_keeps_its_authority_apart(raw: bytes, target: Target) -> None:
    assert parse_target(raw) == target
    assert target.wire.startswith(b"/")


def test_a_long_target_is_read_like_a_short_one() -> None:
    long = b"/" + b"a" * 4000
    assert parse_target(long + b"/../b").path == "/b"
    assert parse_target(long + b"?c") == Target(long.decode(), (long[1:].decode(),), b"c")
    refuse_400(long + b"//b")


TEXT = st.lists(
    st.sampled_from(
        [
            *(b"/", b"/", b".", b"..", b"%2e", b"%2F", b"%41", b"%c3", b"a", b"b", b";", b"?", b"#", b"%"),
            *(b"\\", b"*", b"%25"),
        ]
    ),
    max_size=12,
).map(lambda parts: b"/" + b"".join(parts))


@given(st.one_of(st.binary(max_size=60), TEXT))
@example(b"/a/%2e%2e/%2e")
@settings(max_examples=600, deadline=None)
def test_the_canonical_form_is_its_own_canonical_form(raw: bytes) -> None:
    try:
        target = parse_target(raw)
    except MessageError as error:
        assert error.status == 400
        return
    assert parse_target(target.wire) == target._replace(authority=None)
    assert target.path == "/" + "/".join(target.segments)
    assert not {".", ".."} & set(target.segments)
    assert "" not in target.segments[:-1]
    assert not {"/", "\\", ";", "?", "#"} & set("".join(target.segments))


@given(TEXT)
@settings(max_examples=300, deadline=None)
def test_a_canonical_path_can_be_written_as_a_pattern(raw: bytes) -> None:
    try:
        path = parse_target(raw).path
    except MessageError:
        return
    if "*" not in path:
        assert parse_pattern(path).matches(parse_target(raw).segments)
