from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ConfigurationError, StateError
from sidecar.identity.spiffe_id import parse_spiffe_id
from sidecar.issuer.entry import Entry, dump_entry, parse_entry, parse_entry_id

WEB = Entry(parse_spiffe_id("spiffe://shop.test/ns/web"), datetime(2026, 11, 24, 12, 0, tzinfo=UTC))


def stored(**changes):
    return json.dumps(json.loads(dump_entry(WEB)) | changes).encode()


def test_an_entry_is_read_as_it_was_written():
    assert WEB.name == "ns+web"
    assert parse_entry(dump_entry(WEB), "ns+web", "shop.test") == WEB


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"{}",
        b"[]",
        dump_entry(WEB)[:-5],
        stored(version=2),
        stored(version="1"),
        stored(spiffe_id="spiffe://shop.test/other"),
        stored(spiffe_id="spiffe://other.test/ns/web"),
        stored(spiffe_id="spiffe://shop.test"),
        stored(spiffe_id="spiffe://shop.test/../etc"),
        stored(added_at="yesterday"),
        stored(added_at="2026-11-24T12:00:00"),
        stored(extra=1),
        b"\xff\xfe",
        b'{"version":1,"spiffe_id":"\xff","added_at":"2026-11-24T12:00:00Z"}',
    ],
)
def test_a_damaged_entry_is_refused(data):
    with pytest.raises(StateError, match=r"entry 'ns\+web'"):
        parse_entry(data, "ns+web", "shop.test")


@given(st.binary(max_size=200))
def test_anything_else_is_refused(data):
    with pytest.raises(StateError):
        parse_entry(data, "ns+web", "shop.test")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("spiffe://other.test/web", "another trust domain"),
        ("spiffe://shop.test.evil/web", "another trust domain"),
        ("spiffe://shop.test", "needs a path"),
        ("spiffe://shop.test/", "slash"),
        ("spiffe://shop.test/a/../b", "segment"),
        ("web", "spiffe://"),
        ("", "spiffe://"),
        ("spiffe://shop.test/web\n", "characters"),
        ("spiffe://shop.test/" + "a" * 201, "names files after it"),
    ],
)
def test_an_id_that_this_authority_may_not_issue_to_is_refused(text, words):
    with pytest.raises(ConfigurationError, match=words):
        parse_entry_id(text, "shop.test")
