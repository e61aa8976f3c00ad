"""What a path pattern covers, and which patterns there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ConfigurationError
from sidecar.identity.route import MAX_PATTERN_BYTES, parse_pattern, split_path


def covers(pattern: str, path: str) -> bool:
    return parse_pattern(pattern).matches(split_path(path))


@pytest.mark.parametrize(
    ("pattern", "covered", "not_covered"),
    [
        ("/", ["/"], ["/a", "//"]),
        ("/orders", ["/orders"], ["/", "/orders/", "/orders/1", "/order", "/ordersx", "/Orders", "/x/orders"]),
        ("/orders/", ["/orders/"], ["/orders", "/orders/1", "/orders//"]),
        ("/orders/**", ["/orders", "/orders/", "/orders/1", "/orders/1/items/", "/orders/a/b/c"],
         ["/", "/order", "/ordersx", "/ordersx/1", "/x/orders"]),
        ("/**", ["/", "/a", "/a/", "/a/b/c", "/orders/1"], []),
        ("/*", ["/a", "/*", "/a.b"], ["/", "/a/", "/a/b"]),
        ("/a/*", ["/a/b", "/a/*", "/a/.well-known"], ["/a", "/a/", "/a/b/", "/a/b/c", "/b/a"]),
        ("/a/*/", ["/a/b/"], ["/a/b", "/a//", "/a/b/c", "/a/"]),
        ("/a/*/c", ["/a/b/c"], ["/a//c", "/a/b/d", "/a/b", "/a/b/c/", "/a/b/b/c"]),
        ("/*/*", ["/a/b"], ["/a", "/a/", "/a/b/c", "/"]),
        ("/a/*/**", ["/a/b", "/a/b/", "/a/b/c/d"], ["/a", "/a/"]),
        ("/a/**", ["/a/**", "/a"], ["/ab"]),
        ("/a%20b", ["/a%20b"], ["/a b", "/a%2520b", "/a+b"]),
        ("/caf%C3%A9", ["/caf%C3%A9"], ["/caf\u00e9", "/cafe"]),
        ("/a@b:c,d=e&f(g)!$'+~-_.", ["/a@b:c,d=e&f(g)!$'+~-_."], ["/a"]),
    ],
)  # fmt: skip
def test_what_is_covered(pattern, covered, not_covered):
    assert [path for path in covered if not covers(pattern, path)] == []
    assert [path for path in not_covered if covers(pattern, path)] == []
    assert str(parse_pattern(pattern)) == pattern


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("", "must start with /"),
        ("orders", "must start with /"),
        ("*", "must start with /"),
        ("**", "must start with /"),
        (" /a", "must start with /"),
        ("http://a/b", "must start with /"),
        ("/a*", "whole segment"),
        ("/*a", "whole segment"),
        ("/a*b/c", "whole segment"),
        ("/***", "whole segment"),
        ("/**/a", "last segment"),
        ("/a/**/", "last segment"),
        ("/**/**", "last segment"),
        ("//", "empty segment"),
        ("/a//b", "empty segment"),
        ("//a", "empty segment"),
        ("//**", "empty segment"),
        ("/a//**", "empty segment"),
        ("/.", "'.' or '..'"),
        ("/..", "'.' or '..'"),
        ("/a/../b", "'.' or '..'"),
        ("/a/./b", "'.' or '..'"),
        ("/../**", "'.' or '..'"),
        ("/a?b", "no canonical path"),
        ("/a#b", "no canonical path"),
        ("/a;b", "no canonical path"),
        ("/a b", "no canonical path"),
        ("/a\\b", "no canonical path"),
        ("/a\n", "no canonical path"),
        ("/a\x00", "no canonical path"),
        ("/caf\u00e9", "no canonical path"),
        ("/\u212a", "no canonical path"),
        ("/{id}", "no canonical path"),
        ("/a%", "no canonical path"),
        ("/a%2", "no canonical path"),
        ("/a%zz", "no canonical path"),
        ("/a%c3", "upper-case digits"),
        ("/a%00", "no canonical path"),
        ("/a%0A", "no canonical path"),
        ("/a%7F", "no canonical path"),
        ("/%61", "'%61'"),
        ("/a%2Fb", "'%2F'"),
        ("/a%5Cb", "'%5C'"),
        ("/%2E%2E", "'%2E'"),
        ("/a%7Eb", "'%7E'"),
    ],
)
def test_bg_6_what_is_no_pattern(pattern, words):
    with pytest.raises(ConfigurationError) as raised:
        parse_pattern(pattern)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_length():
    assert parse_pattern("/" + "a" * (MAX_PATTERN_BYTES - 1))
    with pytest.raises(ConfigurationError, match="bytes"):
        parse_pattern("/" + "a" * MAX_PATTERN_BYTES)


@pytest.mark.parametrize(
    ("path", "segments"),
    [("/", ("",)), ("/a", ("a",)), ("/a/", ("a", "")), ("/a/b", ("a", "b")), ("/a/b/", ("a", "b", ""))],
)
def test_segments_of_a_path(path, segments):
    assert split_path(path) == segments


literals = st.text("abzAZ09._~-!$&'()+,=:@", min_size=1, max_size=6).filter(
    lambda text: text not in (".", "..")
)


@given(st.lists(literals, min_size=1, max_size=6), st.booleans())
def test_a_literal_pattern_covers_itself_and_nothing_else(parts, slash):
    path = "/" + "/".join(parts) + ("/" if slash else "")
    pattern = parse_pattern(path)
    assert pattern.matches(split_path(path))
    assert not pattern.matches(split_path(path + "x/y"))
    assert not pattern.matches(split_path(path + "/" if not slash else path[:-1]))
    assert not pattern.matches(split_path("/x" + path))


@given(st.lists(literals, max_size=4), st.lists(literals, max_size=4), st.booleans())
def test_an_open_pattern_covers_its_root_and_all_below(front, below, slash):
    pattern = parse_pattern("/" + "/".join([*front, "**"]))
    path = "/" + "/".join([*front, *below]) + ("/" if slash and (front or below) else "")
    assert pattern.matches(split_path(path))


@given(st.text(max_size=30), st.text(max_size=30))
def test_parsing_gives_a_pattern_or_a_configuration_error(text, path):
    for candidate in (text, "/" + text):
        try:
            pattern = parse_pattern(candidate)
        except ConfigurationError:
            continue
        assert pattern.text == candidate
        pattern.matches(split_path("/" + path))
