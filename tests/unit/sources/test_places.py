from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ConfigurationError
from sidecar.identity.spiffe_id import parse_spiffe_id
from sidecar.sources.places import MAX_NAME_BYTES, entry_name, issued_places

segments = st.lists(
    st.text("abZ09._-", min_size=1, max_size=8).filter(lambda text: text not in (".", "..")),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/web", "web"),
        ("/a/b", "a+b"),
        ("/ns/shop/sa/web", "ns+shop+sa+web"),
        ("/...", "..."),
        ("/.x/-y", ".x+-y"),
    ],
)
def test_the_name_is_the_path_with_its_segments_joined(path, name):
    assert entry_name(parse_spiffe_id(f"spiffe://shop.test{path}")) == name


@given(segments, segments)
def test_no_two_ids_share_a_name_and_none_leads_elsewhere(one, other):
    names = [entry_name(parse_spiffe_id("spiffe://shop.test/" + "/".join(each))) for each in (one, other)]
    assert (names[0] == names[1]) == (one == other)
    for name in names:
        assert "/" not in name and name not in (".", "..") and not name.startswith("+")


def test_a_path_too_long_for_a_file_name_is_refused():
    assert entry_name(parse_spiffe_id(f"spiffe://shop.test/{'a' * MAX_NAME_BYTES}"))
    with pytest.raises(ConfigurationError, match="names files after it"):
        entry_name(parse_spiffe_id(f"spiffe://shop.test/{'a' * (MAX_NAME_BYTES + 1)}"))


def test_the_three_files_are_side_by_side():
    places = issued_places(Path("/i"), parse_spiffe_id("spiffe://shop.test/a/b"))
    assert [str(each) for each in (places.svid, places.key, places.bundle)] == [
        "/i/svids/a+b/svid.pem",
        "/i/svids/a+b/svid_key.pem",
        "/i/svids/a+b/bundle.pem",
    ]
