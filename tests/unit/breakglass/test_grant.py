from __future__ import annotations

import pytest

from sidecar.breakglass.grant import MAX_METHODS, make_target, parse_grant_id, parse_person, parse_target
from sidecar.errors import ConfigurationError
from sidecar.identity.route import split_path
from sidecar.identity.spiffe_id import parse_workload_id
from tests.fakes.clock import FakeClock
from tests.fakes.orders import ORDERS, OTHER, make_grant

CLOCK = FakeClock()


@pytest.mark.parametrize("text", ["oncall", "Oncall", "a", "jo.doe@example.org", "x+y_z-1", "a" * 128])
def test_names_of_people(text):
    assert parse_person(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "-a", ".a", "a b", "a\n", "a,b", "*", "on*call", "!a", "#a", "оncall", "a" * 129, 'a"b', "a\x00"],
    ids=repr,
)
def test_bg_15_what_is_no_name_or_only_looks_like_one(text):
    with pytest.raises(ConfigurationError, match="no name of a signer"):
        parse_person(text)


@pytest.mark.parametrize(
    "text", ["", "0" * 31, "0" * 33, "A" * 32, "0" * 31 + "g", "0" * 32 + "\n", "-" * 32]
)
def test_what_is_no_id(text):
    with pytest.raises(ConfigurationError, match="32 digits"):
        parse_grant_id(text)


def test_an_id():
    assert parse_grant_id("0123456789abcdef" * 2) == "0123456789abcdef" * 2


@pytest.mark.parametrize("text", ["DELETE /orders/*", "GET,HEAD /orders/**", "M-SEARCH /"])
def test_targets(text):
    assert str(parse_target(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "DELETE",
        "/orders",
        "DELETE  /orders",
        "DELETE /orders ",
        "DELETE /a /b",
        "delete /orders",
        "* /orders",
        ", /orders",
        "GET, /orders",
        "GET,GET /orders",
        "GET orders",
        "GET /a/../b",
        "GET /a*",
        "GET /a//b",
        "GET\t/orders",
        "GET /orders?x=1",
        ",".join(f"M{number}" for number in range(MAX_METHODS + 1)) + " /orders",
    ],
)
def test_what_is_no_target(text):
    with pytest.raises(ConfigurationError):
        parse_target(text)


def test_as_many_methods_as_allowed():
    methods = [f"M{number}" for number in range(MAX_METHODS)]
    assert make_target(methods, "/").methods == tuple(methods)


@pytest.mark.parametrize(
    ("method", "path", "covered"),
    [
        ("DELETE", "/orders/42", True),
        ("GET", "/orders/42", False),
        ("delete", "/orders/42", False),
        ("DELETE", "/orders", False),
        ("DELETE", "/orders/", False),
        ("DELETE", "/orders/42/items", False),
        ("DELETE", "/Orders/42", False),
    ],
)
def test_a_call_has_to_match_method_and_path(method, path, covered):
    assert make_grant(CLOCK).covers(method, split_path(path)) is covered


@pytest.mark.parametrize("pattern", ["/a*", "/a/../b", "/a/./b", "/a/%2e%2e/b", "/a/%2E%2E/b", "/a%2Fb"])
def test_bg_06_a_pattern_that_could_reach_out_of_its_place_is_none(pattern):
    with pytest.raises(ConfigurationError):
        make_target(["GET"], pattern)


def test_bg_06_a_star_is_one_segment_and_never_dots():
    """What is matched are the segments of the canonical path; it has no dots left, and `*` takes one segment."""
    target = make_target(["GET"], "/a/*")
    assert target.covers("GET", ("a", "b"))
    assert not target.covers("GET", split_path("/a/../b"))
    assert not target.covers("GET", split_path("/b"))


def test_the_audience_is_exact():
    grant = make_grant(CLOCK)
    assert grant.is_for(ORDERS) and not grant.is_for(OTHER)
    wide = make_grant(CLOCK, audience=(), wide="demo.test")
    assert wide.is_for(ORDERS) and wide.is_for(OTHER)
    assert not wide.is_for(parse_workload_id("spiffe://xdemo.test/orders"))
    assert not wide.is_for(parse_workload_id("spiffe://demo.test.evil.test/orders"))
