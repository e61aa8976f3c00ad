"""Every clause of the SPIFFE ID grammar, by name."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import IdentityError
from sidecar.identity.spiffe_id import SpiffeId, parse_spiffe_id, parse_trust_domain, parse_workload_id

TD_CHARACTERS = string.ascii_lowercase + string.digits + "._-"
PATH_CHARACTERS = string.ascii_letters + string.digits + "._-"


def rule_of(text: str) -> str:
    with pytest.raises(IdentityError) as raised:
        parse_spiffe_id(text)
    assert "\n" not in str(raised.value)
    return raised.value.rule


@pytest.mark.parametrize(
    ("text", "domain", "path"),
    [
        ("spiffe://demo.test", "demo.test", ""),
        ("spiffe://demo.test/web", "demo.test", "/web"),
        ("spiffe://demo.test/ns/shop/sa/web", "demo.test", "/ns/shop/sa/web"),
        ("spiffe://demo.test/Web", "demo.test", "/Web"),
        # ID-07: what looks like an address or like nothing at all is a name like any other
        ("spiffe://1.2.3.4/web", "1.2.3.4", "/web"),
        ("spiffe://a_b/web", "a_b", "/web"),
        ("spiffe://-/web", "-", "/web"),
        ("spiffe://../web", "..", "/web"),
        ("spiffe://./web", ".", "/web"),
        # ID-08: dots are fine as long as they are not one or two alone
        ("spiffe://demo.test/...", "demo.test", "/..."),
        ("spiffe://demo.test/.x", "demo.test", "/.x"),
        ("spiffe://demo.test/x.", "demo.test", "/x."),
        ("spiffe://demo.test/-/_", "demo.test", "/-/_"),
    ],
)
def test_well_formed(text, domain, path):
    spiffe_id = parse_spiffe_id(text)
    assert spiffe_id == SpiffeId(domain, path)
    assert str(spiffe_id) == text
    assert spiffe_id.is_workload == bool(path)


@pytest.mark.parametrize(
    "text",
    ["", "demo.test/web", "//demo.test/web", "spiffe:/demo.test", "spiffe:demo.test", "https://demo.test/web",
     "SPIFFE://demo.test/web", "Spiffe://demo.test/web", "xspiffe://demo.test", " spiffe://demo.test/web",
     "\nspiffe://demo.test/web", "\ufeffspiffe://demo.test/web", "\u017fpiffe://demo.test/web", "spiffe"],
)  # fmt: skip
def test_id_01_scheme(text):
    assert rule_of(text) == "ID-01"


@pytest.mark.parametrize("text", ["spiffe://", "spiffe:///", "spiffe:///web"])
def test_id_02_trust_domain_is_not_empty(text):
    assert rule_of(text) == "ID-02"


@pytest.mark.parametrize("end", ["?", "#", "?a=b", "#x", "?#", "#?"])
@pytest.mark.parametrize("front", ["spiffe://demo.test", "spiffe://demo.test/web", "spiffe://demo.test/"])
def test_id_03_neither_query_nor_fragment_not_even_empty_ones(front, end):
    assert rule_of(front + end) == "ID-03"


@pytest.mark.parametrize(
    "authority",
    ["user@demo.test", "user:pass@demo.test", "@demo.test", "demo.test:", "demo.test:443", "[::1]"],
)
def test_id_04_neither_user_nor_port(authority):
    assert rule_of(f"spiffe://{authority}/web") == "ID-04"


@pytest.mark.parametrize(
    "domain",
    ["Demo.test", "DEMO", "demo test", "demo\u212a", "\u212a", "d\u00e9mo", "xn--\u00e9", "demo.test\n", "\ndemo.test",
     "demo\x00", "a,b", "a~b", "a!b", "(a)", "a\\b", "a\ud800", "\u0131", "\u0660", "\uff41"],
)  # fmt: skip
def test_id_05_characters_of_a_trust_domain(domain):
    assert rule_of(f"spiffe://{domain}/web") == "ID-05"
    assert rule_of(f"spiffe://{domain}") == "ID-05"
    with pytest.raises(IdentityError):
        parse_trust_domain(domain)


@pytest.mark.parametrize(
    "text",
    ["spiffe://d%65mo/web", "spiffe://%/web", "spiffe://demo.test/%77eb", "spiffe://demo.test/a/%2e%2e"],
)
def test_id_06_nothing_is_percent_encoded(text):
    assert rule_of(text) == "ID-06"


@pytest.mark.parametrize(
    "segment",
    ["~", "a b", "a:b", "a@b", "a=b", "a&b", "a\\b", "\u00e9", "\u212a", "web\n", "web\r", "web\x00", "\x00", "a*",
     "a;b", "a\u2028b", "\ud800"],
)  # fmt: skip
def test_id_08_characters_of_a_segment(segment):
    assert rule_of(f"spiffe://demo.test/{segment}") == "ID-08"
    assert rule_of(f"spiffe://demo.test/{segment}/a") == "ID-08"


@pytest.mark.parametrize(
    "path",
    ["//web", "/web//a", "/./web", "/web/.", "/../web", "/web/..", "/a/./b", "/a/../b", "/.", "/..", "//a"],
)
def test_id_09_neither_empty_nor_dot_segments(path):
    assert rule_of(f"spiffe://demo.test{path}") == "ID-09"


@pytest.mark.parametrize("path", ["/", "/web/", "/a/b/", "//", "/../"])
def test_id_10_no_slash_at_the_end(path):
    assert rule_of(f"spiffe://demo.test{path}") == "ID-10"


def test_id_11_2048_bytes_and_no_more():
    front = "spiffe://demo.test/"
    longest = front + "a" * (2048 - len(front))
    assert str(parse_spiffe_id(longest)) == longest
    assert rule_of(longest + "a") == "ID-11"
    assert rule_of(front + "\u00e9" * 1020) == "ID-11", "bytes are counted, not characters"


def test_id_12_255_bytes_of_trust_domain_and_no_more():
    assert parse_spiffe_id(f"spiffe://{'a' * 255}/web").trust_domain == "a" * 255
    assert rule_of(f"spiffe://{'a' * 256}/web") == "ID-12"


@pytest.mark.parametrize("upper", ["spiffe://Demo.test/web", "SPIFFE://demo.test/web"])
def test_id_13_upper_case_is_refused_and_not_folded(upper):
    assert rule_of(upper) in ("ID-01", "ID-05")


def test_id_13_paths_differ_by_case():
    assert parse_spiffe_id("spiffe://demo.test/web") != parse_spiffe_id("spiffe://demo.test/Web")


def test_x5_03_a_workload_has_a_path():
    assert parse_workload_id("spiffe://demo.test/web").is_workload
    with pytest.raises(IdentityError) as raised:
        parse_workload_id("spiffe://demo.test")
    assert raised.value.rule == "X5-03"


def test_a_workload_id_is_held_to_the_grammar_too():
    with pytest.raises(IdentityError) as raised:
        parse_workload_id("spiffe://demo.test/web/")
    assert raised.value.rule == "ID-10"


domains = st.text(TD_CHARACTERS, min_size=1, max_size=255)
segments = st.text(PATH_CHARACTERS, min_size=1, max_size=30).filter(lambda text: text not in (".", ".."))


@given(domain=domains, path=st.lists(segments, max_size=8))
def test_what_is_well_formed_comes_back_as_it_was(domain, path):
    text = "/".join([f"spiffe://{domain}", *path])
    spiffe_id = parse_spiffe_id(text)
    assert str(spiffe_id) == text
    assert spiffe_id.trust_domain == domain
    assert parse_spiffe_id(str(spiffe_id)) == spiffe_id


# Said a second time, in another way: one expression for the whole.
GRAMMAR = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/(?!\.{1,2}(/|\Z))[A-Za-z0-9._-]+)*")
near_misses = st.text("abZ9.-_/%:@?# \n\x00~\u212a\u00e9", max_size=40)


@given(
    text=st.one_of(
        st.text(max_size=60),
        near_misses,
        near_misses.map("spiffe://".__add__),
        near_misses.map("spiffe://a/".__add__),
    )
)
def test_nothing_is_accepted_that_the_grammar_does_not_make(text):
    try:
        accepted = str(parse_spiffe_id(text))
    except IdentityError as error:
        assert error.rule.startswith("ID-")
        assert GRAMMAR.fullmatch(text) is None
    else:
        assert accepted == text
        assert GRAMMAR.fullmatch(text) is not None


@given(text=st.text(max_size=60))
def test_trust_domains_are_read_by_the_same_rules(text):
    try:
        assert parse_trust_domain(text) == text
    except IdentityError:
        assert re.fullmatch(r"[a-z0-9._-]{1,255}", text) is None
    else:
        assert re.fullmatch(r"[a-z0-9._-]{1,255}", text) is not None
